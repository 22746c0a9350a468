"""Builds node folders: the program as one executable zip, and its configuration.

The archive holds this package and nothing else, so that a copy of the folder runs anywhere, for
any user who can execute the interpreter named in its first line.
"""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from soakd.simnode.config import FILE, dumped
from soakd.simnode.knobs import BadValueError, Sim, read_sim

PROGRAM = "rust-mule"
_SHEBANG_LIMIT = 255
_EPOCH = (2026, 1, 1, 0, 0, 0)
_MAIN = "from soakd.simnode.app import main\nraise SystemExit(main())\n"
_BUILDER_ONLY = ("builder.py", "__main__.py")

# Run by the node's own interpreter: code compiled for another one would be compiled at each start.
# Pairs of name and path in; out, for each, the length (8 bytes) and the content of its .pyc.
_COMPILE = """
import importlib._bootstrap_external as b, _imp, sys
for name, path in zip(sys.argv[1::2], sys.argv[2::2]):
    with open(path, "rb") as file:
        source = file.read()
    digest = _imp.source_hash(b._RAW_MAGIC_NUMBER, source)
    # False: unchecked, zipimport shall not compare times.
    code = b._code_to_hash_pyc(compile(source, name, "exec", dont_inherit=True), digest, False)
    sys.stdout.buffer.write(len(code).to_bytes(8, "little") + code)
"""


def write_node_folder(
    folder: Path, *, python: str, port: int, session_name: str, sim: dict[str, Any]
) -> None:
    """Write program and configuration; see `soakd.simnode.install`.

    Raises:
        ValueError: an unknown or wrong `[sim]` key, or an unusable `python`.
        OSError: the folder cannot be written.
    """
    unknown = sorted(set(sim) - set(Sim._fields))
    if unknown:
        raise ValueError(f"cannot install a simulated node: unknown [sim] key {unknown[0]!r}")
    try:
        read_sim(sim)
    except BadValueError as error:
        raise ValueError(f"cannot install a simulated node: {error}") from error
    if not 1 <= port <= 65535:
        raise ValueError(f"cannot install a simulated node: port {port} is not in 1..65535")
    program = archive(python)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PROGRAM
    # A new file: a running node keeps reading the old one.
    temporary = folder / f".{PROGRAM}.new"
    temporary.write_bytes(program)
    temporary.chmod(0o755)
    temporary.replace(path)
    tables: dict[str, dict[str, Any]] = {
        "sam": {"session_name": session_name},
        "kad": {"service_status_every_secs": 5},
        "general": {"auto_open_ui": False},
        "api": {"port": port},
        "sim": sim,
    }
    head = "# A SIMULATED node; the keys of [sim] are explained in soakd/simnode/__init__.py\n\n"
    (folder / FILE).write_text(head + dumped(tables), encoding="utf-8")


def default_python() -> str:
    """Return the interpreter to run nodes with: the one behind this environment.

    The base interpreter starts faster than an environment's, and nodes need the library only.
    """
    base = getattr(sys, "_base_executable", None) or sys.executable
    return str(base)


@functools.cache
def archive(python: str) -> bytes:
    """Return the program: a first line that names `python`, and a zip of this package.

    Raises:
        ValueError: `python` cannot stand in a first line or does not run.
    """
    line = f"#!{python} -IS\n"
    if not os.path.isabs(python) or len(line) > _SHEBANG_LIMIT or python.split() != [python]:
        raise ValueError(
            f"cannot install a simulated node: {python!r} must be an absolute path without blanks "
            f"of at most {_SHEBANG_LIMIT - 6} characters; name another interpreter"
        )
    buffer = io.BytesIO()
    buffer.write(line.encode())
    package = {
        f"soakd/simnode/{path.name}": path
        for path in sorted(Path(__file__).parent.glob("*.py"))
        if path.name not in _BUILDER_ONLY
    }
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        _add(file, "__main__.py", _MAIN.encode())
        _add(file, "soakd/__init__.py", b"")
        for (name, path), code in zip(package.items(), _compiled(python, package), strict=True):
            _add(file, name, path.read_bytes())
            _add(file, f"{name}c", code)
    return buffer.getvalue()


def _add(file: zipfile.ZipFile, name: str, data: bytes) -> None:
    file.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)


def _compiled(python: str, package: dict[str, Path]) -> list[bytes]:
    arguments = [str(item) for pair in package.items() for item in pair]
    command = [python, "-IS", "-c", _COMPILE, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(
            f"cannot install a simulated node: {python} does not run: {error}"
        ) from error
    out, codes = io.BytesIO(done.stdout), []
    while length := int.from_bytes(out.read(8), "little"):
        codes.append(out.read(length))
    return codes
