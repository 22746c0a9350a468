"""docs/drivers.md tells every member of what a driver is made of."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from soakd.drivers.driver import Api, Driver, Files, NodeConfig, Words

DOC = (Path(__file__).resolve().parents[2] / "docs" / "drivers.md").read_text()
MEMBERS = {
    *(name for name in (*vars(Driver), *vars(Api)) if not name.startswith("_")),
    *(field.name for shape in (Files, Words, NodeConfig) for field in fields(shape)),
}


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_every_member_of_a_driver_is_documented(name: str) -> None:
    """Whoever writes one finds it, with the question that it answers."""
    assert re.search(rf"`{name}\b", DOC)
