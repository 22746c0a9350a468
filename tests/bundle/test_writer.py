"""Tests of soakd.bundle.writer and soakd.bundle.search: what would leave is searched."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from soakd.bundle.needles import DESTINATION, Needles
from soakd.bundle.redact import Masker, Redactor
from soakd.bundle.search import Search, SecretLeftError, is_binary, is_compressed
from soakd.bundle.spec import Secret
from soakd.bundle.spellings import spellings
from soakd.bundle.writer import BundleWriter

TOKEN = "0123456789abcdef" * 4
KEY = "Ab9~-x" * 61


@pytest.fixture
def output(tmp_path: Path) -> Iterator[int]:
    """Return the descriptor of an empty file."""
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def _search(*, raw: bool = False) -> Search:
    needles = Needles()
    for secret in (Secret("token", TOKEN), Secret("key", KEY), Secret(DESTINATION, "Q" * 516)):
        needles.add(secret)
    return Search(needles, raw=raw)


@pytest.mark.parametrize("value", [TOKEN, KEY])
def test_every_spelling_is_found_wherever_pieces_end(value: str) -> None:
    """Also where it lies across the border of two pieces, or of three."""
    for form in sorted(spellings(value)):
        for step in (7, len(form) // 2, 1 << 20):
            data = b"a log line " + form + b" and more"
            search = _search()
            kinds = [search.feed(data[at : at + step]) for at in range(0, len(data), step)]
            assert any(kinds), form


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"DEST REPLY PRIV=" + b"u" * 16, "key"),
        (b"PRIV=[redacted:key]" + b"*" * 800, None),
        (b"Q" * 516, DESTINATION),
        (b"nothing " * 1000, None),
        (bytes.fromhex(TOKEN), None),
    ],
)
def test_what_is_found_and_what_is_not(data: bytes, kind: str | None) -> None:
    """An unknown key behind its word is; a marker is not; raw bytes only where asked for."""
    assert _search().feed(data) == kind


def test_raw_bytes_are_found_in_binaries() -> None:
    """As a program holds them in its memory."""
    assert _search(raw=True).feed(b"\0" + bytes.fromhex(TOKEN)) == "token"
    assert _search(raw=True).feed(base64.b64decode("Q" * 516)) == DESTINATION


@pytest.mark.parametrize("fault", ["feed", "finish"])
@pytest.mark.parametrize("form", [TOKEN.encode(), base64.b64encode(b"x" + TOKEN.encode())])
def test_a_secret_that_survives_the_redactor_ends_the_bundle(
    output: int, monkeypatch: pytest.MonkeyPatch, form: bytes, fault: str
) -> None:
    """Whatever bug let it through; what was written has no end and is no archive."""
    writer = BundleWriter(output, Redactor([Secret("token", TOKEN)]), 10)
    real = getattr(Masker, fault)

    def leak(self: Masker, *args: bytes) -> bytes:
        masked: bytes = real(self, *args)
        return form + masked[len(form) :] if masked else masked

    def contents() -> Iterator[bytes]:
        monkeypatch.setattr(Masker, fault, leak)
        yield b"harmless" * 100 + (b"\n" if fault == "feed" else b"")

    with pytest.raises(SecretLeftError, match="a token would have been left in mule-a/x"):
        writer.add("mule-a/x", 801, contents())
    assert form not in os.pread(output, 1 << 20, 0)


def test_a_secret_in_a_name_or_in_the_manifest_ends_the_bundle(
    output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They pass the same search."""
    redactor = Redactor([Secret("token", TOKEN)])
    monkeypatch.setattr(Redactor, "text", lambda _self, text: text)
    monkeypatch.setattr(Redactor, "data", lambda _self, data: data)
    with pytest.raises(SecretLeftError, match="in a name$"):
        BundleWriter(output, redactor, 10).add(f"log-{TOKEN}", 0, [])
    writer = BundleWriter(output, redactor, 10)
    writer.leave_out(TOKEN, "x")
    with pytest.raises(SecretLeftError, match=r"MANIFEST\.json"):
        writer.finish({})


@pytest.mark.parametrize(
    ("head", "binary", "compressed"),
    [
        (b"text\n", False, False),
        (b"", False, False),
        (b"\x7fELF\0", True, False),
        (b"x" * 9000 + b"\0", False, False),
        (b"\x1f\x8b\x08\0", True, True),
        (b"PK\x03\x04", False, True),
        (b"BZh91AY", False, True),
    ],
)
def test_kinds_of_files(head: bytes, *, binary: bool, compressed: bool) -> None:
    """By their first bytes: a log with a hole far behind is still a log."""
    assert (is_binary(head), is_compressed(head)) == (binary, compressed)
