"""Tests of soakd.bundle.redact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.bundle.destinations import Pseudonyms
from soakd.bundle.needles import DESTINATION
from soakd.bundle.redact import Redactor
from soakd.bundle.spec import Secret

TOKEN = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
KEY = "Ab9~-" * 73
PUBLIC = "P" * 516
ODD = "an odd token, with blanks"


def masked_in_pieces(redactor: Redactor, data: bytes, sizes: list[int]) -> bytes:
    """Feed `data` in pieces of the given sizes, over and over."""
    masker = redactor.masker()
    out = b""
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        out += masker.feed(data[at : at + size])
        at += size
        turn += 1
    return out + masker.finish()


def test_marker_has_the_length_of_the_value_and_names_its_kind() -> None:
    """A token becomes `[redacted:token]` and stars, and nothing else moves."""
    out = Redactor([Secret("token", TOKEN)]).data(f"a {TOKEN} b".encode())
    assert out == b"a [redacted:token]" + b"*" * 48 + b" b"


@pytest.mark.parametrize("form", [TOKEN, TOKEN.upper(), TOKEN.title()])
def test_hexadecimal_is_found_in_the_case_it_has_and_in_both_pure_ones(form: str) -> None:
    """The program reuses an upper-case token as it is, and logs may show either."""
    redactor = Redactor([Secret("token", form)])
    for spelt in (form, form.lower(), form.upper()):
        assert spelt not in redactor.text(f"<{spelt}>")


def test_every_split_of_a_stream_gives_the_same() -> None:
    """A value that lies across a chunk border is found wherever the border is."""
    redactor = Redactor([Secret("token", TOKEN), Secret("key", KEY)])
    data = f"x{TOKEN}{KEY}y{TOKEN}".encode()
    whole = redactor.data(data)
    assert TOKEN.encode() not in whole
    assert KEY.encode() not in whole
    for split in range(1, len(data)):
        assert masked_in_pieces(redactor, data, [split, len(data)]) == whole


def test_byte_by_byte_gives_the_same() -> None:
    """The smallest chunks there are."""
    redactor = Redactor([Secret("token", TOKEN)])
    data = f"{TOKEN}..{TOKEN[:40]}..{TOKEN}".encode()
    assert masked_in_pieces(redactor, data, [1]) == redactor.data(data)


def test_overlapping_values_are_all_masked() -> None:
    """The end of one value may be the beginning of another."""
    first, second = "a" * 20 + "b" * 20, "b" * 20 + "c" * 20
    out = Redactor([Secret("token", first), Secret("key", second)]).text(
        "." + "a" * 20 + "b" * 20 + "c" * 20 + "."
    )
    assert out == ".[redacted:token]" + "*" * 24 + "*" * 20 + "."


def test_a_value_that_repeats_into_itself_is_one_stretch() -> None:
    """Sixty-five equal characters hold a value of sixty-four twice."""
    out = Redactor([Secret("token", "7" * 64)]).data(b"7" * 100)
    assert out == b"[redacted:token]" + b"*" * 84


def test_short_values_are_no_secrets() -> None:
    """A mangled file must not blot out every `a` of a log."""
    assert Redactor([Secret("token", "a")]).text("banana") == "banana"


@pytest.mark.parametrize("sizes", [[1], [7], [64], [1 << 20]])
def test_key_behind_priv_is_masked_without_being_known(sizes: list[int]) -> None:
    """The SAM bridge's answers stand in debug logs with keys that were replaced since."""
    data = f"DEST REPLY PUB={PUBLIC} PRIV={PUBLIC}{KEY}\nnext".encode()
    out = masked_in_pieces(Redactor(), data, sizes)
    assert len(out) == len(data)
    assert KEY.encode() not in out
    assert out.startswith(f"DEST REPLY PUB={PUBLIC} PRIV=[redacted:key]**".encode())
    assert out.endswith(b"*\nnext")


@pytest.mark.parametrize("sizes", [[1], [13], [1 << 20]])
def test_destination_stays_readable_and_the_key_behind_it_does_not(sizes: list[int]) -> None:
    """Public destinations are what a log is about; private keys begin with one."""
    data = f"RESULT=OK DESTINATION={PUBLIC}{'x' * 12}{KEY}\nFROM DESTINATION={PUBLIC} ok".encode()
    out = masked_in_pieces(Redactor(), data, sizes)
    assert len(out) == len(data)
    assert KEY.encode() not in out
    assert out.count(PUBLIC.encode()) == 2
    assert out.endswith(b" ok")


def test_destinations_get_steady_pseudonyms_of_the_same_length() -> None:
    """The same peer is the same everywhere, in names too; its neighbours stay as they are."""
    redactor = Redactor((), Pseudonyms(b"k"))
    data = f'{{"udp_dest_b64":"{PUBLIC}"}}\nDESTINATION={PUBLIC} SIZE=5\n'.encode()
    out = redactor.data(data)
    assert len(out) == len(data)
    name = redactor.pseudonyms.of(PUBLIC.encode()) if redactor.pseudonyms is not None else b""
    assert out.count(name.ljust(516, b"*")) == 2
    assert out.startswith(b'{"udp_dest_b64":"[dest:')
    assert out.endswith(b" SIZE=5\n")
    assert redactor.text(PUBLIC) == name.decode().ljust(516, "*")


def test_a_known_destination_is_found_without_length_or_certificate() -> None:
    """In the middle of a run: its value is known by the key file."""
    redactor = Redactor([Secret(DESTINATION, PUBLIC), Secret("key", KEY)], Pseudonyms(b"k"))
    out = redactor.text(f"x{PUBLIC}{KEY} y")
    assert out.startswith("x[dest:")
    assert "*[redacted:key]*" in out
    assert out.endswith("* y")
    kept = Redactor([Secret(DESTINATION, PUBLIC), Secret("key", KEY)])
    assert kept.text(f"x{PUBLIC} y") == f"x{PUBLIC} y"


def test_an_unknown_key_behind_a_destination_is_masked() -> None:
    """It is longer than any destination, and begins with one: only a private key does."""
    public = "Q" * 512 + "AAAA"
    for pseudonyms in (None, Pseudonyms()):
        out = Redactor((), pseudonyms).text(f"generated {public}{KEY}\n")
        assert KEY not in out
        assert (public in out) is (pseudonyms is None)
        assert "[redacted:key]" in out


@pytest.mark.parametrize("sizes", [[1 << 14], [100_000], [1 << 20]])
def test_a_run_without_end_is_masked_in_parts(sizes: list[int]) -> None:
    """Memory is bounded also where no blank ever comes; a key may go on for a megabyte."""
    redactor = Redactor([Secret("token", TOKEN), Secret("token", "7" * 64)])
    data = ("PRIV=" + "k" * 300_000 + " " + "x" * 99_000 + TOKEN + "x" * 99_000).encode()
    out = masked_in_pieces(redactor, data, sizes)
    assert len(out) == len(data)
    assert out[:25] == b"PRIV=[redacted:key]******"
    assert b"k" * 16 not in out.removeprefix(b"PRIV=[redacted:key]")
    assert TOKEN.encode() not in out
    assert out.count(b"x") == 198_000
    assert masked_in_pieces(redactor, b"7" * 200_000, sizes).count(b"7") == 0


@pytest.mark.parametrize("sizes", [[1], [9], [30], [1 << 20]])
def test_unknown_tokens_behind_their_words_are_masked(sizes: list[int]) -> None:
    """A header or a cookie in a debug log, of a token that was replaced since."""
    data = f"Authorization: Bearer {OTHER}\nCookie: rm_session={TOKEN}; x\nBearer short".encode()
    out = masked_in_pieces(Redactor(), data, sizes)
    stars = b"[redacted:token]" + b"*" * 48
    assert out == b"Authorization: Bearer %b\nCookie: rm_session=%b; x\nBearer short" % (
        stars,
        stars,
    )


def test_words_without_values_change_nothing() -> None:
    """`PRIV=` and `DESTINATION=` with nothing, or only a destination, behind them."""
    text = f"PRIV= DESTINATION= DESTINATION={PUBLIC}\nDESTINATION=${{x}}"
    assert Redactor().text(text) == text


def test_names_that_are_not_utf8_survive() -> None:
    """File names are bytes; what is not a secret comes back as it was."""
    name = b"caf\xe9-" + TOKEN.encode()
    text = name.decode("utf-8", "surrogateescape")
    out = Redactor([Secret("token", TOKEN)]).text(text)
    assert out.encode("utf-8", "surrogateescape").startswith(b"caf\xe9-[redacted:token]")


@pytest.mark.unmeasured
@given(
    pieces=st.lists(
        st.one_of(
            st.sampled_from(
                [TOKEN, OTHER, KEY, "PRIV=", "DESTINATION=", "Bearer ", PUBLIC, " ", "\n", ODD]
            ),
            st.text("ab0189~PRIV=", max_size=40),
        ),
        max_size=12,
    ),
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5),
)
def test_no_value_survives_any_stream(pieces: list[str], sizes: list[int]) -> None:
    """Whatever surrounds the values and however the stream is cut, none gets through."""
    redactor = Redactor(
        [Secret("token", value) for value in (TOKEN, OTHER, ODD)] + [Secret("key", KEY)],
        Pseudonyms(b"k"),
    )
    data = "".join(pieces).encode()
    out = masked_in_pieces(redactor, data, sizes)
    assert len(out) == len(data)
    assert out == redactor.data(data)
    for value in (TOKEN, OTHER, KEY, ODD):
        assert value.encode() not in out
