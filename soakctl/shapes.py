"""Names for what MessagePack gives us, for the type checker alone.

What `soakctl status` needs imports it only under `TYPE_CHECKING`: `typing` alone takes 4 ms.
`soakd.wire.messages` says which keys there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Params: TypeAlias = dict[str, Any]
"""Parameters of a request or notification."""

Status: TypeAlias = Mapping[str, Any]
"""A StatusResult or PublicRun; any key may be absent."""

Event: TypeAlias = dict[str, Any]
"""A RunEvent."""
