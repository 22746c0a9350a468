"""Node programs that misbehave: the simulated node with a few lines before its own."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

_MAIN = "__main__.py"

IGNORES_SIGTERM = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
LEAVES_A_CHILD = """
import os
if os.fork() == 0:
    os.setsid()
    with open("stray.tmp", "w") as file:
        file.write(str(os.getpid()))
    os.rename("stray.tmp", "stray.pid")
    os.execv("/bin/sleep", ["sleep", "1000"])
"""
"""A child in a session of its own that outlives the node; its pid is in `stray.pid`."""

PANICS = """
import sys
sys.stderr.write("thread 'tokio-runtime-worker' panicked at src/kad.rs:1:1:\\n")
"""
TALKS = """
import os, sys, time
if os.fork() == 0:
    token = keys = ""
    while not (token and keys):
        try:
            token, keys = open("data/api.token").read(), open("data/sam.keys").read()
        except FileNotFoundError:
            time.sleep(0.05)
    sys.stderr.write(f"thread 'main' panicked at {token}\\n")
    os.write(1, f"token is {token}\\n{keys.replace('PRIV=', '')}\\n".encode())
    os._exit(0)
"""
"""Prints its own secrets, as no good program does: on stdout, and in a panic."""


def teach(folder: Path, *lessons: str) -> None:
    """Let the node in a folder do something before it does its work."""
    program = folder / "rust-mule"
    first_line, _, archive = program.read_bytes().partition(b"\n")
    changed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(first_line + b"\n" + archive)) as old,
        zipfile.ZipFile(changed, "w") as new,
    ):
        for item in old.infolist():
            data = old.read(item)
            if item.filename == _MAIN:
                data = "\n".join(lessons).encode() + data
            new.writestr(item, data)
    program.write_bytes(first_line + b"\n" + changed.getvalue())
