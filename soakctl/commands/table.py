"""`soakctl table`: the runs of a group side by side, or one run by its flows.

A verb of its own and no option of `list`: that shows any runs in the same columns, this compares
what belongs together: runs in columns that their plans give, flows by who published and searched.
"""

from __future__ import annotations

import argparse

from soakctl import flows, groups
from soakctl.session import Session
from soakd.wire.messages import parse_run_id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares LABEL or RUN, and `--all`."""
    parser.add_argument(
        "what",
        nargs="?",
        metavar="LABEL|RUN",
        help="the label of a group, or a run, as r7; without it my active or latest run",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="of a group: also earlier runs with the values of a later one; of a run: all flows",
    )


def run(session: Session, options: argparse.Namespace) -> int:
    """Prints one row for each run or flow; 0 whatever the verdicts are."""
    if options.what is None or parse_run_id(options.what) is not None:
        flows.show(session, options.what, with_all=options.all)
        return 0
    with session.connect() as client:
        groups.show(session, groups.find(client, options.what, with_earlier=options.all))
    return 0
