from __future__ import annotations

import json
import socket
import tomllib

import pytest

from tests.simnode.simnodes import GUARD_S, MakeNode, SimNode, wait_until

FILE_ID = "0123456789abcdef0123456789abcdef"


def bearer(node: SimNode) -> dict[str, str]:
    """Return the header that opens everything."""
    return {"Authorization": f"Bearer {node.token()}"}


def test_health_needs_no_token_on_either_address(asked_node: SimNode) -> None:
    """It says only that some node listens."""
    for host in ("127.0.0.1", "::1"):
        status, headers, body = asked_node.raw("GET", "/api/v1/health", host=host)
        assert (status, body) == (200, b'{"ok":true}')
        assert headers["content-type"] == "application/json"


def test_every_answer_names_the_simulation(asked_node: SimNode) -> None:
    """A client can tell it from the real program."""
    assert "SIMULATION" in (asked_node.raw("GET", "/api/v1/health")[1]["server"] or "")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("bearer x", 401),
        ("Basic x", 401),
        ("Bearer x", 403),
        (f"Bearer {'0' * 64}", 403),
    ],
)
def test_a_bad_token_is_401_or_403(asked_node: SimNode, header: str | None, status: int) -> None:
    """Absent or malformed, or well-formed but not the current one."""
    headers = {} if header is None else {"Authorization": header}
    code, _, body = asked_node.raw("GET", "/api/v1/status", None, headers)
    message = {401: "unauthorized", 403: "forbidden"}[status]
    assert code == status
    assert json.loads(body) == {"code": status, "message": message}


def test_status_has_ninety_nine_numbers(asked_node: SimNode) -> None:
    """None of them negative."""
    status = asked_node.get("/status")
    assert len(status) == 99
    assert all(type(value) is int and value >= 0 for value in status.values())


def test_warm_up_shows_as_the_contract_says(make_node: MakeNode) -> None:
    """Port open, health and downloads 200, status 503, and 401/403 come first."""
    node = make_node(warmup_secs=600)
    node.run()
    wait_until(node.listening)
    assert node.call("GET", "/status") == (
        503,
        {"code": 503, "message": "service unavailable"},
    )
    assert node.raw("GET", "/api/v1/status")[0] == 401
    assert node.call("GET", "/downloads")[0] == 200
    assert node.call("POST", "/kad/publish_source", {"file_id_hex": FILE_ID}) == (
        200,
        {"queued": True},
    )


@pytest.mark.slow
def test_kad_reads_of_warm_up_wait_five_seconds_and_hold_the_turn(make_node: MakeNode) -> None:
    """504, and with rate limiting on everything behind it waits too."""
    node = make_node(warmup_secs=600)
    node.run()
    wait_until(node.listening)
    head = f"HTTP/1.1\r\nAuthorization: Bearer {node.token()}\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", node.port), GUARD_S) as slow,
        socket.create_connection(("127.0.0.1", node.port), GUARD_S) as behind,
        socket.create_connection(("127.0.0.1", node.port), GUARD_S) as free,
    ):
        slow.sendall(f"GET /api/v1/kad/sources/{FILE_ID} {head}".encode())
        # The health of the same connection comes after it: the first is in work for sure.
        free.sendall(f"GET /api/v1/health {head}".encode())
        assert b" 200 " in free.recv(65536)
        behind.sendall(f"GET /api/v1/settings {head}".encode())
        behind.settimeout(0.2)
        with pytest.raises(TimeoutError):
            behind.recv(1)
        assert slow.recv(65536).startswith(b"HTTP/1.1 504 ")
        behind.settimeout(GUARD_S)
        assert behind.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_leaves_gives_its_turn_back(make_node: MakeNode) -> None:
    """Its command stays queued, others are served."""
    node = make_node(warmup_secs=600)
    node.run()
    wait_until(node.listening)
    with socket.create_connection(("127.0.0.1", node.port), GUARD_S) as slow:
        request = f"GET /api/v1/kad/sources/{FILE_ID} HTTP/1.1\r\n"
        slow.sendall(f"{request}Authorization: Bearer {node.token()}\r\n\r\n".encode())
    assert node.call("GET", "/settings")[0] == 200


@pytest.mark.slow
def test_a_full_command_queue_lets_callers_hang(make_node: MakeNode) -> None:
    """128 places; the 129th has no time limit."""
    node = make_node(warmup_secs=600)
    node.edit("[api]", "[api]\nrate_limit_enabled = false")
    node.run()
    wait_until(node.listening)
    for _ in range(128):
        assert node.call("POST", "/kad/search_sources", {"file_id_hex": FILE_ID})[0] == 200
    with socket.create_connection(("127.0.0.1", node.port), 0.2) as hanging:
        body = json.dumps({"file_id_hex": FILE_ID})
        request = "POST /api/v1/kad/search_sources HTTP/1.1\r\n"
        token = f"Authorization: Bearer {node.token()}\r\n"
        hanging.sendall(f"{request}{token}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        with pytest.raises(TimeoutError):
            hanging.recv(1)
    assert node.call("GET", "/downloads")[0] == 200


def test_rate_limits_count_before_the_token(make_node: MakeNode) -> None:
    """The limit is for the client, path and method, whoever asks."""
    node = make_node()
    node.edit("[api]", "[api]\nrate_limit_token_rotate_max_per_window = 2")
    node.run()
    wait_until(node.listening)
    path = "/api/v1/token/rotate"
    assert [node.raw("POST", path)[0] for _ in range(3)] == [401, 401, 429]
    assert node.raw("POST", path, host="::1")[0] == 401
    _, headers, body = node.raw("POST", path)
    assert json.loads(body) == {"code": 429, "message": "too many requests"}
    assert "retry-after" not in headers


def test_without_rate_limiting_nothing_is_counted(make_node: MakeNode) -> None:
    """What a harness sets."""
    node = make_node()
    node.edit("[api]", "[api]\nrate_limit_enabled = false\nrate_limit_session_max_per_window = 0")
    node.run()
    wait_until(node.ready)
    assert node.call("GET", "/settings")[0] == 200


def test_foreign_origins_are_refused_even_with_the_token(asked_node: SimNode) -> None:
    """Loopback origins pass."""
    for origin, status in (
        ("http://evil.example", 403),
        ("null", 403),
        ("http://localhost:1", 200),
        ("http://[::1]:1", 200),
    ):
        headers = {**bearer(asked_node), "Origin": origin}
        assert asked_node.raw("GET", "/api/v1/status", None, headers)[0] == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nonsense", 404),
        ("POST", "/nonsense", 405),
        ("POST", "/status", 405),
        ("GET", "/downloads/1/pause", 405),
        ("GET", "/kad/sources/xyz", 400),
        ("GET", f"/searches/{FILE_ID}", 404),
        ("DELETE", "/downloads/7", 404),
        ("GET", "/debug/routing/nodes?bucket=128", 400),
    ],
)
def test_what_is_not_there_has_its_code(
    asked_node: SimNode, method: str, path: str, status: int
) -> None:
    """With a valid token; without one it is 401 first."""
    assert asked_node.call(method, path)[0] == status
    assert asked_node.raw(method, f"/api/v1{path}")[0] == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"file_id_hex": "xyz"}', 400),
        (b'{"file_id_hex": "%s", "file_size": -1}' % FILE_ID.encode(), 400),
        (b'{"file_id_hex": "%s", "file_size": "1"}' % FILE_ID.encode(), 400),
        (b'{"file_id_hex": "%s", "more": 1}' % FILE_ID.upper().encode(), 200),
        (b" " * 16_385, 413),
        (b" " * 100_000, 413),
    ],
)
def test_bodies_are_checked(asked_node: SimNode, body: bytes, status: int) -> None:
    """Unknown fields are ignored, ids may be upper case."""
    assert (
        asked_node.raw("POST", "/api/v1/kad/publish_source", body, bearer(asked_node))[0] == status
    )


def test_an_unknown_file_has_an_empty_list(asked_node: SimNode) -> None:
    """Compact JSON, keys in the order that triage greps for; not 404."""
    unknown = "f" * 32
    path = f"/api/v1/kad/sources/{unknown.upper()}"
    body = asked_node.raw("GET", path, None, bearer(asked_node))[2]
    assert body == b'{"file_id_hex":"%s","sources":[]}' % unknown.encode()


def test_an_own_publish_is_visible_at_once(node: SimNode) -> None:
    """That proves nothing about the network."""
    node.call("POST", "/kad/publish_source", {"file_id_hex": FILE_ID})
    (row,) = node.sources(FILE_ID)
    assert list(row) == ["source_id_hex", "udp_dest_b64"]
    keys = (node.folder / "data" / "sam.keys").read_text()
    assert f"PUB={row['udp_dest_b64']}\n" in keys


def test_rotating_the_token_kills_the_old_one(node: SimNode) -> None:
    """The file is ahead of the value in force, never behind."""
    old = bearer(node)
    status, answer = node.call("POST", "/token/rotate")
    assert (status, answer) == (200, {"token": node.token(), "sessions_cleared": True})
    assert node.raw("GET", "/api/v1/status", None, old)[0] == 403
    assert node.ready()


def test_bootstrap_gives_the_token_in_local_mode_only(make_node: MakeNode) -> None:
    """With the right token 404 elsewhere."""
    node = make_node()
    node.run()
    wait_until(node.ready)
    body = node.raw("GET", "/api/v1/auth/bootstrap")[2]
    assert json.loads(body) == {"token": node.token()}
    node.interrupt()
    node.wait()
    node.edit("[api]", '[api]\nauth_mode = "headless_remote"')
    node.run()
    wait_until(node.ready)
    assert node.raw("GET", "/api/v1/auth/bootstrap")[0] == 401
    assert node.call("GET", "/auth/bootstrap")[0] == 404


def test_sessions_live_by_cookie(node: SimNode) -> None:
    """Events want the cookie and do not look at the token."""
    _, headers, _ = node.raw("POST", "/api/v1/session", None, bearer(node))
    given = headers["set-cookie"]
    assert "HttpOnly; SameSite=Strict; Max-Age=28800" in given
    cookie = {"Cookie": given.split(";")[0]}
    assert node.raw("GET", "/api/v1/session/check", None, cookie)[0] == 200
    assert node.raw("GET", "/api/v1/session/check", None, bearer(node))[0] == 401
    assert node.raw("GET", "/index.html", None, cookie)[0] == 200
    assert node.raw("POST", "/api/v1/session/logout", None, cookie)[0] == 200
    assert node.raw("GET", "/api/v1/session/check", None, cookie)[0] == 401


def test_pages_without_a_session_lead_to_the_login(asked_node: SimNode) -> None:
    """Which is why opening the UI never works."""
    status, headers, _ = asked_node.raw("GET", "/index.html")
    assert (status, headers["location"]) == (303, "/auth")
    assert b"SIMULATION" in asked_node.raw("GET", "/auth")[2]


def test_events_stream_the_last_snapshot_and_each_new_one(make_node: MakeNode) -> None:
    """An open stream does not hold the turn of limited routes."""
    node = make_node(status_every_secs=0.05)
    node.run()
    wait_until(node.ready)
    cookie = node.raw("POST", "/api/v1/session", None, bearer(node))[1]["set-cookie"]
    with socket.create_connection(("127.0.0.1", node.port), GUARD_S) as stream:
        head = f"GET /api/v1/events HTTP/1.1\r\nCookie: {cookie.split(';')[0]}\r\n\r\n"
        stream.sendall(head.encode())
        received = b""
        while received.count(b'\ndata: {"uptime_secs":') < 3:
            received += stream.recv(65536)
        assert b"content-type: text/event-stream" in received
        assert node.call("GET", "/status")[0] == 200


def test_patched_settings_go_to_the_file_and_keep_the_simulation(node: SimNode) -> None:
    """Every key explicit, `[sim]` too; the running node is unchanged."""
    assert node.call("PATCH", "/settings", {"api": {"port": 0}})[0] == 400
    assert node.call("PATCH", "/settings", {"api": 1})[0] == 400
    status, answer = node.call(
        "PATCH", "/settings", {"general": {"log_level": "warn", "unknown": 1}}
    )
    assert status == 200
    assert answer["settings"]["general"]["log_level"] == "warn"
    assert node.get("/settings") == answer
    table = tomllib.loads((node.folder / "config.toml").read_text())
    assert table["general"]["log_level"] == "warn"
    assert table["kad"]["service_alpha"] == 3
    assert table["sim"]["beacon_secs"] == 0.05


def test_downloads_go_through_their_states(make_node: MakeNode) -> None:
    """Nothing transfers; files are sparse and survive a restart."""
    node = make_node()
    node.run()
    wait_until(node.ready)
    wanted = {"file_name": "x.iso", "file_size": 1 << 30, "file_hash_md4_hex": FILE_ID}
    assert node.call("POST", "/downloads", wanted | {"file_name": "a/b"})[0] == 400
    assert node.call("POST", "/downloads", wanted | {"file_size": 0})[0] == 400
    status, answer = node.call("POST", "/downloads", wanted)
    assert (status, answer["download"]["part_number"]) == (201, 1)
    assert (node.folder / "data/download/001.part").stat().st_size == 1 << 30
    states = []
    for action in ("pause", "pause", "resume", "cancel", "resume"):
        status, answer = node.call("POST", f"/downloads/1/{action}")
        states.append(answer["download"]["state"] if status == 200 else status)
    assert states == ["paused", 409, "queued", "cancelled", 409]
    node.interrupt()
    node.wait()
    node.run()
    wait_until(node.ready)
    listing = node.get("/downloads")
    assert (listing["recovered_on_start"], listing["downloads"][0]["state"]) == (1, "cancelled")
    assert node.call("DELETE", "/downloads/1") == (200, {"deleted": True})
    assert list((node.folder / "data/download").iterdir()) == []


def test_debug_routes_describe_the_routing_table(make_node: MakeNode) -> None:
    """And can be switched off."""
    node = make_node()
    node.run()
    wait_until(node.ready)
    summary = node.get("/debug/routing/summary")["summary"]
    assert (summary["bucket_count"], summary["total_nodes"]) == (128, 136)
    buckets = node.get("/debug/routing/buckets")["buckets"]
    assert (len(buckets), sum(bucket["count"] for bucket in buckets)) == (128, 136)
    number = max(range(128), key=lambda index: buckets[index]["count"])
    nodes = node.get(f"/debug/routing/nodes?bucket={number}")["nodes"]
    assert len(nodes) == buckets[number]["count"]
    assert node.call("POST", "/debug/lookup_once", {"target_id_hex": FILE_ID})[1] == {
        "target_id_hex": FILE_ID
    }
    probe = {"udp_dest_b64": nodes[0]["udp_dest_b64"], "keyword_id_hex": FILE_ID}
    file = {"file_id_hex": FILE_ID, "filename": "x", "file_size": 1}
    assert node.call("POST", "/debug/probe_peer", probe | file)[1]["peer_found"] is True
    assert node.call("POST", "/debug/probe_peer", file | probe | {"udp_dest_b64": "x"})[1] == {
        "queued": False,
        "peer_found": False,
    }
    assert node.call("POST", "/debug/probe_peer", probe | file | {"filename": " "})[0] == 400
    node.interrupt()
    node.wait()
    node.edit("[api]", "[api]\nenable_debug_endpoints = false")
    node.run()
    wait_until(node.ready)
    assert node.call("GET", "/debug/routing/summary")[0] == 404


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"GET /" + b"x" * 70_000, b"431"),
    ],
)
def test_what_is_not_http_ends_the_connection(
    asked_node: SimNode, request_bytes: bytes, status: bytes
) -> None:
    """And nothing else."""
    with socket.create_connection(("127.0.0.1", asked_node.port), GUARD_S) as client:
        client.sendall(request_bytes)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.split()[1] == status
    assert asked_node.ready()


def test_a_client_that_does_not_read_holds_up_nobody(make_node: MakeNode) -> None:
    """Its answers wait for it, complete and in order; its requests wait behind them."""
    node = make_node()
    node.edit("[api]", "[api]\nrate_limit_enabled = false")
    node.run()
    wait_until(node.ready)
    request = f"GET /api/v1/kad/peers HTTP/1.1\r\nAuthorization: Bearer {node.token()}\r\n\r\n"
    last = "GET /api/v1/health HTTP/1.1\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", node.port), GUARD_S) as slow:
        slow.sendall((request * 100 + last).encode())
        assert node.ready()
        answers = b""
        while piece := slow.recv(1 << 20):
            answers += piece
    assert answers.count(b"HTTP/1.1 200 OK") == 101
    assert answers.endswith(b'{"ok":true}')


def test_requests_can_come_in_pieces_and_in_a_row(asked_node: SimNode) -> None:
    """One connection serves one after another; HEAD has no body."""
    request = b"GET /api/v1/health HTTP/1.1\r\n\r\n"
    last = b"HEAD /api/v1/health HTTP/1.1\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", asked_node.port), GUARD_S) as client:
        client.sendall(request + request[:9])
        assert client.recv(65536).endswith(b'{"ok":true}')
        client.sendall(request[9:] + last)
        answers = b""
        while piece := client.recv(65536):
            answers += piece
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.count(b'{"ok":true}') == 1
