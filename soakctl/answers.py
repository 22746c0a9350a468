"""The raw answers of a self-test in a file of the user's: `selftest --out-file`."""

from __future__ import annotations

import os

from soakctl.failures import Failure
from soakctl.session import Session

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def check_out_file(path: str, *, no_wait: bool) -> None:
    """Refuses before anything is started what could not be written at the end.

    Raises:
        Failure: the file is there already, its folder is not, or nobody will wait for the end.
    """
    folder = os.path.dirname(os.path.abspath(path))
    why = None
    if no_wait:
        why = "with --no-wait nobody is there at the end; use `soakctl logs --answers RUN` then"
    elif os.path.lexists(path):
        why = "it exists already; choose another name"
    elif not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        why = f"you cannot write in {folder}"
    if why is not None:
        raise Failure("usage", f"cannot write the answers to {path}: {why}")


def write_out_file(session: Session, run: str, path: str) -> None:
    """Copies every raw answer of a run.

    Raises:
        Failure: it cannot be written; what soakd keeps of the answers is not touched.
    """
    with session.connect() as client:
        try:
            with open(os.open(path, _NEW, 0o600), "wb") as file:
                for piece in client.stream("run.logs", {"run": run, "answers": True}):
                    if piece is not None:
                        file.write(piece["data"])
        except OSError as error:
            advice = [f"soakd still has them: soakctl logs --answers {run}"]
            what = f"cannot write the answers to {path}: {error.strerror}"
            raise Failure("usage", what, advice=advice) from error
    session.note(f"every raw answer: {path}")
