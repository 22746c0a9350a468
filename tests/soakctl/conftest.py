"""A fake soakd, and soakctl called as a user would call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soakctl.main import main
from tests.soakctl.fake_soakd import FakeSoakd

Soakctl = Callable[..., int]


@pytest.fixture
def soakd(short_dir: Path) -> Iterator[FakeSoakd]:
    """Return a fake daemon that listens in a short folder."""
    daemon = FakeSoakd(short_dir / "s.sock")
    yield daemon
    daemon.close()


@pytest.fixture
def soakctl(soakd: FakeSoakd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Soakctl:
    """Return a function that runs one command in an empty folder and gives its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOAKD_SOCKET", str(soakd.path))

    def call(*argv: str) -> int:
        try:
            return main(argv)
        except SystemExit as end:
            # argparse ends this way for --help and for usage errors
            return int(end.code or 0)

    return call
