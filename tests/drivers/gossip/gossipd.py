"""gossipd: a small key-value program whose nodes ask each other. Standard library only.

As unlike rust-mule as its role allows: JSON instead of TOML, no token, other routes and statuses,
another log. `PUT /entries/KEY` makes the node a holder, `POST /queries {"key": KEY}` makes it ask
its peers, `GET /entries/KEY` says which holders it knows, `GET /health` how it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONFIG = "gossip.json"
PEER_TIMEOUT_S = 2.0


def say(text: str) -> None:
    """One line of the log; trouble begins with `!`."""
    print(text, flush=True)  # noqa: T201 - its log is its stdout


def give_up(why: str) -> None:
    """The last words of a start that fails."""
    sys.stderr.write(f"gossipd: giving up: {why}\n")
    raise SystemExit(3)


class Node:
    """What a node knows; its identity is the seal, a file that it makes."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.host, self.port = config["listen"]
        self.peers = [tuple(peer) for peer in config.get("peers", [])]
        self.beat_s = float(config.get("beat_s", 1.0))
        self.home = Path(config.get("home", "state"))
        self.home.mkdir(exist_ok=True)
        self._lock()
        self.id = hashlib.sha256(self._seal().encode()).hexdigest()[:32]
        self.beats = 0
        self.holders: dict[str, list[str]] = {}

    def _lock(self) -> None:
        try:
            (self.home / "LOCK").touch(exist_ok=False)
        except FileExistsError:
            give_up(f"LOCK: {self.home} is in use")

    def _seal(self) -> str:
        path = self.home / "seal.key"
        if not path.exists():
            path.write_text(secrets.token_hex(32))
        return path.read_text()

    def learn(self, key: str, holder: str) -> None:
        """Knows one more holder of a key."""
        known = self.holders.setdefault(key, [])
        if holder not in known:
            known.append(holder)

    def ask_around(self, key: str) -> None:
        """Asks every peer which holders it knows."""
        for host, port in self.peers:
            try:
                url = f"http://{host}:{port}/entries/{key}"
                with urllib.request.urlopen(url, timeout=PEER_TIMEOUT_S) as answer:
                    for holder in json.load(answer)["holders"]:
                        self.learn(key, holder)
            except urllib.error.HTTPError:
                say(f"{host}:{port} does not know {key}")
            except OSError:
                say(f"! no answer from {host}:{port}")


class Handler(BaseHTTPRequestHandler):
    """The routes; `node` is set by `main`."""

    protocol_version = "HTTP/1.1"
    node: Node

    def log_message(self, *_parts: object) -> None:
        """Nothing: requests are no news."""

    def do_GET(self) -> None:
        node, key = self.node, self.path.removeprefix("/entries/")
        if self.path == "/health":
            state = "up" if node.beats > 0 else "joining"
            self._answer(200, {"state": state, "beats": node.beats, "keys": len(node.holders)})
        elif key in node.holders:
            self._answer(200, {"holders": node.holders[key]})
        else:
            self._answer(404, {"why": "unknown key"})

    def do_PUT(self) -> None:
        self._body()
        self.node.learn(self.path.removeprefix("/entries/"), self.node.id)
        self._answer(201, {"holder": self.node.id})

    def do_POST(self) -> None:
        key = self._body()["key"]
        threading.Thread(target=self.node.ask_around, args=(key,), daemon=True).start()
        self._answer(202, {"asked": len(self.node.peers)})

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, status: int, data: dict[str, object]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serves until a signal."""
    try:
        node = Node(json.loads(Path(CONFIG).read_text()))
    except (OSError, ValueError, KeyError) as error:
        give_up(f"{CONFIG}: {error!r}")
        return
    Handler.node = node
    server = ThreadingHTTPServer((node.host, node.port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(f"gossipd {node.id} on {node.host}:{node.port}, mood {os.environ.get('GOSSIP_MOOD')}")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(node.beat_s):
        node.beats += 1
    (node.home / "LOCK").unlink()
    say("gossipd leaves")


if __name__ == "__main__":
    main()
