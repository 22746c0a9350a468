"""Nodes that somebody else runs: measured beside a soak, left exactly as they were."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.accounts import MALLORY, why_not
from tests.e2e.box import Box
from tests.e2e.host import alive, node_python
from tests.e2e.waiting import wait_for
from tests.ports import is_free

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_AS_ROOT = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
_WAITS = (
    "wait_publish = 0.05\nwait_search = 0.1\nwait_between = 0.05\nread_every = 0\n"
    "miss_recheck_attempts = 0\n"
)
UNHURRIED = "1"
"""Between rounds of a soak that only has the slot."""
_IMPOSTOR = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listens", flush=True)
while True:
    connection, _ = listener.accept()
    connection.settimeout(1)
    try:
        print("got", connection.recv(65536), flush=True)
    except OSError:
        pass
    connection.close()
"""


class Theirs:
    """Two simulated nodes as the test's own processes, which no soakd has started."""

    def __init__(self, box: Box) -> None:
        """Takes the box's folders and ports; the box gets others for its own nodes."""
        self.folders, self.ports = box.soaks, box.ports
        self.processes: list[subprocess.Popen[bytes]] = []
        self.plan = box.folder / "theirs.toml"
        tables = [
            f'[node.{name}]\nurl = "127.0.0.1:{port}"\ntoken_file = "{self.token_file(folder)}"\n'
            for name, folder, port in zip("ab", self.folders, self.ports, strict=True)
        ]
        self.plan.write_text(_WAITS + "".join(tables))
        box.renew()
        box.install(outcomes=["hit"])

    @staticmethod
    def token_file(folder: Path) -> Path:
        """Where a node writes its token."""
        return folder / "data" / "api.token"

    def run(self, index: int, **popen: Any) -> subprocess.Popen[bytes]:
        """Start one of them by hand, and return once it listens."""
        folder, port = self.folders[index], self.ports[index]
        with (folder.parent / f"{folder.name}.out").open("ab") as out:
            process = subprocess.Popen(
                ["./rust-mule"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={"PATH": "/usr/bin:/bin"},
                **popen,
            )
        self.processes.append(process)
        wait_for(lambda: self.token_file(folder).exists() and not is_free(port), "a node listens")
        return process

    def end(self) -> None:
        """End those that live."""
        for process in self.processes:
            process.kill()
            process.wait()

    def traces(self) -> dict[str, str]:
        """Every file of the folders but what a node itself writes as it goes on."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in self.folders
            for path in folder.rglob("*")
            if path.is_file() and "logs" not in path.parts and path.suffix != ".dat"
        }


@contextmanager
def theirs_of(box: Box) -> Iterator[Theirs]:
    """Both nodes run, until the block is left."""
    theirs = Theirs(box)
    try:
        for index in range(2):
            theirs.run(index)
        yield theirs
    finally:
        theirs.end()


def attach(box: Box, theirs: Theirs, *args: str) -> str:
    """Start a run on them and return its id."""
    done = box.ctl("--json", "start", "--plan", str(theirs.plan), *args)
    run: str = done.json()["id"]
    return run


def events(box: Box, run: str, kind: str) -> list[dict[str, Any]]:
    """The events of a kind."""
    return [event for event in box.records(run, "logs/events.ndjson") if event["kind"] == kind]


@pytest.mark.safety
def test_their_nodes_are_measured_beside_a_soak_and_left_alone(box: Box) -> None:
    """No slot is needed; afterwards they live, with not a byte of their folders changed."""
    with theirs_of(box) as theirs:
        soak = box.start("1h", WAIT_BETWEEN=UNHURRIED)
        box.until_rounds(soak, 1)
        before = theirs.traces()
        run = attach(box, theirs, "--rounds", "3")
        final = box.wait(run)
        assert (final["verdict"], final["rounds"]["total"]) == ("passed", 3)
        assert final["rounds"]["hit"] == 3
        assert [(node["state"], node["pid"]) for node in final["nodes"]] == [("attached", None)] * 2
        assert box.status(soak)["state"] == "running"
        assert [entry["id"] for entry in box.call("queue.list")["runs"]] == [soak]
        assert theirs.traces() == before
        assert [process.poll() for process in theirs.processes] == [None, None]
        _check_records(box, theirs, run)
        box.ctl("stop", soak)


def _check_records(box: Box, theirs: Theirs, run: str) -> None:
    a, b = theirs.ports
    log = box.read(run, "logs/runner.log")
    assert f"attached A url=http://127.0.0.1:{a} B url=http://127.0.0.1:{b}\n" in log
    assert "node stop requested" not in log
    uids = {event["node"]: event["data"]["uid"] for event in events(box, run, "attached")}
    assert uids == dict.fromkeys("ab", os.geteuid())
    assert not (box.run_folder(run) / "logs/resources.ndjson").exists()
    assert list((box.run_folder(run) / "nodes").iterdir()) == []
    tokens = [theirs.token_file(folder).read_text().strip() for folder in theirs.folders]
    bundle = box.folder / "theirs.tar.gz"
    box.ctl("collect", run, "-o", str(bundle))
    with tarfile.open(bundle) as packed:
        names = packed.getnames()
        content = b"".join(
            file.read() for item in packed if (file := packed.extractfile(item)) is not None
        )
    assert not [name for name in names if name.startswith("mule-") or name.endswith(".out.pid")]
    assert {"plan.json", "run.json", "logs/rounds.ndjson"} <= set(names)
    assert not [token for token in tokens if token.encode() in content]
    triage = box.ctl("--json", "triage", str(bundle)).json()
    assert triage["verdict"] == "passed"
    gates = [gate["gate"] for gate in json.loads(box.read(run, "run.json"))["gates"]]
    assert gates == ["rounds >= 1", "errors <= 5%", "measured >= 90%"]


def test_an_attached_run_is_taken_over_like_any_other(box: Box) -> None:
    """soakd is killed; its successor goes on with the shim, and a stop stops no node."""
    with theirs_of(box) as theirs:
        run = attach(box, theirs, "1h", "--set", "wait_search=0.5")
        box.until_rounds(run, 1)
        shim = box.row(run)["shim_pid"]
        box.leave(signal.SIGKILL)
        box.serve()
        after = box.status(run)
        assert (after["state"], after["link"]) == ("running", "connected")
        assert len(after["gaps"]) == 1
        box.until_rounds(run, after["rounds"]["total"] + 2)
        assert box.row(run)["shim_pid"] == shim
        assert len(events(box, run, "attached")) == 2
        box.ctl("stop", run)
        assert box.wait(run, status=4)["result"] == "stopped"
        assert not alive(shim)
        assert events(box, run, "rung") == []
        assert [process.poll() for process in theirs.processes] == [None, None]


def test_a_node_that_goes_away_and_comes_back_is_trouble_and_no_end(box: Box) -> None:
    """Rounds are errors meanwhile; a new token is read when the old one is refused."""
    with theirs_of(box) as theirs:
        run = attach(box, theirs, "1h")
        box.until_rounds(run, 1)
        theirs.processes[1].kill()
        theirs.processes[1].wait()
        box.until(run, lambda s: s["rounds"]["error"] >= 1, "an error")
        box.until(run, lambda s: events(box, run, "api_dead"), "api_dead")
        theirs.token_file(theirs.folders[1]).unlink()
        theirs.run(1)
        hits = box.status(run)["rounds"]["hit"]
        status = box.until(run, lambda s: s["rounds"]["hit"] > hits, "a hit after that")
        assert status["nodes"][1]["state"] == "attached"
        assert events(box, run, "trouble_over")
        assert events(box, run, "node_exited") == []
        box.ctl("stop", run)
        tokens = theirs.token_file(theirs.folders[1]).read_text().strip()
        assert tokens not in box.ctl("logs", run).out


@_AS_ROOT
@pytest.mark.safety
def test_another_users_listener_in_a_nodes_place_gets_no_token(box: Box) -> None:
    """Not a byte is sent to it, an event names both users, and the right one is spoken to again."""
    with theirs_of(box) as theirs:
        run = attach(box, theirs, "1h")
        box.until_rounds(run, 1)
        theirs.processes[0].kill()
        theirs.processes[0].wait()
        heard = box.folder / "heard"
        with impostor(theirs.ports[0], heard):
            changed = wait_for(lambda: events(box, run, "listener_changed"), "listener_changed")
            errors = box.status(run)["rounds"]["error"]
            box.until(run, lambda s: s["rounds"]["error"] > errors + 1, "errors")
        assert set(heard.read_text().splitlines()) == {"listens", "got b''"}
        theirs.run(0)
        hits = box.status(run)["rounds"]["hit"]
        box.until(run, lambda s: s["rounds"]["hit"] > hits, "a hit after that")
        box.ctl("stop", run)
    (event,) = changed
    assert (event["node"], event["data"]["uid_before"]) == ("a", 0)
    assert event["data"]["uid"] == MALLORY.uid
    assert f"of uid {MALLORY.uid}" in event["data"]["text"]


@contextmanager
def impostor(port: int, heard: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody else's listener, which writes down what it is sent."""
    with heard.open("wb") as out:
        command = (node_python(), "-c", _IMPOSTOR, str(port))
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd="/", **MALLORY.popen())
    try:
        wait_for(lambda: "listens" in heard.read_text(), "the impostor listens")
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_self_test_on_nodes_that_somebody_else_runs(box: Box) -> None:
    """By the script's four options, beside a run that holds the only slot."""
    with theirs_of(box) as theirs:
        busy = box.start("1h", WAIT_BETWEEN=UNHURRIED)
        where = [
            word
            for name, folder, port in zip("ab", theirs.folders, theirs.ports, strict=True)
            for word in (
                f"--{name}-base-url", f"http://127.0.0.1:{port}",
                f"--{name}-token-file", str(theirs.token_file(folder)),
            )
        ]  # fmt: skip
        done = box.ctl(
            "selftest", *where, "--rounds", "1", "--warmup-live", "1",
            "--warmup-stable-samples", "1", "--warmup-check-secs", "0.1",
            "--wait-publish-secs", "0.1", "--wait-search-secs", "1", "--wait-sources-secs", "0.3",
            "--poll-interval-secs", "0.1", "--pause-secs", "0.05",
        )  # fmt: skip
        rows = [line.split()[:3] for line in done.out.splitlines()[-6:]]
        assert [row[0] for row in rows][:3] == ["keyword:a>a", "keyword:a>b", "source:a>b"]
        assert {tuple(row[1:]) for row in rows} == {("1", "1")}
        assert all(process.poll() is None for process in theirs.processes)
        assert box.status(busy)["state"] != "finished"
