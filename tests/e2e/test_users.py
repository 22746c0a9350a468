"""System mode: soakd is root's, the nodes are the submitter's, and nobody gets at another's run."""

from __future__ import annotations

import json
import os
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.accounts import ALICE, BOB, CAROL, MALLORY, SOAK, TESTERS, SharedBox, why_not
from tests.e2e.host import node_python

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

_PUBLIC_KEYS = {
    "id", "owner", "label", "state", "created_at", "started_at", "ended_at", "reason",
}  # fmt: skip

UNHURRIED = "1"
"""Between rounds of a soak that only has to be there."""
_WAITS = (
    "wait_publish = 0.05\nwait_search = 0.1\nwait_between = 0.05\nread_every = 0\n"
    "miss_recheck_attempts = 0\n"
)


@pytest.fixture(scope="module")
def system_box(request: pytest.FixtureRequest) -> Iterator[SharedBox]:
    """Yield a box with a system soakd that the tests of this file share."""
    # Not below pytest's own folders: those are closed to other users.
    with tempfile.TemporaryDirectory(prefix="soakd-t-", ignore_cleanup_errors=True) as folder:
        box = SharedBox(Path(folder))
        try:
            box.serve(wrapper=box.wrapper)
            yield box
        finally:
            box.close()
        assert box.leftovers() == []


@pytest.fixture
def shared(system_box: SharedBox) -> Iterator[SharedBox]:
    """Yield the box with two new node folders of alice's."""
    box = system_box
    box.renew()
    box.install()
    box.soaks[0].parent.chmod(0o755)
    for folder in box.soaks:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, ALICE.uid, ALICE.uid)
        folder.chmod(0o700)
    said = box.log().stat().st_size
    try:
        yield box
    finally:
        box.settle()
        # Shown by pytest when the test has failed.
        print(box.log().read_bytes()[said:][-4000:].decode())  # noqa: T201
    assert box.leftovers() == []


def test_nodes_and_shim_run_as_their_submitter(shared: SharedBox) -> None:
    """Uid, gid and groups by the account, no way to new privileges, a built environment."""
    run = shared.start_as(ALICE, "50", WAIT_BETWEEN=UNHURRIED)
    pids = [node["pid"] for node in shared.until_rounds(run, 1)["nodes"]]
    for pid in [*pids, shared.row(run)["shim_pid"]]:
        facts = _facts(pid)
        assert facts["Uid"].split() == [str(ALICE.uid)] * 4
        assert facts["Gid"].split() == [str(ALICE.uid)] * 4
        assert set(map(int, facts["Groups"].split())) == {ALICE.uid, SOAK, TESTERS}
        assert (facts["CapEff"], facts["CapPrm"]) == ("0" * 16, "0" * 16)
        assert facts["NoNewPrivs"] == "1"
    environ = Path(f"/proc/{pids[0]}/environ").read_text().split("\0")
    assert {f"USER={ALICE.name}", f"HOME={shared.home(ALICE)}"} <= set(environ)
    assert not [item for item in environ if item.startswith(("A_SRC", "WAIT_", "COVERAGE"))]
    shared.as_user(ALICE, "stop")


def test_the_owner_reads_the_run_folder_and_cannot_write_it(shared: SharedBox) -> None:
    """Records are root's with an ACL for the owner; the node folders are the owner's alone."""
    run = shared.start_as(ALICE, "--rounds", "1")
    shared.as_user(ALICE, "wait", run)
    folder = shared.run_folder(run)
    records = [path for path in folder.rglob("*") if not path.is_relative_to(folder / "nodes")]
    assert len(records) > 12
    for path in records:
        assert path.stat().st_uid == 0
    for name in ("run.json", "plan.json", "shim.ndjson", "logs/rounds.ndjson", "logs/a.out"):
        assert shared.shell(ALICE, f"cat {folder}/{name}")
        assert not shared.shell(ALICE, f"echo forged >>{folder}/{name}")
        assert not shared.shell(BOB, f"cat {folder}/{name}")
    for script in ("touch {}/new", "touch {}/logs/new", "rm {}/run.json", "mv {}/logs {}/gone"):
        assert not shared.shell(ALICE, script.replace("{}", str(folder)))
    assert not shared.shell(ALICE, f"cat {folder}/shim.lock")
    assert not shared.shell(ALICE, f"cat {shared.state}/soakd.db")
    nodes = folder / "nodes"
    assert (nodes.stat().st_uid, nodes.stat().st_mode & 0o777) == (ALICE.uid, 0o700)
    assert {path.stat().st_uid for path in nodes.rglob("*")} == {ALICE.uid}
    assert shared.shell(ALICE, f"cat {nodes}/mule-a/config.toml")
    assert not shared.shell(BOB, f"ls {nodes}")


def test_another_user_sees_only_that_there_is_a_run(shared: SharedBox) -> None:
    """No stop, collect or logs; an admin may; whoever is in no group cannot even connect."""
    run = shared.start_as(ALICE, "50", "--label", "hers", WAIT_BETWEEN=UNHURRIED)
    shared.until_rounds(run, 1)
    watch = shared.spawn_as(BOB, "--json", "watch", run)
    for verb in ("stop", "collect", "logs"):
        assert (
            f"it belongs to {ALICE.name}; ask {ALICE.name} or"
            in shared.as_user(BOB, verb, run, status=77).err
        )
    assert set(shared.as_user(BOB, "--json", "status", run).json()) == _PUBLIC_KEYS
    listed = shared.as_user(BOB, "--json", "list", "--all").json()
    assert listed[0]["label"] == "hers"
    assert {frozenset(item) for item in listed} == {frozenset(_PUBLIC_KEYS)}
    assert shared.as_user(BOB, "--json", "list").json() == []
    shared.as_user(BOB, "status", status=66)
    shared.as_user(BOB, "daemon", "shutdown", status=77)
    assert "permission denied" in shared.as_user(MALLORY, "list", status=77).err
    assert shared.status(run)["state"] == "running"
    assert CAROL.name in shared.as_user(CAROL, "stop", run).out
    assert shared.status(run)["cause"]["text"] == f"stopped by {CAROL.name}"
    events = [json.loads(line) for line in watch.communicate(timeout=20)[0].splitlines()]
    assert events[-1]["kind"] == "end"
    assert {frozenset(event["data"]) for event in events} == {frozenset(_PUBLIC_KEYS)}


@pytest.mark.safety
def test_nodes_of_another_users_run_cannot_be_attached_to(shared: SharedBox) -> None:
    """Whatever token file is named; those of a run of one's own can."""
    run = shared.start_as(ALICE, "1h", WAIT_BETWEEN=UNHURRIED)
    shared.until_rounds(run, 1)
    for user, status in ((BOB, 77), (ALICE, 0)):
        plan = _plan_of(shared, user.uid, run)
        args = ("start", "--plan", plan, "--rounds", "1", "--wait")
        done = shared.as_user(user, *args, status=status)
        assert (f"is leased to {run} of alice-e2e" in done.err) == (user is BOB)
    shared.as_user(ALICE, "stop", run)


def _plan_of(box: SharedBox, uid: int, run: str) -> str:
    """A plan file for the nodes of a run, with token files that the user may read."""
    text = _WAITS
    for name, port in zip("ab", box.ports, strict=True):
        token = box.folder / f"{uid}-{name}.token"
        token.write_bytes((box.node(run, name) / "data" / "api.token").read_bytes())
        os.chown(token, uid, uid)
        token.chmod(0o600)
        text += f'[node.{name}]\nurl = "127.0.0.1:{port}"\ntoken_file = "{token}"\n'
    plan = box.folder / f"{uid}.toml"
    plan.write_text(text)
    return str(plan)


def test_a_bundle_holds_what_its_owner_may_read_and_is_the_owners(shared: SharedBox) -> None:
    """Links out of a node folder are not followed, by whoever packs."""
    run = shared.start_as(ALICE, "50", WAIT_BETWEEN=UNHURRIED)
    shared.until_rounds(run, 1)
    secret = shared.folder / "roots-own"
    secret.write_text("only for root")
    secret.chmod(0o600)
    node = shared.node(run, "a")
    assert shared.shell(ALICE, f"ln -s {secret} {node}/link; mkfifo {node}/pipe; touch {node}/new")
    path = Path(shared.as_user(ALICE, "collect", run).out.strip())
    bundle = shared.home(ALICE) / path
    assert (bundle.stat().st_uid, bundle.stat().st_mode & 0o777) == (ALICE.uid, 0o600)
    with tarfile.open(bundle) as archive:
        names = archive.getnames()
        assert "mule-a/new" in names
        assert not {"mule-a/link", "mule-a/pipe"} & set(names)
        assert all(member.isreg() for member in archive.getmembers())
    assert b"only for root" not in bundle.read_bytes()
    shared.as_user(ALICE, "stop", run)


def test_a_folder_that_the_submitter_cannot_read_is_refused(shared: SharedBox) -> None:
    """By soakctl at once; by the shim, with the submitter's rights, when that changed later."""
    refused = shared.as_user(BOB, "start", "50", status=78, env=shared.plan_env())
    assert "you may not read it" in refused.err
    first = shared.start_as(ALICE, "50", WAIT_BETWEEN=UNHURRIED)
    second = shared.start_as(ALICE, "50")
    os.chown(shared.soaks[0], 0, 0)
    shared.as_user(ALICE, "stop", first)
    final = shared.as_user(ALICE, "--json", "wait", second, status=5).json()
    assert final["result"] == "failed"
    assert "Permission denied" in final["cause"]["text"]
    assert str(shared.soaks[0]) in final["cause"]["text"]


def test_a_run_root_of_another_user_is_refused(shared: SharedBox) -> None:
    """Even one that everybody may write to."""
    root = shared.folder / "bobs"
    root.mkdir()
    os.chown(root, BOB.uid, BOB.uid)
    root.chmod(0o777)
    run = shared.start_as(ALICE, "50", RUN_ROOT=str(root))
    final = shared.as_user(ALICE, "--json", "wait", run, status=5).json()
    assert f"it belongs to uid {BOB.uid}" in final["cause"]["text"]
    assert list(root.iterdir()) == []


def test_a_run_root_of_the_owners_is_used_as_the_owner(shared: SharedBox) -> None:
    """soakd makes nothing there itself, and the links lead to what the owner may read."""
    root = shared.home(ALICE) / "root"
    run = shared.start_as(ALICE, "--rounds", "1", RUN_ROOT=str(root))
    shared.as_user(ALICE, "wait", run)
    assert {path.lstat().st_uid for path in (root, *root.rglob("*"))} == {ALICE.uid}
    assert shared.shell(ALICE, f"grep -q soak-finished {root}/logs/runner.log")


def test_a_user_without_root_has_a_soakd_of_their_own(short_dir: Path) -> None:
    """User mode: the same soak, for its own user only, whom soakctl does not mistake for root."""
    box = SharedBox(short_dir)
    box.python = node_python()
    box.env["PYTHONPATH"] = places = f"{box.library}:{sysconfig.get_path('purelib')}"
    if not box.shell(ALICE, f"PYTHONPATH={places} {box.python} -c 'import soakd.daemon'"):
        pytest.skip("other users cannot use this environment")
    box.install()
    for path in (box.folder, *box.folder.rglob("*")):
        os.chown(path, ALICE.uid, ALICE.uid)
    become = ("setpriv", "--reuid", str(ALICE.uid), "--regid", str(ALICE.uid), "--clear-groups")
    try:
        box.serve(wrapper=(*box.wrapper, *become))
        done = box.as_user(ALICE, "start", "--rounds", "1", "--wait", env=box.plan_env())
        assert "passed" in done.out
        assert box.as_user(ALICE, "--json", "daemon", "info").json()["mode"] == "user"
        assert "permission denied" in box.as_user(BOB, "list", status=77).err
        assert f"uid {ALICE.uid} listens there" in box.ctl("list", status=77).err
    finally:
        box.close()
    assert box.leftovers() == []
    files = [path for path in box.state.rglob("*") if not path.name.startswith("soakd.db")]
    assert {path.lstat().st_uid for path in files} == {ALICE.uid}


def _facts(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
