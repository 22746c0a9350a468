"""The whole way from a bundle to a document; what `soakctl triage` calls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from soakd.bundle.reader import Bundle, Limits
from soakd.triage.shares import ReaderLost, Readers, Share, processes_for, read_members

if TYPE_CHECKING:
    from soakd.triage.shares import Blocks


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
        processes: how many share the work; None: as many as there are processors, for a tarball
            that is worth it.

    Raises:
        NotABundle: the path is neither bundle nor run folder.
    """

    def read_share(share: Share) -> dict[str, Blocks]:
        return read_members(Bundle(path, limits), share)[0]

    if processes is None:
        # A folder may grow under our hands: its blocks would not be the same for all.
        processes = processes_for(Bundle(path).packed_bytes)
    if processes > 1:
        # Without them one reads it all.
        with suppress(ReaderLost), Readers(processes, read_share) as readers:
            return _document(path, gates, limits, readers)
    return _document(path, gates, limits, None)


def _document(
    path: str, gates: Sequence[str], limits: Limits | None, readers: Readers | None
) -> dict[str, Any]:
    # Here and not at the top: the other processes have begun to read, and do not need it.
    from soakd.core.gates import windows_of  # noqa: PLC0415
    from soakd.triage.findings import read  # noqa: PLC0415
    from soakd.triage.judging import gates_for, judge  # noqa: PLC0415
    from soakd.triage.outcomes import outcomes_of  # noqa: PLC0415
    from soakd.triage.report import report  # noqa: PLC0415

    windows_s = windows_of(gates)
    found = read(path, windows_s=windows_s, limits=limits, readers=readers)
    try:
        wanted = windows_of(gates_for(found.documents.get("plan.json"), gates))
        if set(wanted) - set(windows_s):
            # The plan stands behind the rounds, and its gates look at parts of them.
            found.close()
            found = read(path, windows_s=wanted, limits=limits)
        outcomes = outcomes_of(found)
        return report(found, outcomes, judge(found, outcomes, gates))
    finally:
        found.close()
