"""Tests of soakd.bundle.spellings and soakd.bundle.needles."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.bundle.needles import DESTINATION, Hit, Needles, marks_of
from soakd.bundle.spec import Secret
from soakd.bundle.spellings import decoded, raw_forms, spellings

pytestmark = pytest.mark.unmeasured

TOKEN = "0123456789abcdef" * 4
KEY = "Ab9~-x" * 61

I2P = st.text("ABCabc0189-~", min_size=16, max_size=90)
HEX = st.text("0123456789abcdef", min_size=16, max_size=90)


def _is_spelt(value: str, text: bytes) -> bool:
    return any(form in text for form in spellings(value))


@given(value=st.one_of(I2P, HEX), before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_base64_of_any_text_around_the_value_is_known(
    value: str, before: bytes, after: bytes
) -> None:
    """Wherever the value begins: one of the three alignments is there, in both alphabets."""
    data = before + value.encode() + after
    assert _is_spelt(value, base64.b64encode(data))
    assert _is_spelt(value, base64.urlsafe_b64encode(data))


@given(value=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16))
def test_json_forms_are_known(value: str) -> None:
    """Old nodes take any token; one with quotes, in an answer that is kept in a line of JSON."""
    answer = json.dumps({"you_sent": value})
    assert _is_spelt(value, answer.encode())
    assert _is_spelt(value, json.dumps({"body": answer}).encode())


@given(value=st.one_of(I2P, HEX))
def test_hex_and_url_forms_are_known(value: str) -> None:
    """As Python, JavaScript and Java write them, in both cases."""
    data = value.encode()
    assert _is_spelt(value, data.hex().encode())
    assert _is_spelt(value, data.hex().upper().encode())
    quoted = urllib.parse.quote(value, safe="")
    assert _is_spelt(value, quoted.encode())
    assert _is_spelt(value, quoted.replace("~", "%7E").encode())
    assert _is_spelt(value, quoted.replace("~", "%7e").encode())
    assert _is_spelt(value, "".join(f"%{byte:02x}" for byte in data).encode())
    assert _is_spelt(value, "".join(f"%{byte:02X}" for byte in data).encode())


@pytest.mark.parametrize("length", [64, 76])
@pytest.mark.parametrize("value", [TOKEN, KEY])
@pytest.mark.parametrize("before", range(25))
def test_base64_in_lines_is_known_line_by_line(value: str, before: int, length: int) -> None:
    """As `base64` and mail programs break it: every full line of the value has a part of it."""
    text = base64.b64encode(b"-" * before + value.encode() + b"\n")
    lines = [text[at : at + length] for at in range(0, len(text), length)]
    needles = Needles()
    needles.add(Secret("token", value))
    data = b"\n".join(lines) + b"\n"
    hits = needles.find(data, marks_of(data))
    begin, end = before * 4 // 3 + 4, (before + len(value)) * 4 // 3 - 4
    for number, line in enumerate(lines):
        inside = range(max(begin, number * length), min(end, number * length + length))
        if len(line) < 64 or len(inside) < 40:
            continue
        at = number * (length + 1)
        found = sum(hit.end - hit.start for hit in hits if at <= hit.start < at + length)
        assert found > len(inside) - 40


def test_what_a_token_stands_for_is_known_too() -> None:
    """Its 32 bytes, in base64; and the token in either case, also when it was upper-case first."""
    raw = bytes.fromhex(TOKEN)
    assert raw_forms(TOKEN) == {raw}
    assert _is_spelt(TOKEN, base64.b64encode(b"x" + raw))
    assert _is_spelt(TOKEN.upper(), TOKEN.encode())
    assert _is_spelt(TOKEN, base64.b64encode(TOKEN.upper().encode()))
    assert raw_forms("0" * 17) == frozenset()


def test_what_a_key_stands_for_is_known_too() -> None:
    """In the standard alphabet, in hex, and as bytes."""
    raw = base64.b64decode(KEY.replace("-", "+").replace("~", "/") + "==")
    assert decoded(KEY) == raw
    assert raw_forms(KEY) == {raw}
    assert _is_spelt(KEY, base64.b64encode(raw))
    assert _is_spelt(KEY, base64.urlsafe_b64encode(raw))
    assert _is_spelt(KEY, raw.hex().encode())


@pytest.mark.parametrize("value", ["päßwörter-are-long", "two words of a mangled file", "A" * 17])
def test_odd_values_have_their_spellings_but_may_stand_for_nothing(value: str) -> None:
    """Old programs took any text as a token."""
    assert _is_spelt(value, value.encode())
    assert _is_spelt(value, base64.b64encode(value.encode()))
    assert raw_forms(value) == frozenset()


@given(
    values=st.lists(st.one_of(I2P, HEX, st.text("ab \n", min_size=16, max_size=20)), max_size=3),
    pieces=st.lists(st.tuples(st.integers(0, 200), st.sampled_from(" x=\n.\0\xff")), max_size=12),
)
def test_the_fast_search_finds_what_a_plain_one_finds(
    values: list[str], pieces: list[tuple[int, str]]
) -> None:
    """Every spelling, wherever it stands, and nothing else."""
    needles = Needles()
    forms: list[bytes] = []
    for value in values:
        needles.add(Secret("token", value))
        forms += sorted(spellings(value))
    data = b"".join(
        sign.encode("latin-1") * (place % 3 + 1) + (forms[place % len(forms)] if forms else b"")
        for place, sign in pieces
    )
    found = {at for hit in needles.find(data, marks_of(data)) for at in range(hit.start, hit.end)}
    plain = {
        at
        for form in forms
        for start in range(len(data))
        if data.startswith(form, start)
        for at in range(start, start + len(form))
    }
    assert found == plain


def test_destinations_are_looked_for_as_they_are() -> None:
    """They are no secret: other spellings of them are left alone, in binaries they count."""
    needles = Needles()
    destination = "Dest" * 129
    needles.add(Secret(DESTINATION, destination))
    needles.add(Secret("token", "too short"))
    data = b"x " + destination.encode()
    assert needles.find(data, marks_of(data)) == [Hit(2, 518, DESTINATION)]
    other = base64.b64encode(destination.encode())
    assert needles.find(other, marks_of(other)) == []
    raw = decoded(destination)
    assert raw is not None
    assert needles.find_raw(b"\0" + raw) == [Hit(1, 388, DESTINATION)]
