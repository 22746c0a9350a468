"""`python -m soakd.simnode`: make a folder of a simulated node, or tell a node to misbehave."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

from soakd.simnode import install, order
from soakd.simnode.builder import PROGRAM, default_python
from soakd.simnode.faults import KINDS


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, or 2 for bad usage."""
    parser = argparse.ArgumentParser(prog="python -m soakd.simnode", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("install", help="make a node folder")
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
    verb = verbs.add_parser("order", help="tell a running node to misbehave")
    verb.add_argument("data_dir", metavar="DATA_DIR", type=Path)
    verb.add_argument("faults", metavar="KIND[@SECONDS][:ARGUMENT]", nargs="+")
    verbs.add_parser("faults", help="list what can be ordered")
    given = parser.parse_args(arguments)
    try:
        if given.verb == "install":
            _install(given)
        elif given.verb == "order":
            order(given.data_dir, *given.faults)
        else:
            _list_faults()
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


def _install(given: argparse.Namespace) -> None:
    sim: dict[str, Any] = tomllib.loads("\n".join(given.set))
    install(
        given.folder,
        python=given.python,
        port=given.port,
        session_name=given.session_name,
        sim=sim,
    )
    print(f"{given.folder / PROGRAM}: a SIMULATED node on port {given.port}")


def _list_faults() -> None:
    for name, kind in KINDS.items():
        when = "" if kind.when == "any" and not kind.default_start else "@start"
        when = "" if kind.when == "ready" else when
        print(f"{name}{when}{':' if kind.argument else ''}{kind.argument}\n    {kind.help}")


if __name__ == "__main__":
    sys.exit(main())
