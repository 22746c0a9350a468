"""A simulated node under test, and what the tests need around it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soakd.simnode import order

GUARD_S = 30.0
ROOT = Path(__file__).resolve().parents[2]
FROM_SOURCES = "from soakd.simnode.app import main; raise SystemExit(main())"


class SimNode:
    """A simulated node in a folder of its own, and a client of its API."""

    def __init__(self, folder: Path, port: int, environment: dict[str, str]) -> None:
        self.folder = folder
        self.port = port
        self._environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *, installed: bool = False, **environment: str) -> subprocess.Popen[bytes]:
        """Start the program as a harness does: in its folder, output to files.

        While coverage is measured the sources run in its place, unless `installed` says no.
        """
        self.process = self._spawn(environment, installed=installed)
        return self.process

    def run_second(self) -> int:
        """Run another process in the same folder to its end, and return its status."""
        with self._spawn({}, installed=False) as second:
            return second.wait(GUARD_S)

    def _spawn(self, environment: dict[str, str], *, installed: bool) -> subprocess.Popen[bytes]:
        measured = "COVERAGE_PROCESS_START" in self._environment and not installed
        command = [sys.executable, "-c", FROM_SOURCES] if measured else ["./rust-mule"]
        with (
            (self.folder / "out").open("ab") as out,
            (self.folder / "err").open("ab") as err,
        ):
            return subprocess.Popen(
                [*command, "--help"],
                cwd=self.folder,
                env=self._environment | {"NO_COLOR": "1"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def end(self) -> None:
        """Let the process end in peace, so that coverage gets its data; else kill it."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def out(self) -> str:
        return (self.folder / "out").read_text()

    def err(self) -> str:
        return (self.folder / "err").read_text()

    def token(self) -> str:
        return (self.folder / "data" / "api.token").read_text()

    def edit(self, old: str, new: str) -> None:
        """Replace text in config.toml, as a user with an editor would."""
        path = self.folder / "config.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def raw(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(host, self.port, timeout=GUARD_S)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Call the API with the token; return status and decoded body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token()}"}
        status, _, answer = self.raw(method, f"/api/v1{path}", data, headers)
        return status, json.loads(answer)

    def get(self, path: str) -> Any:
        """Get what must be there."""
        status, answer = self.call("GET", path)
        assert status == 200, answer
        return answer

    def sources(self, file_id: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.get(f"/kad/sources/{file_id}")["sources"]
        return found

    def listening(self) -> bool:
        try:
            return self.raw("GET", "/api/v1/health")[0] == 200
        except OSError:
            return False

    def ready(self) -> bool:
        return self.listening() and self.call("GET", "/status")[0] == 200

    def interrupt(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(GUARD_S)


def wait_until(holds: Callable[[], bool]) -> None:
    """Return as soon as it holds; the deadline is a guard, not a pace."""
    deadline = time.monotonic() + GUARD_S
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)  # often enough, and below the rate limits


def tell(node: SimNode, *faults: str) -> None:
    """Order, and wait until the node obeys."""
    before = node.out().count("simulated fault")
    order(node.folder / "data", *faults)
    wait_until(lambda: node.out().count("simulated fault") >= before + len(faults))


def status_field(pid: int, name: str) -> str:
    """Read a line of the status of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


MakeNode = Callable[..., SimNode]
