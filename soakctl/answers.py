"""The raw answers of a self-test in a file of the user's: `selftest --out-file`."""

from __future__ import annotations

import os

from soakctl.failures import Detached, Failure
from soakctl.session import Session

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def check_out_file(path: str, *, no_wait: bool) -> None:
    """Refuses before anything is started what could not be written at the end.

    Raises:
        Failure: the file is there already, its folder is not, or nobody will wait for the end.
    """
    # Of no name at all it makes the current folder, which is there.
    full = os.path.abspath(path)
    folder = os.path.dirname(full)
    why = None
    if no_wait:
        why = "with --no-wait nobody is there at the end; use `soakctl logs --answers RUN` then"
    elif os.path.lexists(full):
        why = "it exists already; choose another name"
    elif not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        why = f"you cannot write in {folder}"
    if why is not None:
        raise Failure("usage", f"cannot write the answers to {path}: {why}")


def count_earlier(session: Session, run: str) -> int:
    """Counts the bytes of answers that a run has already, of self-tests before this one."""
    with session.connect() as client:
        try:
            pieces = client.stream("run.logs", {"run": run, "answers": True})
            return sum(len(piece["data"]) for piece in pieces if piece is not None)
        except Failure as failure:
            if failure.code == "refused":
                # There are none yet.
                return 0
            raise


def write_out_file(session: Session, run: str, path: str, *, earlier: int = 0) -> None:
    """Copies every raw answer of a self-test, or leaves no file at all.

    Args:
        session: how to reach soakd.
        run: whose answers they are.
        path: of the new file.
        earlier: so many bytes at the beginning are of self-tests before this one.

    Raises:
        Failure: it cannot be written; what soakd keeps of the answers is not touched.
        Detached: the user pressed Ctrl-C.
    """
    there = f"soakd still has them: soakctl logs --answers {run}"
    what = f"cannot write the answers to {path}"
    try:
        with session.connect() as client, open(os.open(path, _NEW, 0o600), "wb") as file:
            try:
                for piece in client.stream("run.logs", {"run": run, "answers": True}):
                    if piece is not None:
                        file.write(piece["data"][earlier:])
                        earlier = max(0, earlier - len(piece["data"]))
                file.flush()
            except BaseException:
                # A part would be taken for the whole, and would be in the way of the next try.
                os.unlink(path)
                raise
    except OSError as error:
        raise Failure("usage", f"{what}: {error.strerror}", advice=[there]) from error
    except Failure as failure:
        raise Failure(failure.code, f"{what}: {failure.message}", advice=[there]) from failure
    except KeyboardInterrupt:
        raise Detached(f"interrupted; {there}") from None
    session.note(f"every raw answer: {path}")
