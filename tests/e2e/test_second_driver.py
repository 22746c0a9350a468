"""Another program than rust-mule, soaked without a line of soakd that knows it."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import ROOT, Box
from tests.e2e.host import node_python
from tests.e2e.pairs import served

GOSSIP = ROOT / "tests" / "drivers" / "gossip"
NOBODY = "127.0.0.1:1"

PLAN = """\
driver = "gossip"
rounds = 5
wait_publish = 0.1
wait_search = 0.5
wait_between = 0.1
read_every = 0.1
miss_recheck_delay = 0.1

[node.a]
source = "{a}"
url = "127.0.0.1:{port_a}"

[node.b]
source = "{b}"
url = "127.0.0.1:{port_b}"
"""


def install(folder: Path) -> None:
    """A folder with the program and its configuration, used before and not left in peace."""
    (folder / "state").mkdir(parents=True)
    program = folder / "gossipd"
    program.write_text(f"#!{node_python()}\n{(GOSSIP / 'gossipd.py').read_text()}")
    program.chmod(0o755)
    host, port = NOBODY.split(":")
    settings = {"listen": ["127.0.0.1", 1], "peers": [[host, int(port)]], "beat_s": 0.2}
    (folder / "gossip.json").write_text(json.dumps(settings))
    (folder / "state" / "LOCK").touch()
    (folder / "state" / "seal.key").write_text("0f" * 32)


@pytest.fixture(scope="module")
def gossip_soakd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Yield a box whose soakd and soakctl find the driver as an installed package."""
    box = Box(tmp_path_factory.mktemp("gossip"))
    box.env["PYTHONPATH"] = f"{ROOT}:{GOSSIP}"
    with served(box):
        yield box


@pytest.fixture
def gossip_box(gossip_soakd: Box) -> Iterator[Box]:
    """Yield the box with two new nodes, and a plan of them."""
    box = gossip_soakd
    box.renew()
    for folder in box.soaks:
        install(folder)
    a, b = box.soaks
    text = PLAN.format(a=a, b=b, port_a=box.ports[0], port_b=box.ports[1])
    (box.folder / "gossip.toml").write_text(text)
    said = box.log().stat().st_size
    try:
        yield box
    finally:
        box.settle()
        # Shown by pytest when the test has failed.
        print(box.log().read_bytes()[said:][-4000:].decode())  # noqa: T201
    assert box.leftovers() == []


@pytest.mark.e2e
@pytest.mark.slow
def test_another_program_is_soaked_through_its_driver(gossip_box: Box) -> None:
    """Staged, edited, started, played with, stopped and collected; it says that it never missed."""
    box = gossip_box
    run = box.ctl("--json", "start", "--plan", "gossip.toml").json()["id"]
    final = box.wait(run)
    assert (final["verdict"], final["result"]) == ("passed", "completed")
    assert [record["outcome"] for record in box.records(run)] == ["hit"] * 5
    # The publisher is known by its id, though both came from folders with the same seal.
    assert [record["publisher_listed"] for record in box.records(run)] == [True] * 5
    assert not any(record["prestored"] for record in box.records(run))
    assert final["simulation"] is False
    staged = json.loads((box.node(run, "b") / "gossip.json").read_text())
    assert staged["listen"] == ["127.0.0.1", box.ports[1]]
    assert "b: home = '\"state\"'" in final["edits"]
    assert "gossipd leaves" in box.read(run, "logs/a.out")
    assert "mood calm" in box.read(run, "logs/a.out")
    assert [node["exit"]["code"] for node in final["nodes"]] == [0, 0]
    events = box.records(run, "logs/events.ndjson")
    silent = [event for event in events if event["kind"] == "peer_silent"]
    assert silent
    assert silent[0]["data"]["line"] == f"! no answer from {NOBODY}"
    samples = box.read(run, "logs/status_samples.ndjson")
    assert '"state": "up"' in samples
    bundle = box.folder / box.ctl("collect", run).out.strip()
    with tarfile.open(bundle) as archive:
        names = archive.getnames()
    assert any(name.endswith("mule-a/gossip.json") for name in names)
    assert not [name for name in names if name.endswith(("seal.key", "/gossipd"))]


@pytest.mark.e2e
@pytest.mark.slow
def test_its_failure_is_told_in_words_of_its_driver(gossip_box: Box) -> None:
    """And an unusable configuration by soakctl, before anything is submitted."""
    box = gossip_box
    config = box.soaks[0] / "gossip.json"
    config.write_text("[1")
    refused = box.ctl("start", "--plan", "gossip.toml", status=78)
    assert "gossip.json: it is not JSON" in refused.err
    config.write_text(json.dumps({"beat_s": 0.2}))
    # Its lock comes back behind the driver's back.
    program = box.soaks[0] / "gossipd"
    program.write_text(program.read_text().replace("self._lock()", "self._lock(); self._lock()"))
    run = box.ctl("--json", "start", "--plan", "gossip.toml").json()["id"]
    final = box.wait(run, status=1)
    assert final["verdict"] == "failed"
    assert "node a" in final["cause"]["text"]
    assert "another gossipd works in this folder" in final["cause"]["text"]


def test_nothing_outside_its_folder_knows_the_second_program() -> None:
    """Program and driver are an entry point away: no source of soakd or soakctl has its words."""
    words = re.compile(r"gossip|seal\.key|/entries|/queries|peer_silent", re.IGNORECASE)
    sources = [path for name in ("soakd", "soakctl") for path in (ROOT / name).rglob("*.py")]
    knowing = [str(path) for path in sources if words.search(path.read_text())]
    assert len(sources) > 100
    assert knowing == []
    assert {path.name for path in GOSSIP.iterdir() if path.name != "__pycache__"} == {
        "gossipd.py",
        "soak_gossip.py",
        "soak_gossip-1.0.dist-info",
    }
