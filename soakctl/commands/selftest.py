"""`soakctl selftest`: every flow between two nodes, keyword and source, both ways.

What `two_instance_dht_selftest.sh` did: it is `start --scenario dht_selftest` with the script's
options, followed to its end, with a table of the flows.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from soakctl import flows, plan_file, soaks
from soakctl.answers import check_out_file, count_earlier, write_out_file
from soakctl.arguments import seconds
from soakctl.displays import display_for
from soakctl.failures import Detached, Failure
from soakctl.places import place_text
from soakctl.planning import add_plan_flags, environment_request, plan_flags
from soakctl.session import Session
from soakctl.watching import Follower, detachable, submit
from soakd.core.errors import UserError
from soakd.core.plan_env import parse_url

SCENARIO = "dht_selftest"
_EPILOG = """\
The nodes are those of A_SRC and B_SRC, as for `soakctl start`, unless --run or the four options of
base URLs and token files name others, which are neither stopped nor touched. Files are fresh in
each round unless an id is given: what was published once never expires, and round 2 would find
round 1's.
"""
_OF_PLAN = {
    "--rounds": ("rounds", "N", "so many times all flows (2)"),
    "--warmup-timeout-secs": ("warmup_timeout_s", "T", "then the rounds begin cold (900)"),
    "--warmup-check-secs": ("warmup_check_s", "T", "from one sample to the next (30)"),
    "--warmup-stable-samples": ("warmup_samples", "N", "samples in a row (3)"),
    "--file-size": ("file_size_bytes", "BYTES", "size that is said of the files (123)"),
    "--file-type": ("file_type", "TYPE", "type that is said of files under a keyword"),
    "--wait-publish-secs": ("wait_publish_s", "T", "from a publish to the search (60)"),
    "--wait-search-secs": ("wait_search_s", "T", "how long a keyword is polled for (45)"),
    "--wait-sources-secs": ("wait_sources_s", "T", "from a source search to the read (15)"),
    "--poll-interval-secs": ("read_every_s", "T", "from one poll to the next (10)"),
    "--pause-secs": ("wait_between_s", "T", "between flows (20)"),
}
_MODES = {
    "--peers-snapshot": ("peers_snapshot", ("each", "first", "none")),
    "--routing-snapshot": ("routing_snapshot", ("each", "first", "end", "none")),
}
_OPTIONS: dict[str, str] = {
    **{of[0]: flag for flag, of in _OF_PLAN.items()},
    **{of[0]: flag for flag, of in _MODES.items()},
    "warmup[0]": "--warmup-live",
    "duration_s": "--for",
}
"""By path of a problem of the plan the option that it comes from."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the script's options, and the flags of any plan."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--warmup-live", metavar="N", help="live_10m of both nodes before the first round (3)")
    for flag, (field, metavar, text) in _OF_PLAN.items():
        add(flag, dest=field, metavar=metavar, help=text)
    add("--query", metavar="TEXT", help="what both nodes publish as keyword")
    for name in ("a", "b"):
        add(f"--query-{name}", metavar="TEXT", help=f"so for node {name} (mule{name}_test)")
        add(f"--{name}-file-id-hex", metavar="ID", help=f"node {name}'s file (fresh ones)")
        add(f"--{name}-filename", metavar="NAME", help=f"its name (mule-{name}-test.bin)")
        add(f"--{name}-base-url", metavar="URL", help=f"node {name} runs there already")
        add(f"--{name}-token-file", metavar="FILE", help="where that node writes its api.token")
    add("--debug-lookup", action="store_true", help="a lookup on each node before the warm-up")
    for flag, (field, choices) in _MODES.items():
        add(flag, dest=field, choices=choices, help="when it is recorded (each)")
    add("--for", dest="duration", type=seconds, metavar="T", help="for so long instead of rounds")
    add("--run", dest="on_run", metavar="RUN", help="on the nodes of a run that keeps them")
    add("--out-file", metavar="FILE", help="write every raw answer there, a JSON object a line")
    add("--no-wait", action="store_true", help="return at once; the self-test goes on")
    add_plan_flags(parser)


def run(session: Session, options: argparse.Namespace) -> int:
    """Runs the self-test and prints its table; the exit status is the verdict."""
    if options.out_file is not None:
        check_out_file(options.out_file, no_wait=options.no_wait)
    others = _others_nodes(options)
    if options.on_run is not None:
        return _run_on_kept(session, options)
    request = environment_request(session, _flags(options, others))
    started = submit(session, "run.start", request)
    if options.no_wait:
        if session.json:
            session.emit(started)
        else:
            session.say(place_text(started))
        return 0
    run_id = str(started.get("id"))
    with _answers_wanted(options, run_id):
        with detachable(run_id):
            session.note(place_text(started))
            follower = Follower(session, display_for(session))
        final = follower.follow(run_id)
    code = flows.conclude(session, final)
    # Behind the verdict, which must not be lost with a file that cannot be written.
    if options.out_file is not None:
        write_out_file(session, run_id, os.path.abspath(options.out_file))
    return code


@contextmanager
def _answers_wanted(options: argparse.Namespace, run_id: str) -> Iterator[None]:
    """Says, to who detaches, how to come by the answers that no file will get now."""
    try:
        yield
    except Detached as parting:
        if options.out_file is None:
            raise
        later = f"soakctl logs --answers {run_id}"
        raise Detached(f"{parting}\nnothing is written to the file; at the end: {later}") from None


def _run_on_kept(session: Session, options: argparse.Namespace) -> int:
    """Plays it on the nodes of a run that keeps them; what shaped that run is its own."""
    not_here = [
        f"--{name.replace('_', '-')}"
        for name in ("label", "latest", "keep_config", "ports", "node_env", "set")
        if getattr(options, name)
    ]
    if not_here:
        what = f"cannot use --run with {', '.join(not_here)}: the nodes run already"
        raise Failure("usage", what)
    asked = {key: value for key, value in measured(options).items() if value is not None}
    if options.gate:
        asked["gates"] = options.gate
    soak = _readable(asked)
    earlier = 0 if options.out_file is None else count_earlier(session, options.on_run)
    begun = submit(session, "run.soak", {"run": options.on_run, "soak": soak})
    if options.no_wait:
        if session.json:
            session.emit(begun)
        else:
            session.say(soaks.begun_text(begun))
        return 0
    run_id = str(begun["id"])
    session.note(soaks.begun_text(begun))
    with _answers_wanted(options, run_id):
        status, ended = soaks.follow(session, begun, live=True)
    code = soaks.conclude(session, status, ended)
    if not session.json:
        flows.show_behind(session, run_id)
    if options.out_file is not None:
        write_out_file(session, run_id, os.path.abspath(options.out_file), earlier=earlier)
    return code


def _readable(asked: dict[str, object]) -> dict[str, object]:
    """Values of fields as they are, where they were typed as text."""
    from soakd.core.plan_env import read_flags

    nested = {key: asked.pop(key) for key in ("nodes", "warmup", "gates") if key in asked}
    try:
        return read_flags(asked | {"names": _OPTIONS}) | nested
    except UserError as error:
        raise plan_file.invalid_plan(error, "soak") from error


def measured(options: argparse.Namespace) -> dict[str, object]:
    """Gives what is measured, by field of the plan; None is not given."""
    fields = [*(of[0] for of in _OF_PLAN.values()), *(of[0] for of in _MODES.values())]
    given: dict[str, object] = {field: getattr(options, field) for field in fields}
    given |= {"scenario": SCENARIO, "duration_s": options.duration}
    given["debug_lookup"] = options.debug_lookup or None
    if options.warmup_live is not None:
        given["warmup"] = (
            [] if options.warmup_live == "0" else [f"live_10m >= {options.warmup_live}"]
        )
    given["nodes"] = {name: _published(options, name) for name in ("a", "b")}
    return given


def _typed(options: argparse.Namespace, *, are_elsewhere: bool) -> dict[str, str]:
    """Gives, by path of a problem of the plan, the option that was typed."""
    typed = dict(_OPTIONS)
    for index, name in enumerate(("a", "b")):
        has_own = getattr(options, f"query_{name}") is not None
        typed[f"nodes[{index}].query"] = f"--query-{name}" if has_own else "--query"
        typed[f"nodes[{index}].file_id"] = f"--{name}-file-id-hex"
        typed[f"nodes[{index}].filename"] = f"--{name}-filename"
        if are_elsewhere:
            typed[f"nodes[{index}].host"] = f"--{name}-base-url"
            typed[f"nodes[{index}].port"] = f"--{name}-base-url"
            typed[f"nodes[{index}].token_file"] = f"--{name}-token-file"
    return typed


def _published(options: argparse.Namespace, name: str) -> dict[str, str]:
    own = {
        "query": getattr(options, f"query_{name}") or options.query,
        "file_id": getattr(options, f"{name}_file_id_hex"),
        "filename": getattr(options, f"{name}_filename"),
    }
    return {key: value for key, value in own.items() if value is not None}


def _others_nodes(options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Gives where the nodes are that somebody else runs, by node's name; empty: soakd's own.

    Raises:
        Failure: only a part of it is given, or a URL is none.
    """
    parts = [f"{name}_{part}" for name in ("a", "b") for part in ("base_url", "token_file")]
    given = [part for part in parts if getattr(options, part) is not None]
    if not given:
        return {}
    if len(given) < len(parts) or options.on_run is not None:
        flags = " ".join(f"--{part.replace('_', '-')}" for part in parts)
        what = "cannot attach to nodes that somebody else runs: it takes all four of"
        raise Failure("usage", f"{what} {flags}, and no --run")
    problems = list(_problems_of_urls(options))
    if problems:
        what = "cannot attach to nodes that somebody else runs: that is no place of one"
        raise Failure("usage", what, problems=problems)
    return {name: _other_node(options, name) for name in ("a", "b")}


def _problems_of_urls(options: argparse.Namespace) -> Iterator[str]:
    for name in ("a", "b"):
        try:
            parse_url(getattr(options, f"{name}_base_url"))
        except ValueError as error:
            yield f"--{name}-base-url: {error}"


def _other_node(options: argparse.Namespace, name: str) -> dict[str, object]:
    host, port = parse_url(getattr(options, f"{name}_base_url"))
    token_file = os.path.abspath(getattr(options, f"{name}_token_file"))
    return {"host": host, "port": port, "token_file": token_file, "source": None}


def _flags(options: argparse.Namespace, others: dict[str, dict[str, object]]) -> dict[str, object]:
    flags = plan_flags(options) | measured(options)
    published = flags["nodes"]
    assert isinstance(published, dict)
    flags["nodes"] = {name: {**own, **others.get(name, {})} for name, own in published.items()}
    flags["names"] = _typed(options, are_elsewhere=bool(others))
    return flags
