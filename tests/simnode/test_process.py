from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from soakd.simnode import install
from tests.simnode.simnodes import MakeNode, SimNode, wait_until

pytestmark = pytest.mark.unmeasured

SYSTEM_PYTHON = Path("/usr/bin/python3")


def test_a_start_makes_the_files_of_the_contract(node: SimNode) -> None:
    """Names, sizes and modes."""
    data = node.folder / "data"
    assert re.fullmatch("[0-9a-f]{64}", (data / "api.token").read_text())
    keys = (data / "sam.keys").read_text().splitlines()
    assert [line.partition("=")[0] for line in keys] == ["PUB", "PRIV"]
    assert len(keys[0]) == len("PUB=") + 516
    assert [(data / name).stat().st_mode & 0o777 for name in ("api.token", "sam.keys")] == [
        0o600
    ] * 2
    assert (data / "preferencesKad.dat").stat().st_size == 19
    assert (data / "kad_udp_key_secret.dat").stat().st_size == 4
    assert (data / "nodes.initseed.dat").stat().st_size == 63_614
    assert (data / "rust-mule.lock").stat().st_size == 0
    assert (data / "nodes.dat").exists()
    assert len(list((data / "logs").glob("rust-mule.????-??-??.log"))) == 1


def test_the_first_line_says_that_it_is_a_simulation(node: SimNode) -> None:
    """Whoever reads the output knows."""
    assert node.out().splitlines()[0].startswith("*** SIMULATION: ")


def test_a_second_process_in_the_folder_ends_at_once(node: SimNode) -> None:
    """And the first is not disturbed."""
    assert node.run_second() == 1
    assert node.err() == (
        'Error: App(SingleInstance(AlreadyRunning { path: "data/rust-mule.lock" }))\n'
    )
    assert node.ready()


def test_the_lock_is_a_flock_that_dies_with_the_process(node: SimNode) -> None:
    """The file stays, a copied one is harmless."""
    with (node.folder / "data" / "rust-mule.lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        node.kill()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_sigint_ends_the_service_loop_gracefully(node: SimNode) -> None:
    """Exit status 0 and the last lines."""
    node.interrupt()
    assert node.wait() == 0
    assert "received Ctrl-C" in node.out()
    assert node.out().endswith("shutting down gracefully\n")


def test_sigint_before_the_service_loop_kills(make_node: MakeNode) -> None:
    """No handler is there yet."""
    node = make_node(warmup_secs=600)
    node.run()
    wait_until(node.listening)
    node.interrupt()
    assert node.wait() == -signal.SIGINT
    assert node.err() == ""


def test_a_sigint_can_be_missed(make_node: MakeNode) -> None:
    """A missed one leaves no trace; the node goes on and SIGTERM kills it."""
    node = make_node(sigint_miss_rate=1.0)
    process = node.run()
    wait_until(node.ready)
    node.interrupt()
    assert node.call("GET", "/kad/peers")[0] == 200
    assert process.poll() is None
    assert "Ctrl-C" not in node.out()
    process.terminate()
    assert node.wait() == -signal.SIGTERM
    assert "gracefully" not in node.out()


def test_stdout_is_coloured_unless_no_color_is_set(make_node: MakeNode) -> None:
    """Even into a file; the file log never is."""
    node = make_node()
    node.run(NO_COLOR="")
    wait_until(node.ready)
    assert "\x1b[32m INFO\x1b[0m" in node.out()
    (log,) = (node.folder / "data" / "logs").iterdir()
    assert "\x1b" not in log.read_text()


def test_service_enabled_false_ends_with_zero_after_bootstrap(make_node: MakeNode) -> None:
    """Like a runtime limit: a good end."""
    node = make_node()
    node.edit("[kad]", "[kad]\nservice_enabled = false")
    assert node.run().wait(10) == 0


@pytest.mark.slow
def test_the_runtime_limit_ends_with_zero(make_node: MakeNode) -> None:
    """Counted from the start of the service loop."""
    node = make_node()
    node.edit("[kad]", "[kad]\nservice_runtime_secs = 1")
    assert node.run().wait(10) == 0


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("sam.keys", b"WHAT=1\n", "Error: App(SamKeys("),
        ("sam.keys", b"PUB=AAAA\n", "Error: App(SamKeys("),
        ("sam.keys", b"PUB=AAAA\nPRIV=x\n", 'Error: App(InvalidState("decoded SAM PUB key has'),
        ("preferencesKad.dat", b"short", "Error: App(Kad("),
        ("kad_udp_key_secret.dat", b"12345", "Error: App(UdpKey(WrongSize"),
        ("nodes.dat", b"\0\0\0\0\2\0\0\0\1\0\0\0", "Error: App(Nodes(InvalidFormat"),
    ],
)
def test_damaged_files_are_fatal(
    make_node: MakeNode, name: str, content: bytes, error: str
) -> None:
    """Exit status 1 and one line on stderr."""
    node = make_node()
    (node.folder / "data").mkdir()
    (node.folder / "data" / name).write_bytes(content)
    assert node.run().wait(10) == 1
    assert node.err().startswith(error)
    assert node.err().count("\n") == 1


def test_a_node_without_any_contact_ends(make_node: MakeNode) -> None:
    """Empty lists everywhere, as a harness may stage them."""
    node = make_node()
    (node.folder / "data").mkdir()
    for name in ("nodes.dat", "nodes.initseed.dat", "nodes.fallback.dat"):
        (node.folder / "data" / name).write_bytes(b"\0\0\0\0\2\0\0\0\0\0\0\0")
    assert node.run().wait(10) == 1
    assert node.err() == ('Error: App(Bootstrap(InvalidState("no bootstrap nodes provided")))\n')


def test_a_full_range_of_udp_ports_is_fatal(make_node: MakeNode) -> None:
    """The most nodes of a network is the length of its range."""
    first, second = make_node("a", udp_ports=1), make_node("b", udp_ports=1)
    first.run()
    wait_until(first.ready)
    assert second.run().wait(10) == 1
    assert second.err().startswith('Error: App(Sam(Io { op: "bind UDP socket for SAM forwarding"')


def test_one_taken_address_leaves_the_other(make_node: MakeNode) -> None:
    """The two listeners are bound independently."""
    node = make_node()
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", node.port))
        foreign.listen()
        node.run()
        wait_until(lambda: "api server listening addr=[::1]" in node.out())
        assert f"api loopback listener unavailable addr=127.0.0.1:{node.port}" in node.out()
        assert node.raw("GET", "/api/v1/health", host="::1")[0] == 200


def test_without_any_address_the_node_lives_on(make_node: MakeNode) -> None:
    """Unreachable, for ever."""
    node = make_node()
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("127.0.0.1", node.port))
        four.listen()
        six.bind(("::1", node.port))
        six.listen()
        process = node.run()
        wait_until(lambda: "kad service started" in node.out())
    assert "api server stopped error=failed to bind API listener: " in node.out()
    assert process.poll() is None


def test_an_invalid_token_file_is_replaced_and_a_valid_one_kept(make_node: MakeNode) -> None:
    """Trimmed, upper case too."""
    node = make_node()
    (node.folder / "data").mkdir()
    path = node.folder / "data" / "api.token"
    path.write_text("nonsense")
    node.run()
    wait_until(node.ready)
    assert "token file was invalid" in node.out()
    node.kill()
    path.write_text(f" {'AB' * 32}\n")
    node.run()
    wait_until(node.listening)
    headers = {"Authorization": f"Bearer {'AB' * 32}"}
    assert node.raw("GET", "/api/v1/downloads", None, headers)[0] == 200


@pytest.mark.skipif(not SYSTEM_PYTHON.exists(), reason="the system has no Python")
def test_the_system_python_runs_it_small(make_node: MakeNode) -> None:
    """The library only; at most 25 MB."""
    node = make_node()
    text = (node.folder / "config.toml").read_text()
    install(node.folder, python=str(SYSTEM_PYTHON), port=node.port, session_name="s")
    (node.folder / "config.toml").write_text(text)
    process = node.run(installed=True)
    wait_until(node.ready)
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) < 25_000
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    assert command[:3] == [str(SYSTEM_PYTHON).encode(), b"-IS", b"./rust-mule"]


def test_installing_twice_gives_the_same_program(tmp_path: Path) -> None:
    """A changed SHA-256 means a changed program."""
    for name in ("a", "b"):
        install(tmp_path / name, python=sys.executable, port=18000, session_name=name)
    assert (tmp_path / "a/rust-mule").read_bytes() == (tmp_path / "b/rust-mule").read_bytes()
    assert os.access(tmp_path / "a/rust-mule", os.X_OK)


@pytest.mark.parametrize(
    ("python", "sim", "cause"),
    [
        ("/no/such/python", {}, "does not run"),
        ("/with blank/python", {}, "without blanks"),
        ("python3", {}, "absolute path"),
        (sys.executable, {"hitrate": 1}, "unknown"),
        (sys.executable, {"hit_rate": 2}, "out of range"),
    ],
)
def test_what_cannot_be_installed_is_refused(
    tmp_path: Path, python: str, sim: dict[str, object], cause: str
) -> None:
    """The builder is stricter than the node, which ignores unknown keys."""
    with pytest.raises(ValueError, match=cause):
        install(tmp_path / "a", python=python, port=18000, session_name="s", sim=sim)
