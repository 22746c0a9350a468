from __future__ import annotations

import os
from pathlib import Path

import pytest

from soakd.simnode.tracing import DEBUG, ERROR, INFO, WARN, LogFile, Shown, Tracing, level_of


@pytest.mark.parametrize(
    ("environment", "configured", "level"),
    [
        (None, "warn", WARN),
        ("", "warn", WARN),
        ("debug", "warn", DEBUG),
        ("info,rust_mule=debug", "warn", DEBUG),
        ("hyper=debug", "warn", ERROR),
        ("loud", "warn", INFO),
    ],
)
def test_the_environment_overrides_the_configured_level(
    environment: str | None, configured: str, level: int
) -> None:
    """An invalid filter silently becomes the default."""
    assert level_of(environment, configured, INFO) == level


def test_lines_have_the_shape_of_the_real_program(capfd: pytest.CaptureFixture[str]) -> None:
    """Strings are quoted, other values bare."""
    tracing = Tracing(stdout_level=INFO, file_level=INFO, colour=False, file=None)
    tracing.info("app", "hello", event="x", n=1, ok=True, addr=Shown("[::1]:1"))
    tracing.debug("app", "unseen")
    line = capfd.readouterr().out
    assert line[26:] == 'Z  INFO rust_mule::app: hello event="x" n=1 ok=true addr=[::1]:1\n'


def test_colours_go_to_stdout_and_not_to_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Colours even into a pipe, and inside key=value."""
    file = LogFile(str(tmp_path), "mule.log")
    Tracing(stdout_level=INFO, file_level=DEBUG, colour=True, file=file).warn("app", "hi", n=1)
    assert "\x1b[3mn\x1b[0m\x1b[2m=\x1b[0m1" in capfd.readouterr().out
    (written,) = tmp_path.glob("mule.????-??-??.log")
    assert written.read_text().endswith("Z  WARN rust_mule::app: hi n=1\n")


def test_log_files_older_than_thirty_days_are_deleted(tmp_path: Path) -> None:
    """Only files of our own name."""
    for name in ("mule.2020-01-01.log", "other.2020-01-01.log", "mule.2999-01-01.log", "mule.log"):
        (tmp_path / name).touch()
    LogFile(str(tmp_path), "mule.log")
    assert sorted(os.listdir(tmp_path)) == [
        "mule.2999-01-01.log",
        "mule.log",
        "other.2020-01-01.log",
    ]
