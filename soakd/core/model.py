"""The words that every part shares: outcomes, verdicts, results, causes.

A cause says why a run ended as it did. Its code also says whom to blame, because a run that
failed through its node is `failed` and one that failed through soakd or its host is
`harness_error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Outcome = Literal["hit", "late", "miss", "error", "skipped"]
Verdict = Literal["passed", "failed", "inconclusive", "aborted", "harness_error"]
Result = Literal["completed", "failed", "stopped", "aborted"]
Role = Literal["publisher", "searcher"]
NodeName: TypeAlias = str

OUTCOMES: Final[tuple[Outcome, ...]] = ("hit", "late", "miss", "error", "skipped")
VERDICTS: Final[tuple[Verdict, ...]] = (
    "passed",
    "failed",
    "inconclusive",
    "aborted",
    "harness_error",
)
RESULTS: Final[tuple[Result, ...]] = ("completed", "failed", "stopped", "aborted")
ROLES: Final[tuple[Role, ...]] = ("publisher", "searcher")

NODE_CAUSES: Final = frozenset(
    {
        "node_exited",
        "node_not_executed",
        "bad_config",
        "too_many_tokens",
        "node_hung",
        "node_garbage",
        "node_panicked",
        "ready_timeout",
        "ready_forbidden",
        # The nodes' own output is what fills a run folder.
        "disk_budget",
        "gate",
    }
)
"""Cause codes that the node answers for; every other code is soakd's or its host's."""

WARMUP_TIMEOUT: Final = "warmup_timeout"
"""Cause code of a run that was to have no cold rounds: nobody is to blame, nothing is known."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a run ended, or why it could not go on.

    Attributes:
        code: Short and constant, for programs.
        text: One sentence for people, no full stop.
        node: The node concerned, if it is one node's.
        at: UTC time, RFC 3339, if known.
    """

    code: str
    text: str
    node: NodeName | None = None
    at: str | None = None

    @property
    def is_nodes(self) -> bool:
        """Whether the program under test is to blame."""
        return self.code in NODE_CAUSES

    def to_dict(self) -> dict[str, str | None]:
        """Return the four keys as they stand on the wire and in the store."""
        return {"code": self.code, "text": self.text, "node": self.node, "at": self.at}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Cause:
        """Read what `to_dict` wrote; absent optional keys count as none.

        Raises:
            KeyError: `code` or `text` is missing.
        """
        node, at = data.get("node"), data.get("at")
        return cls(
            code=str(data["code"]),
            text=str(data["text"]),
            node=None if node is None else str(node),
            at=None if at is None else str(at),
        )
