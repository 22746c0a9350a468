"""Where pip finds packages without a network: wheels made of what is installed here."""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

_NOT_IN_WHEELS = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def write_wheels(folder: Path, project: Path) -> None:
    """Write a wheel of all that a project needs to be built and installed, but not of itself.

    Args:
        folder: gets the wheels.
        project: its pyproject.toml; what it names must be installed here.
    """
    table = tomllib.loads(project.read_text())
    waiting = _wanted([*table["build-system"]["requires"], *table["project"]["dependencies"]])
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            found = distribution(name)
            _write_wheel(folder, found)
            waiting += _wanted(found.requires or ())


def _wanted(lines: Iterable[str]) -> list[str]:
    """Names out of requirements, without those of extras and of other platforms."""
    items = map(Requirement, lines)
    return [item.name for item in items if not item.marker or item.marker.evaluate({"extra": ""})]


def _write_wheel(folder: Path, found: Distribution) -> None:
    tags = re.findall(r"^Tag: (\S+)-(\S+)-(\S+)", found.read_text("WHEEL") or "", re.MULTILINE)
    assert tags, f"{found.name} was not installed from a wheel"
    # A wheel for several things names all of them in each part: py2.py3-none-any.
    tag = "-".join(".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True))
    stem = f"{re.sub(r'[-_.]+', '_', found.name)}-{found.version}"
    record = []
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as wheel:
        for path in found.files or ():
            # Scripts stand outside; they are made of entry_points.txt again.
            if path.parts[0] == ".." or path.suffix == ".pyc" or path.name in _NOT_IN_WHEELS:
                continue
            data = path.read_binary()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(data)}\n")
            wheel.writestr(str(path), data)
        info = next(p.parent for p in found.files or () if p.name == "METADATA")
        record.append(f"{info}/RECORD,,\n")
        wheel.writestr(f"{info}/RECORD", "".join(record))
