"""soakd: a supervisor daemon for soak tests of peer-to-peer nodes."""

from __future__ import annotations

__version__ = "0.1.0"
