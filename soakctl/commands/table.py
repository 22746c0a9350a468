"""`soakctl table LABEL`: the runs of a group side by side, with what differs between them.

A verb of its own and no option of `list`: that shows any runs in the same columns, this compares
some in columns that their plans give.
"""

from __future__ import annotations

import argparse

from soakctl import groups
from soakctl.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares LABEL and `--all`."""
    parser.add_argument("label", metavar="LABEL", help="the label of the group")
    parser.add_argument(
        "--all", action="store_true", help="also earlier runs with the values of a later one"
    )


def run(session: Session, options: argparse.Namespace) -> int:
    """Prints one row for each run, oldest first; 0 whatever their verdicts are."""
    with session.connect() as client:
        groups.show(session, groups.find(client, options.label, with_earlier=options.all))
    return 0
