"""What a shim runs on: an interpreter that its user can execute, and its code as one zip."""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from soakd.core.errors import HostError
from soakd.shim import protocol

PROBE_TIMEOUT_S = 10.0
MIN_PYTHON = (3, 11)

_PROBE = (
    "import sys,os,json,socket,selectors,ctypes,fcntl,resource,binascii,heapq,signal;"
    "print(*sys.version_info[:2],os.path.dirname(os.__file__))"
)
# Sources on stdin, byte code on stdout, both by name. Flag 1 of a .pyc: hash-based, not checked.
_COMPILE = """
import base64, importlib.util, json, marshal, sys
head = importlib.util.MAGIC_NUMBER + b"\\1\\0\\0\\0" + bytes(8)
made = {
    name: head + marshal.dumps(compile(source, name, "exec", dont_inherit=True))
    for name, source in json.load(sys.stdin).items()
}
json.dump({name: base64.b64encode(code).decode() for name, code in made.items()}, sys.stdout)
"""
_ENTRY = "import sys\nfrom soakd.shim.main import main\nsys.exit(main(sys.argv))\n"


@functools.cache
def shim_zip(python: str) -> bytes:
    """The shim's code as one zip, compiled by the interpreter that will run it.

    Made once per process, so that an upgrade of the installation cannot change it half-way;
    `find_shim_python` makes it. Blocks for some 50 ms the first time.
    """
    if protocol.__file__ is None:
        raise AssertionError("soakd.shim has no folder")
    return build_zip(Path(protocol.__file__).parent, python)


def build_zip(folder: Path, python: str | None) -> bytes:
    """A runnable zip of the shim's sources in `folder`.

    Args:
        folder: holds the `*.py` of one version of the shim.
        python: adds its byte code, since compiling costs most of a shim's start. A Python of
            another magic, or any without it, falls back to the sources.

    Raises:
        HostError: `python` cannot compile them.
    """
    sources = {"__main__.py": _ENTRY, "soakd/__init__.py": ""}
    for path in sorted(folder.glob("*.py")):
        sources[f"soakd/shim/{path.name}"] = path.read_text("utf-8")
    code = {} if python is None else _compile(sources, python)
    buffer = io.BytesIO()
    # Stored, not deflated: the shim then needs no zlib.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, source in sources.items():
            archive.writestr(zipfile.ZipInfo(name), source)
        for name, compiled in code.items():
            archive.writestr(zipfile.ZipInfo(f"{name}c"), compiled)
    return buffer.getvalue()


def _compile(sources: dict[str, str], python: str) -> dict[str, bytes]:
    try:
        text = _run(python, _COMPILE, json.dumps(sources))
        return {name: base64.b64decode(code) for name, code in json.loads(text).items()}
    except (OSError, ValueError, subprocess.SubprocessError) as exc:
        raise HostError("internal", f"cannot compile the shim with {python}: {exc}") from exc


def _run(python: str, code: str, text: str = "") -> str:
    return subprocess.run(
        [python, "-I", "-S", "-X", "utf8", "-c", code],
        input=text,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        timeout=PROBE_TIMEOUT_S,
        env={},
        cwd="/",
    ).stdout


def find_shim_python(configured: str | None = None, *, user_mode: bool) -> str:
    """The interpreter for shims and helpers: the first that is new enough and reachable by all.

    Blocks for some 50 ms; called once at the start of soakd, whose shim code it makes as well.

    Args:
        configured: `shim_python` of soakd.toml; then no other is considered.
        user_mode: only this process's own user must be able to execute it.

    Raises:
        HostError: none will do; the message says why for each.
    """
    base = getattr(sys, "_base_executable", None) or sys.executable
    candidates = [configured] if configured else ["/usr/bin/python3", base]
    problems = []
    for candidate in candidates:
        problem = _unfit(candidate, user_mode=user_mode)
        if problem is None:
            shim_zip(candidate)
            return candidate
        problems.append(f"{candidate}: {problem}")
    raise HostError(
        "refused",
        f"cannot find a Python for the shim: {'; '.join(problems)}; "
        "install Python >= 3.11 for all users or set shim_python in soakd.toml",
    )


def _unfit(python: str, *, user_mode: bool) -> str | None:
    path = Path(python)
    if not path.is_absolute() or not os.access(path, os.X_OK):
        return "not an executable file with an absolute path"
    try:
        major, minor, library = _run(python, _PROBE).strip().split(" ", 2)
        version = int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return "does not run, or lacks a module of the standard library"
    if version < MIN_PYTHON:
        return f"is Python {major}.{minor}, at least 3.11 is wanted"
    for needed in () if user_mode else (path, path.resolve(), Path(library)):
        closed = next((p for p in (needed, *needed.parents) if not p.stat().st_mode & 0o001), None)
        if closed is not None:
            return f"other users cannot pass {closed}"
    return None
