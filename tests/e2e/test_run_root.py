"""RUN_ROOT: a folder of the user's own for the node folders (design §6)."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import Box
from tests.e2e.pairs import wide_box

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def shared_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Yield a box whose soakd has slots for two runs."""
    with wide_box(tmp_path_factory.mktemp("roots")) as box:
        yield box


def test_a_run_root_is_made_linked_kept_from_others_and_used_again(box: Box) -> None:
    """The node folders are there, with the links that the scripts' users look for.

    A second run is refused while the first one lives, and uses it afterwards; a bundle of the first
    has no nodes then.
    """
    root = box.folder / "run root"
    first = box.start("50", RUN_ROOT=str(root))
    pid = box.until_rounds(first, 1)["nodes"][0]["pid"]
    assert Path(f"/proc/{pid}/cwd").resolve() == root / "mule-a"
    assert (root / "logs").readlink() == box.run_folder(first) / "logs"
    assert (root / "runner.state").read_text() == "running\n"
    assert "timer remaining_secs=" in (root / "logs" / "runner.log").read_text()
    refused = box.start("50", RUN_ROOT=str(root), **box.other_urls())
    text = box.wait(refused, status=5)["cause"]["text"]
    assert "a live run uses it" in text
    assert first in text
    assert box.status(first)["state"] == "running"
    box.ctl("stop", first)
    assert (root / "runner.state").read_text() == "stopped\n"
    assert not (box.run_folder(first) / "nodes").exists()
    (root / "mule-a" / "left-by-first").write_text("")
    assert "mule-a/left-by-first" in _members(box, first)[0]
    # Relative, as in the scripts: to where the user stands.
    second = box.start("--rounds", "1", RUN_ROOT=str(root.relative_to(box.folder)))
    assert box.wait(second)["verdict"] == "passed"
    assert not (root / "mule-a" / "left-by-first").exists()
    assert (root / "logs").readlink() == box.run_folder(second) / "logs"
    names, manifest = _members(box, first)
    assert "logs/rounds.tsv" in names
    assert not [name for name in names if name.startswith("mule-")]
    assert "mule-a" in str(manifest["left_out"])
    assert "mule-a/config.toml" in _members(box, second)[0]


def test_a_foreign_run_root_is_refused_with_the_remedy_and_left_alone(box: Box) -> None:
    """Such as one of the scripts: it is never emptied."""
    root = box.folder / "scripts' root"
    root.mkdir()
    (root / "runner.pid").write_text("4711\n")
    run = box.start("50", RUN_ROOT=str(root))
    final = box.wait(run, status=5)
    text = final["cause"]["text"]
    assert f"cannot use RUN_ROOT {root}: it holds 'runner.pid'" in text
    assert "choose an empty or new folder" in text
    assert [path.name for path in root.iterdir()] == ["runner.pid"]


def _members(box: Box, run: str) -> tuple[list[str], dict[str, object]]:
    path = box.folder / f"{run}.tar.gz"
    path.unlink(missing_ok=True)
    box.ctl("collect", run, "-o", str(path))
    with tarfile.open(path) as archive:
        manifest = archive.extractfile("MANIFEST.json")
        assert manifest is not None
        return archive.getnames(), json.load(manifest)
