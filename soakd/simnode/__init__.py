"""SIMULATION: a stand-in for the node program, for the demo, the tests and the benchmarks.

It is staged and executed as `./rust-mule` from a node folder and behaves, as far as a harness can
notice, like rust-mule 0.1.0: lock and token files, start-up order, HTTP API, status windows,
signals, log lines, exit codes. There is no I2P and no Kademlia in it. Nodes of one simulated
network find each other by UDP on 127.0.0.1, without any hub process: each takes the first free
port of a range, greets the whole range, and later a few ports of it at a time.

What travels is real, what is lost is drawn: the publisher draws the fate of every publish from
`seed` and its ordinal, so a soak of one publisher sees the same sequence of outcomes each time.

    prestored  the row travels to the other nodes at once: they have it before any search
    hit        the row stays on the publisher; a search asks it and is answered soon
    late       the same, but the answer comes `late_secs` after the search
    miss       the publisher is asked, its answer is lost

Every knob is a key of `[sim]` in `config.toml`; unknown ones are ignored like all unknown keys.

    network                 "soakd-sim"  only nodes with the same name hear each other
    udp_first_port          27800        the range of UDP ports ...
    udp_ports               64           ... and its length: the most nodes that fit
    beacon_secs             1.0          how often: all of it three times, then four ports at a time
    seed                    1            of every drawn number
    warmup_secs             3.0          503 after the port opened (real node: at least 188)
    session_secs            0.0          port closed, as while the SAM session is being made
    status_every_secs       0.0          status window; 0 = kad.service_status_every_secs (>= 5).
                                         Below 1 two snapshots can bear one uptime_secs
    hit_rate                0.80         share of publishes that become a hit ...
    prestored_rate          0.05         ... prestored ...
    late_rate               0.05         ... late; what is left to 1 becomes a miss
    outcomes                []           such as ["hit", "miss"]: the fates in this order, again
                                         and again, in place of the rates
    latency_min_secs        0.05         how long a row or an answer travels, drawn between ...
    latency_max_secs        0.50         ... these two
    late_secs               25.0         how long a late answer travels
    keyword_hit_rate        1.0          share of keyword publishes that others store and answer ...
    keyword_late_rate       0.0          ... answer `late_secs` after the search ...
    keyword_miss_rate       0.0          ... whose answers are lost; what is left to 1 stays local
    keyword_outcomes        []           such as ["hit", "local"], in place of these rates
    keyword_elsewhere       true         the publisher answers in the name of absent nodes, so that
                                         two nodes are enough
    tell_keyword_id         true         false: publish_keyword answers without the keyword's id
    sigint_miss_rate        0.1          share of SIGINTs lost in the service loop
    stop_secs               0.0          how long a noticed SIGINT takes to end the process
    seed_contacts           154          dead contacts in the built-in seed files
    heard_contacts          0            how many of them count as live all the same ...
    heard_after_secs        0.0          ... from so long after the service loop began
    inbound_per_minute      0            requests of one kind taken from one peer (real node: 30
                                         publishes; 0 = all, so that short waits keep the rates)
    session_loss_every_secs 0.0          lose the SAM session this long after each loop start
    session_recreate_secs   1.0          and take this long to make it again
    faults                  []           what goes wrong and when, such as ["die@20:SIGSEGV"]; all
                                         kinds and their syntax stand in soakd/simnode/faults.py

The same orders can be given to a running node: append lines to `sim.faults` in its data dir, with
`order` or with any editor.

Nothing here imports the rest of soakd; `/usr/bin/python3 -I -S` of 3.11 runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a tenth of the time that a node takes to start
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["install", "order"]


def install(
    folder: Path,
    *,
    python: str,
    port: int,
    session_name: str,
    sim: Mapping[str, object] | None = None,
) -> None:
    """Make `folder` a node folder: an executable `rust-mule` and a `config.toml`.

    Args:
        folder: made if missing; an older `rust-mule` and `config.toml` in it are replaced.
        python: absolute path of the interpreter (>= 3.11) that will run the node. Blanks in it
            are refused, since the kernel reads it from the first line of the program.
        port: API port on both loopback addresses.
        session_name: `sam.session_name`.
        sim: keys of `[sim]`, see the module's text; a number of a known key may be int or float.

    Raises:
        ValueError: an unknown or wrong `[sim]` key, or an unusable `python`.
        OSError: the folder cannot be written.
    """
    # The node itself imports this package: what only the builder needs stays out of it.
    from soakd.simnode.builder import write_node_folder  # noqa: PLC0415

    write_node_folder(
        folder, python=python, port=port, session_name=session_name, sim=dict(sim or {})
    )


def order(data_dir: Path, *faults: str) -> None:
    """Tell a running node to misbehave; it obeys within 0.1 s and logs `simulated fault`.

    Args:
        data_dir: its data dir.
        faults: `KIND[@SECONDS FROM NOW][:ARGUMENT]`, see `soakd.simnode.faults`.

    Raises:
        ValueError: an order is not understood, none has been given then.
        OSError: the control file cannot be written.
    """
    from soakd.simnode.control import FILE  # noqa: PLC0415
    from soakd.simnode.faults import parse  # noqa: PLC0415

    lines = "".join(f"{parse(text, running=True).text}\n" for text in faults)
    # One write, so that the node never sees half of it.
    with (data_dir / FILE).open("ab", buffering=0) as file:
        file.write(lines.encode())
