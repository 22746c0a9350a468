"""The commands of docs/install.md, as an admin would copy them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "docs" / "install.md"


def blocks() -> dict[str, str]:
    """The one block of shell commands below each heading that has one."""
    found: dict[str, str] = {}
    heading, inside = "", False
    for line in INSTALL.read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("```"):
            inside = line == "```sh"
            assert not (inside and heading in found), f"two blocks below {heading!r}"
        elif inside:
            found[heading] = found.get(heading, "") + line + "\n"
    return found
