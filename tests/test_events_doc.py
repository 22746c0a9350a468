"""docs/events.md names every kind of event that the code makes, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from soakd.core.trouble import Kind
from soakd.drivers import rust_mule
from soakd.drivers.rust_mule_words import LOG_TROUBLE

ROOT = Path(__file__).resolve().parents[1]
# Made from what the shim sends, by a name that is no literal there.
FROM_SHIM = {"orphan", "stopping"}
MAKERS = {"event", "_note_event", "_tell", "tell_line", "_tell_some"}


def literal_kinds(path: Path) -> Iterator[str]:
    """First arguments of calls that make an event."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            kind = node.args[0]
            # An event has a kind, a node and data; a log line or a fact has not.
            if node.func.attr in MAKERS and len(node.args) > 2 and isinstance(kind, ast.Constant):
                yield str(kind.value)


def test_every_kind_is_documented_and_every_documented_kind_exists() -> None:
    """A reader of a bundle finds every word of events.ndjson."""
    made = {kind for path in ROOT.glob("soakd/*.py") for kind in literal_kinds(path)}
    made.add(rust_mule.DRIVER.words.began_anew)
    made |= {*get_args(Kind), *(kind for _, kind in LOG_TROUBLE), *FROM_SHIM}
    first_cells = re.findall(
        r"^\| (`[^|]+`) \|", (ROOT / "docs/events.md").read_text(), re.MULTILINE
    )
    documented = {kind for cell in first_cells for kind in re.findall(r"`([a-z_]+)`", cell)}
    assert "round_error" in made
    assert documented == made
