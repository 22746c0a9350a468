"""What the API of a faulty node sends, and what a stalled service loop does to it."""

from __future__ import annotations

import http.client
import json
import socket
import time
import zlib

import pytest

from tests.simnode.simnodes import MakeNode, SimNode, status_field, tell, wait_until

pytestmark = pytest.mark.unmeasured


def connected(node: SimNode, path: str = "/status") -> socket.socket:
    """Send a request with the token, and return the connection."""
    sock = socket.create_connection(("127.0.0.1", node.port), timeout=10)
    sock.sendall(
        f"GET /api/v1{path} HTTP/1.1\r\nhost: x\r\naccept-encoding: identity\r\n"
        f"authorization: Bearer {node.token()}\r\n\r\n".encode()
    )
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Read to the end."""
    pieces = []
    with sock:
        while piece := sock.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


def rss_kb(node: SimNode) -> int:
    """Return the most memory that the node ever had."""
    assert node.process is not None
    return int(status_field(node.process.pid, "VmHWM").removesuffix("kB"))


@pytest.mark.slow
def test_hang_and_heal(node: SimNode) -> None:
    """Accepted, read, never answered; healed, new requests are answered."""
    tell(node, "hang")
    with connected(node, "/health") as sock:
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    tell(node, "heal")
    assert node.ready()


@pytest.mark.slow
def test_hang_on_one_route(node: SimNode) -> None:
    """All others go on; the hanging call does not hold the turn of the rate limit."""
    tell(node, "hang:/kad/sources")
    with connected(node, f"/kad/sources/{'0' * 32}") as sock:
        assert node.ready()
        assert node.call("GET", "/kad/peers")[0] == 200
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_hanging_from_the_start(make_node: MakeNode) -> None:
    """Never ready, although the port is open."""
    node = make_node(faults=["hang@start"])
    node.run()
    wait_until(lambda: "api server listening addr=127.0.0.1" in node.out())
    with connected(node, "/health") as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)


@pytest.mark.parametrize("code", [500, 504, 401, 403, 503])
def test_http(node: SimNode, code: int) -> None:
    """With the envelope of the real program; the youngest fault that fits wins."""
    tell(node, "empty", f"http:{code}:/status")
    assert node.call("GET", "/status")[0] == code
    assert node.call("GET", "/status")[1]["code"] == code
    assert node.raw("GET", "/api/v1/health")[2] == b""


@pytest.mark.parametrize(
    ("kind", "begin", "size"),
    [
        ("garbage", b"<html>\xff\xfe\x00", 43),
        ("empty", b"", 0),
        ("wrong-json", b'["surprise",null]', 17),
        ("deep-json", b"[[[[[", 200_000),
    ],
)
def test_bodies_in_place_of_the_answer(node: SimNode, kind: str, begin: bytes, size: int) -> None:
    """200, whoever asks."""
    tell(node, kind)
    status, headers, body = node.raw("GET", "/api/v1/status")
    assert (status, headers["content-type"], len(body)) == (200, "application/json", size)
    assert body.startswith(begin)


def test_hang_up(node: SimNode) -> None:
    """Not a byte."""
    tell(node, "hang-up:/status")
    assert read_all(connected(node)) == b""
    assert node.listening()


def test_truncated_json(node: SimNode) -> None:
    """A whole answer with half of its JSON."""
    tell(node, "truncated-json")
    token = {"authorization": f"Bearer {node.token()}"}
    status, _, body = node.raw("GET", "/api/v1/status", headers=token)
    assert (status, body[:1]) == (200, b"{")
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


def test_cut(node: SimNode) -> None:
    """Half an answer that claims to be whole."""
    tell(node, "cut")
    token = {"authorization": f"Bearer {node.token()}"}
    with pytest.raises(http.client.IncompleteRead):
        node.raw("GET", "/api/v1/status", headers=token)


@pytest.mark.parametrize("kind", ["endless-headers", "endless-body"])
def test_endless(node: SimNode, kind: str) -> None:
    """Goes on as long as it is read, costs the node nothing, and ends with the reader."""
    tell(node, kind)
    taken = b""
    with connected(node) as sock:
        while len(taken) < 5_000_000:
            taken += sock.recv(1 << 20)
        assert (b"\r\n\r\n" in taken) == (kind == "endless-body")
    tell(node, "heal")
    assert node.ready()
    assert rss_kb(node) < 60_000


@pytest.mark.slow
def test_gzip_bomb(node: SimNode) -> None:
    """A valid answer, small on the wire and 1 GiB unpacked."""
    tell(node, "gzip-bomb:/status")
    head, _, packed = read_all(connected(node)).partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert len(packed) < 2_000_000
    unpack, size, tail, rest = zlib.decompressobj(16 + zlib.MAX_WBITS), 0, b"", packed
    while rest and not unpack.eof:
        piece = unpack.decompress(rest, 1 << 24)
        rest, size, tail = unpack.unconsumed_tail, size + len(piece), (tail + piece)[-20_000:]
    assert unpack.eof
    assert size > 1 << 30
    assert len(json.loads(tail)) == 99
    assert rss_kb(node) < 60_000


@pytest.mark.slow
def test_big_body(node: SimNode) -> None:
    """100 MB of blanks, then the answer: valid, and not kept by the node."""
    tell(node, "big-body")
    body = node.raw("GET", "/api/v1/health")[2]
    assert len(body) == 100_000_000 + len(b'{"ok":true}')
    assert body.endswith(b'{"ok":true}')
    assert node.listening()
    assert rss_kb(node) < 60_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["drip", "drip-head"])
def test_drip(node: SimNode, kind: str) -> None:
    """One byte each 0.3 s; others are served meanwhile."""
    tell(node, f"{kind}:/status")
    with connected(node) as sock:
        first = sock.recv(4096)
        assert first == b"H" if kind == "drip-head" else first.endswith(b"\r\n\r\n")
        begin = time.monotonic()
        assert [len(sock.recv(4096)) for _ in range(3)] == [1, 1, 1]
        assert time.monotonic() - begin > 0.5
        assert node.listening()


@pytest.mark.slow
def test_drip_to_the_end(node: SimNode) -> None:
    """Everything comes, then the connection closes."""
    tell(node, "drip")
    assert read_all(connected(node, "/health")).endswith(b'\r\n\r\n{"ok":true}')


def test_redirect(node: SimNode) -> None:
    """To where it was told, or to a port of nobody."""
    tell(node, "redirect:http://127.0.0.2:1/a:b")
    status, headers, _ = node.raw("GET", "/api/v1/status")
    assert (status, headers["location"]) == (302, "http://127.0.0.2:1/a:b")
    tell(node, "redirect")
    assert node.raw("GET", "/")[1]["location"] == "http://127.0.0.1:9/elsewhere"


def test_a_spoilt_command_is_carried_out(node: SimNode) -> None:
    """Only its answer is not what it should be; the event stream has no end to spoil."""
    tell(node, "cut")
    file_id = "ab" * 16
    with pytest.raises(http.client.IncompleteRead):
        node.call("POST", "/kad/publish_source", {"file_id_hex": file_id})
    tell(node, "heal")
    assert len(node.sources(file_id)) == 1
    tell(node, "cut")
    assert node.raw("GET", "/api/v1/events")[0] == 401


def test_rotate_token(node: SimNode) -> None:
    """The old one is dead, the new one stands in the file."""
    old = node.token()
    tell(node, "rotate-token")
    wait_until(lambda: node.token() != old)
    bearer = {"authorization": f"Bearer {old}"}
    assert node.raw("GET", "/api/v1/status", headers=bearer)[0] == 403
    assert node.ready()


@pytest.mark.parametrize("kind", ["api-closed", "listener-closed"])
def test_closed_listeners(node: SimNode, kind: str) -> None:
    """New connections are refused; open ones are hung up on, or go on."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=5)
    connection.request("GET", "/api/v1/health")
    connection.getresponse().read()
    tell(node, kind)
    wait_until(lambda: not node.listening())
    if kind == "listener-closed":
        connection.request("GET", "/api/v1/health")
        assert connection.getresponse().status == 200
    else:
        connection.request("GET", "/api/v1/health")
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
        assert "ERROR rust_mule::app: api server stopped error=" in node.out()
    connection.close()
    assert node.process is not None
    assert node.process.poll() is None


@pytest.mark.slow
def test_session_loss(make_node: MakeNode) -> None:
    """The uptime begins again; a second order in the gap does nothing."""
    node = make_node(session_recreate_secs=0.3, status_every_secs=0.1)
    node.run()
    wait_until(node.ready)
    wait_until(lambda: node.get("/status")["uptime_secs"] >= 1)
    tell(node, "session-loss", "session-loss", "loop-stall")
    wait_until(lambda: node.get("/status")["uptime_secs"] == 0)
    assert node.out().count("kad service lost SAM socket") == 1
    assert node.out().count("kad service started") == 2


@pytest.mark.slow
def test_loop_stall(make_node: MakeNode) -> None:
    """Status stale, Kad GETs 504, SIGINT lost; healed, all goes on."""
    node = make_node(status_every_secs=0.1)
    node.run()
    wait_until(node.ready)
    tell(node, "loop-stall")
    stale = node.get("/status")
    assert node.call("POST", "/kad/publish_source", {"file_id_hex": "ab" * 16})[0] == 200
    assert node.call("GET", "/kad/peers")[0] == 504
    node.interrupt()
    assert node.get("/status") == stale
    tell(node, "heal")
    assert len(node.sources("ab" * 16)) == 1
    wait_until(lambda: node.get("/status")["uptime_secs"] >= 5)
    assert "Ctrl-C" not in node.out()


@pytest.mark.slow
def test_a_short_stall(make_node: MakeNode) -> None:
    """Ends by itself, and a waiting call gets its answer."""
    node = make_node(faults=["loop-stall:0.5"])
    node.run()
    wait_until(lambda: 'fault="loop-stall:0.5"' in node.out())
    assert node.call("GET", "/kad/peers")[0] == 200
