"""`python -m soakd.simnode install DIR --port N`: make a folder of a simulated node."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

from soakd.simnode import install
from soakd.simnode.builder import PROGRAM, default_python


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, or 2 for bad usage."""
    parser = argparse.ArgumentParser(prog="python -m soakd.simnode", description=__doc__)
    verb = parser.add_subparsers(dest="verb", required=True).add_parser("install")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.add_argument("--port", type=int, required=True, help="API port")
    verb.add_argument("--session-name", default="rust-mule", metavar="NAME")
    verb.add_argument("--python", default=default_python(), metavar="PATH")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of [sim], its value in TOML, such as hit_rate=0.9 (repeatable)",
    )
    given = parser.parse_args(arguments)
    try:
        sim: dict[str, Any] = tomllib.loads("\n".join(given.set))
        install(
            given.folder,
            python=given.python,
            port=given.port,
            session_name=given.session_name,
            sim=sim,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{given.folder / PROGRAM}: a SIMULATED node on port {given.port}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
