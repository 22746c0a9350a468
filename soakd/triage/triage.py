"""The whole way from a bundle to a document; what `soakctl triage` calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from soakd.bundle.reader import Limits
from soakd.core.gates import windows_of
from soakd.triage.findings import read
from soakd.triage.judging import gates_for, judge
from soakd.triage.outcomes import outcomes_of
from soakd.triage.report import report


def triage(
    path: str,
    gates: Sequence[str] = (),
    *,
    limits: Limits | None = None,
    processes: int | None = None,
) -> dict[str, Any]:
    """Read and judge a bundle or a run folder; return the document of docs/triage.md.

    Args:
        path: a `.tar.gz`, a tarball, or a folder.
        gates: texts of gates; without any those of the plan, else the default ones.
        limits: bounds of what is read.
        processes: how many share the work; None: as many as is good.

    Raises:
        NotABundle: the path is neither bundle nor folder.
    """
    windows_s = windows_of(gates)
    found = read(path, windows_s=windows_s, limits=limits, processes=processes)
    try:
        wanted = windows_of(gates_for(found.documents.get("plan.json"), gates))
        if set(wanted) - set(windows_s):
            # The plan stands behind the rounds, and its gates look at parts of them.
            found.close()
            found = read(path, windows_s=wanted, limits=limits, processes=processes)
        outcomes = outcomes_of(found)
        return report(found, outcomes, judge(found, outcomes, gates))
    finally:
        found.close()
