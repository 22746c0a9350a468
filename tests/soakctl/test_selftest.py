"""`soakctl selftest`: the script's options become a plan, the flows a table, the answers a file."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from soakd.core.plan import Plan, parse_plan
from soakd.wire.errors import WireError
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd, Hangup, Notify, Params
from tests.soakctl.samples import finished, rounds, status, watch
from tests.soakctl.test_start import STARTED, folders

__all__ = ["folders"]
Capture = pytest.CaptureFixture[str]
FLOWS = [
    {
        "flow": flow,
        "rounds": rounds(hit=hit, miss=1),
        "hit_rate": {"value": hit / (hit + 1), "n": hit + 1},
    }
    for flow, hit in (("keyword:a>b", 3), ("source:a>b", 1))
]


@pytest.fixture
def ended(soakd: FakeSoakd, folders: dict[str, Path]) -> FakeSoakd:
    """A soakd whose self-test ends at once."""

    def answers(_params: Params, notify: Notify) -> dict[str, Any]:
        notify("run.log", {"seq": 1, "data": b'{"step":"health"}\n'})
        return {"run": "r7", "bytes": 18}

    final = finished("failed", "hit_rate is 0.5", id="r7", scenario="dht_selftest")
    soakd.handlers |= {
        "run.start": STARTED,
        "run.status": final,
        "run.watch": watch(("end", final)),
        "run.flows": {"id": "r7", "flows": FLOWS},
        "run.logs": answers,
    }
    return soakd


def plan_of(soakd: FakeSoakd) -> Plan:
    """What was submitted."""
    return parse_plan(
        next(params["plan"] for method, params in soakd.calls if method == "run.start")
    )


def test_without_options_the_defaults_are_the_scripts(ended: FakeSoakd, soakctl: Soakctl) -> None:
    """Only the file ids are fresh."""
    assert soakctl("selftest") == 1
    plan = plan_of(ended)
    assert (plan.scenario, plan.rounds, plan.duration_s) == ("dht_selftest", 2, None)
    waits = (plan.wait_publish_s, plan.wait_search_s, plan.wait_sources_s, plan.wait_between_s)
    assert waits == (60, 45, 15, 20)
    assert (plan.read_every_s, plan.file_size_bytes, plan.file_type) == (10, 123, None)
    assert plan.warmup == ("live_10m >= 3",)
    assert (plan.warmup_samples, plan.warmup_check_s, plan.warmup_timeout_s) == (3, 30, 900)
    assert (plan.peers_snapshot, plan.routing_snapshot, plan.debug_lookup) == (
        "each",
        "each",
        False,
    )
    assert [(node.query, node.file_id, node.filename) for node in plan.nodes] == [(None,) * 3] * 2


OPTIONS: dict[str, tuple[str, object]] = {
    "--rounds": ("7", 7),
    "--warmup-timeout-secs": ("5", 5.0),
    "--warmup-check-secs": ("2", 2.0),
    "--warmup-stable-samples": ("4", 4),
    "--file-size": ("99", 99),
    "--file-type": ("Doc", "Doc"),
    "--wait-publish-secs": ("1", 1.0),
    "--wait-search-secs": ("2", 2.0),
    "--wait-sources-secs": ("3", 3.0),
    "--poll-interval-secs": ("0.5", 0.5),
    "--pause-secs": ("6", 6.0),
    "--peers-snapshot": ("first", "first"),
    "--routing-snapshot": ("end", "end"),
}
FIELDS = {
    "--rounds": "rounds", "--warmup-timeout-secs": "warmup_timeout_s",
    "--warmup-check-secs": "warmup_check_s", "--warmup-stable-samples": "warmup_samples",
    "--file-size": "file_size_bytes", "--file-type": "file_type",
    "--wait-publish-secs": "wait_publish_s", "--wait-search-secs": "wait_search_s",
    "--wait-sources-secs": "wait_sources_s", "--poll-interval-secs": "read_every_s",
    "--pause-secs": "wait_between_s", "--peers-snapshot": "peers_snapshot",
    "--routing-snapshot": "routing_snapshot",
}  # fmt: skip


@pytest.mark.parametrize("flag", OPTIONS)
def test_an_option_of_the_script_is_a_field_of_the_plan(
    ended: FakeSoakd, soakctl: Soakctl, flag: str
) -> None:
    """Each for itself; `docs/from-scripts.md` has them all."""
    text, value = OPTIONS[flag]
    soakctl("selftest", flag, text)
    assert getattr(plan_of(ended), FIELDS[flag]) == value


def test_words_files_and_names_are_per_node(ended: FakeSoakd, soakctl: Soakctl) -> None:
    """`--query` is for both; an own word wins."""
    ids = "00112233445566778899aabbccddeeff", "112233445566778899AABBCCDDEEFF00"
    soakctl(
        "selftest", "--query", "both", "--query-b", "own", "--a-file-id-hex", ids[0],
        "--b-file-id-hex", ids[1], "--a-filename", "x", "--b-filename", "y", "--debug-lookup",
    )  # fmt: skip
    plan = plan_of(ended)
    assert [(node.query, node.file_id, node.filename) for node in plan.nodes] == [
        ("both", ids[0], "x"),
        ("own", ids[1].lower(), "y"),
    ]
    assert plan.debug_lookup


@pytest.mark.parametrize(("live", "warmup"), [("1", ("live_10m >= 1",)), ("0", ())])
def test_how_many_live_nodes_are_waited_for(
    ended: FakeSoakd, soakctl: Soakctl, live: str, warmup: tuple[str, ...]
) -> None:
    """0 waits for none."""
    soakctl("selftest", "--warmup-live", live)
    assert plan_of(ended).warmup == warmup


def test_a_self_test_may_go_on_for_a_time(ended: FakeSoakd, soakctl: Soakctl) -> None:
    """Then the default of two rounds does not end it."""
    soakctl("selftest", "--for", "2h")
    plan = plan_of(ended)
    assert (plan.rounds, plan.duration_s) == (None, 7200.0)


def test_all_problems_come_at_once(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Before anything is submitted."""
    argv = ["--warmup-live", "x", "--a-file-id-hex", "12", "--pause-secs", "y", "--rounds", "0"]
    argv += ["--query", "a\nb", "--file-size", "z"]
    assert soakctl("selftest", *argv) == 78
    error = capsys.readouterr().err
    assert "--warmup-live: cannot read a condition" in error
    assert "--a-file-id-hex: cannot be other than 32 hex digits, got '12'" in error
    assert "--pause-secs: cannot read a duration" in error
    assert "--rounds: cannot be outside 1" in error
    assert "--query: cannot contain control characters" in error
    assert "--file-size: cannot read a whole number" in error
    assert soakd.calls == []


@pytest.mark.usefixtures("ended")
def test_the_table_of_flows_stands_behind_the_verdict(soakctl: Soakctl, capsys: Capture) -> None:
    """A row for each flow."""
    assert soakctl("selftest") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split()[:6] == ["FLOW", "ROUNDS", "HIT", "LATE", "MISS", "ERROR"]
    assert lines[-2].split()[:5] == ["keyword:a>b", "4", "3", "0", "1"]


@pytest.mark.usefixtures("ended")
def test_programs_get_the_flows_with_the_status(soakctl: Soakctl, capsys: Capture) -> None:
    """One object at the end of what is followed."""
    assert soakctl("--json", "selftest") == 1
    final = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (final["id"], [flow["flow"] for flow in final["flows"]]) == (
        "r7",
        ["keyword:a>b", "source:a>b"],
    )


def gone(_params: Params, _notify: Notify) -> None:
    """soakd goes away as it is asked."""
    raise Hangup


def test_a_verdict_is_not_lost_for_want_of_the_table(
    ended: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """soakd goes away behind the end of the run."""
    ended.handlers["run.flows"] = gone
    assert soakctl("selftest") == 1
    captured = capsys.readouterr()
    assert "r7 finished · failed: hit_rate is 0.5" in captured.out
    assert "later: soakctl table r7" in captured.err
    assert soakctl("--json", "selftest") == 1
    final = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (final["verdict"], final["flows"]) == ("failed", None)


@pytest.mark.usefixtures("ended")
def test_start_with_the_scenario_ends_with_the_same_table(
    soakctl: Soakctl, capsys: Capture
) -> None:
    """`selftest` is `start --scenario dht_selftest`."""
    assert soakctl("start", "--scenario", "dht_selftest", "--wait") == 1
    assert "keyword:a>b" in capsys.readouterr().out


@pytest.mark.usefixtures("ended")
def test_every_raw_answer_goes_into_a_file(
    soakctl: Soakctl, tmp_path: Path, capsys: Capture
) -> None:
    """Of the user's own, that was not there before."""
    soakctl("selftest", "--out-file", "raw.ndjson")
    assert (tmp_path / "raw.ndjson").read_text() == '{"step":"health"}\n'
    assert f"every raw answer: {tmp_path}/raw.ndjson" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--out-file", "there"], "it exists already; choose another name"),
        (["--out-file", "no/such"], "you cannot write in"),
        (["--out-file", ""], "it exists already; choose another name"),
        (["--out-file", "x", "--no-wait"], "use `soakctl logs --answers RUN` then"),
    ],
)
def test_a_file_that_could_not_be_written_is_told_before_anything_starts(
    ended: FakeSoakd, soakctl: Soakctl, capsys: Capture, tmp_path: Path, argv: list[str], why: str
) -> None:
    """Usage; nothing is submitted."""
    (tmp_path / "there").write_text("mine")
    assert soakctl("selftest", *argv) == 2
    assert why in capsys.readouterr().err
    assert ended.calls == []


def test_a_file_that_cannot_be_written_at_the_end_names_where_the_answers_are(
    ended: FakeSoakd, soakctl: Soakctl, capsys: Capture, tmp_path: Path
) -> None:
    """Somebody made it meanwhile: it is not overwritten."""
    start = ended.handlers["run.start"]

    def meanwhile(_params: Params, _notify: Notify) -> Any:
        (tmp_path / "raw").write_text("theirs")
        return start

    ended.handlers["run.start"] = meanwhile
    assert soakctl("selftest", "--out-file", "raw") == 2
    captured = capsys.readouterr()
    assert "soakd still has them: soakctl logs --answers r7" in captured.err
    assert (tmp_path / "raw").read_text() == "theirs"
    # What it was all for is not lost with the file.
    assert "r7 finished · failed: hit_rate is 0.5" in captured.out
    assert "keyword:a>b" in captured.out


@pytest.mark.parametrize(
    ("then", "ending"),
    [
        (Hangup(), (69, "cannot write the answers to")),
        (WireError("internal", "cannot read on"), (5, "cannot read on")),
        (None, (130, "interrupted")),
    ],
)
def test_no_part_of_the_answers_is_left_for_the_whole(
    ended: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    tmp_path: Path,
    then: Exception | None,
    ending: tuple[int, str],
) -> None:
    """soakd goes away in the middle, or Ctrl-C comes: it would be in the way of the next try."""

    def answers(_params: Params, notify: Notify) -> None:
        notify("run.log", {"seq": 1, "data": b"half"})
        if then is not None:
            raise then
        interrupt()

    ended.handlers["run.logs"] = answers
    code, said = ending
    assert soakctl("selftest", "--out-file", "raw") == code
    error = capsys.readouterr().err
    assert said in error
    assert "soakd still has them: soakctl logs --answers r7" in error
    assert not (tmp_path / "raw").exists()


# -- Ctrl-C ------------------------------------------------------------------------------------


def interrupt(*_: object) -> None:
    """Ctrl-C comes, and the answer not before it was seen."""
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "argv"),
    [
        ("run.start", ["selftest"]),
        ("run.start", ["start"]),
        ("run.soak", ["selftest", "--run", "r7"]),
        ("run.soak", ["soak", "r7"]),
    ],
)
def test_ctrl_c_before_the_answer_says_that_it_may_have_begun(
    ended: FakeSoakd, soakctl: Soakctl, capsys: Capture, method: str, argv: list[str]
) -> None:
    """soakd had heard it already."""
    ended.handlers[method] = interrupt
    assert soakctl(*argv) == 130
    assert "may have begun it all the same: soakctl list" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["selftest", "start"])
def test_ctrl_c_before_it_is_followed_detaches_as_well(
    ended: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    """What draws the line is being loaded."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"soakctl.commands.{verb}.display_for", interrupted)
    assert soakctl(verb, *(["--watch"] if verb == "start" else [])) == 130
    assert "detached; the soak goes on: soakctl watch r7" in capsys.readouterr().err
    assert "run.stop" not in dict(ended.calls)


def test_who_detaches_is_told_where_the_answers_will_be(
    ended: FakeSoakd, soakctl: Soakctl, capsys: Capture, tmp_path: Path
) -> None:
    """The file that was asked for will not be made by anybody."""
    ended.handlers["run.status"] = status(id="r7")
    ended.handlers["run.watch"] = interrupt
    assert soakctl("selftest", "--out-file", "raw") == 130
    error = capsys.readouterr().err
    assert "detached; the soak goes on: soakctl watch r7" in error
    assert "nothing is written to the file; at the end: soakctl logs --answers r7" in error
    assert not (tmp_path / "raw").exists()


def test_a_self_test_may_be_left_alone(ended: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Returns at once, for people and for programs."""
    assert soakctl("selftest", "--no-wait") == 0
    assert soakctl("--json", "selftest", "--no-wait") == 0
    text, programs = capsys.readouterr().out.splitlines()
    assert text.startswith("r7 queued")
    assert json.loads(programs)["id"] == "r7"


# -- nodes that run already --------------------------------------------------------------------


def test_nodes_that_somebody_else_runs_are_attached_to(
    ended: FakeSoakd, soakctl: Soakctl, tmp_path: Path
) -> None:
    """By URL and token file; no folder is asked for, no program hashed."""
    (tmp_path / "api.token").write_text("ab" * 32)
    where = ("127.0.0.1:20001", "http://127.0.0.1:20002")
    argv = [
        word
        for name, url in zip("ab", where, strict=True)
        for word in (f"--{name}-base-url", url, f"--{name}-token-file", "api.token")
    ]
    assert soakctl("selftest", *argv, "--query-a", "word") == 1
    plan = plan_of(ended)
    assert plan.is_attached
    assert [(node.port, node.token_file) for node in plan.nodes] == [
        (20001, f"{tmp_path}/api.token"),
        (20002, f"{tmp_path}/api.token"),
    ]
    assert plan.nodes[0].query == "word"


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--a-base-url", "127.0.0.1:1"], "it takes all four of --a-base-url --a-token-file"),
        (
            [
                "--a-base-url",
                "x",
                "--a-token-file",
                "t",
                "--b-base-url",
                "y",
                "--b-token-file",
                "t",
            ],
            "--a-base-url: cannot read a URL",
        ),
        (
            [
                "--a-base-url",
                "x",
                "--a-token-file",
                "t",
                "--b-base-url",
                "y:z",
                "--b-token-file",
                "t",
            ],
            "--b-base-url: cannot read a URL",
        ),
    ],
)
def test_half_of_where_nodes_are_is_a_mistake(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, argv: list[str], why: str
) -> None:
    """Told before anything is asked of soakd."""
    assert soakctl("selftest", *argv) == 2
    assert why in capsys.readouterr().err
    assert soakd.calls == []


def test_what_to_do_about_token_files_is_not_said_of_folders(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, tmp_path: Path
) -> None:
    """All that is wrong with them at once, and how to name them."""
    os.mkfifo(tmp_path / "pipe")
    argv = ["--a-base-url", "127.0.0.1:20001", "--b-base-url", "127.0.0.1:20002"]
    argv += ["--a-token-file", "pipe", "--b-token-file", "none"]
    assert soakctl("selftest", *argv) == 78
    error = capsys.readouterr().err
    assert f"node a: cannot use {tmp_path}/pipe: it is not a regular file" in error
    assert f"node b: cannot use {tmp_path}/none: it is not there" in error
    assert "--a-token-file" in error
    assert "A_SRC" not in error
    assert soakd.calls == []


def test_problems_of_nodes_elsewhere_are_told_under_the_options(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has set A_URL, or it says nothing here."""
    monkeypatch.setenv("B_URL", "nonsense")
    argv = ["--a-base-url", "10.0.0.1:20001", "--b-base-url", "127.0.0.1:80"]
    argv += ["--a-token-file", "x\ny", "--b-token-file", "t"]
    assert soakctl("selftest", *argv) == 78
    error = capsys.readouterr().err
    assert "--a-base-url: cannot be other than a loopback address, got '10.0.0.1'" in error
    assert "--b-base-url: cannot be outside 1024 to 65535, got 80" in error
    assert "--a-token-file: cannot contain control characters" in error
    assert "_URL" not in error
    assert soakd.calls == []


@pytest.mark.usefixtures("kept")
def test_problems_on_kept_nodes_are_told_under_the_options(
    soakctl: Soakctl, capsys: Capture
) -> None:
    """Before anything is asked of soakd."""
    assert soakctl("selftest", "--run", "r7", "--wait-search-secs", "x") == 78
    assert "--wait-search-secs: cannot read a duration" in capsys.readouterr().err


def test_nothing_is_said_of_variables_for_nodes_that_run_already(
    ended: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The way to pass them on that the note names would be refused."""
    monkeypatch.setenv("RUST_LOG", "debug")
    (tmp_path / "t").write_text("ab" * 32)
    argv = ["--a-base-url", "127.0.0.1:20001", "--b-base-url", "127.0.0.1:20002"]
    argv += ["--a-token-file", "t", "--b-token-file", "t"]
    assert soakctl("selftest", *argv) == 1
    assert plan_of(ended).is_attached
    assert "RUST_LOG" not in capsys.readouterr().err
    soakctl("selftest")
    assert "RUST_LOG" in capsys.readouterr().err


SOAK = {"number": 2, "scenario": "dht_selftest", "rounds": rounds(hit=6), "verdict": "passed",
        "why": "all 5 gates hold", "first_round": 7}  # fmt: skip


@pytest.fixture
def kept(ended: FakeSoakd) -> FakeSoakd:
    """A soakd with a run that keeps its nodes, whose next soak has ended when one looks."""
    running = status(id="r7", state="running", kept=True, soaks=[SOAK])
    begun = {"id": "r7", "measurement": 2, "first_round": 7, "rounds_wanted": 6, "notes": []}
    ended.handlers |= {"run.soak": begun, "run.status": running}
    return ended


def test_a_self_test_may_use_nodes_that_a_run_keeps(
    kept: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """Only what is measured is asked for; the exit status is that of the soak."""
    argv = [
        "--run",
        "r7",
        "--rounds",
        "1",
        "--warmup-live",
        "1",
        "--query",
        "w",
        "--gate",
        "rounds >= 6",
    ]
    assert soakctl("selftest", *argv) == 0
    asked = next(params for method, params in kept.calls if method == "run.soak")
    assert asked == {
        "run": "r7",
        "soak": {
            "scenario": "dht_selftest",
            "rounds": 1,
            "warmup": ["live_10m >= 1"],
            "nodes": {"a": {"query": "w"}, "b": {"query": "w"}},
            "gates": ["rounds >= 6"],
        },
    }
    out = capsys.readouterr().out
    assert "soak 2 dht_selftest · 6: 6 hit, 0 miss · passed: all 5 gates hold" in out
    assert "keyword:a>b" in out


def test_a_verdict_on_kept_nodes_is_not_lost_for_want_of_the_table(
    kept: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """The exit status stays that of the soak as well."""
    kept.handlers["run.flows"] = gone
    assert soakctl("selftest", "--run", "r7") == 0
    captured = capsys.readouterr()
    assert "passed: all 5 gates hold" in captured.out
    assert "later: soakctl table r7" in captured.err


def test_answers_of_an_earlier_self_test_are_no_part_of_this_one(
    kept: FakeSoakd, soakctl: Soakctl, tmp_path: Path
) -> None:
    """The run keeps them in one file, in whatever pieces it comes."""
    looked = iter([[b"old\n", b"older\n"], [b"ol", b"d\nolder\nne", b"w\n"]])

    def answers(_params: Params, notify: Notify) -> dict[str, Any]:
        for seq, data in enumerate(next(looked), start=1):
            notify("run.log", {"seq": seq, "data": data})
        return {"run": "r7"}

    kept.handlers["run.logs"] = answers
    assert soakctl("selftest", "--run", "r7", "--out-file", "raw") == 0
    assert (tmp_path / "raw").read_text() == "new\n"


def test_the_first_self_test_of_a_run_has_all_its_answers(
    kept: FakeSoakd, soakctl: Soakctl, tmp_path: Path
) -> None:
    """Before it there is no file with answers, which soakd says."""
    there = kept.handlers["run.logs"]
    handlers = iter([WireError("refused", "it does not exist (yet)")])

    def answers(params: Params, notify: Notify) -> Any:
        for refusal in handlers:
            raise refusal
        return there(params, notify)

    kept.handlers["run.logs"] = answers
    assert soakctl("selftest", "--run", "r7", "--out-file", "raw") == 0
    assert (tmp_path / "raw").read_text() == '{"step":"health"}\n'


@pytest.mark.parametrize(
    ("refusal", "status"), [(WireError("no_such_run", "none"), 66), (Hangup(), 69)]
)
def test_what_keeps_answers_from_being_counted_keeps_it_from_beginning(
    kept: FakeSoakd, soakctl: Soakctl, refusal: Exception, status: int
) -> None:
    """Otherwise the file would have too many of them."""

    def answers(_params: Params, _notify: Notify) -> None:
        raise refusal

    kept.handlers["run.logs"] = answers
    assert soakctl("selftest", "--run", "r7", "--out-file", "raw") == status
    assert "run.soak" not in dict(kept.calls)


def test_it_may_be_left_alone_on_kept_nodes_too(
    kept: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """For people and for programs."""
    assert soakctl("selftest", "--run", "r7", "--no-wait") == 0
    assert soakctl("--json", "selftest", "--run", "r7", "--no-wait") == 0
    assert [method for method, _ in kept.calls] == ["run.soak", "run.soak"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "r7 soak 2 · from round 7 · 6 rounds"
    assert json.loads(lines[1])["measurement"] == 2


def test_what_shapes_a_start_does_not_go_with_kept_nodes(
    kept: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """They run already; unreadable numbers are told as of any plan."""
    assert soakctl("selftest", "--run", "r7", "--label", "x", "--ports", "auto") == 2
    assert "cannot use --run with --label, --ports" in capsys.readouterr().err
    assert soakctl("selftest", "--run", "r7", "--rounds", "x") == 78
    assert "rounds: cannot read a whole number" in capsys.readouterr().err
    assert kept.calls == []
