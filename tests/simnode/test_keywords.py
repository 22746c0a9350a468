from __future__ import annotations

import pytest

from soakd.simnode.keyword_jobs import keyword_of
from soakd.simnode.md4 import md4_hex


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (b"", "31d6cfe0d16ae931b73c59d7e0c089c0"),
        (b"abc", "a448017aaf21d8525fc10ae87aa6729d"),
        (b"1234567890" * 8, "e33b4ddc9c38f2199c3e7b164fcc0536"),
    ],
)
def test_md4_agrees_with_the_rfc(text: bytes, digest: str) -> None:
    """The vectors of RFC 1320."""
    assert md4_hex(text) == digest


def test_only_the_first_usable_word_of_a_query_counts() -> None:
    """Words under three bytes are dropped, case is."""
    keyword = keyword_of("a of [Ubuntu] linux.iso")
    assert keyword is not None
    assert keyword == ("ubuntu", md4_hex(b"ubuntu"))


def test_bytes_count_not_letters() -> None:
    """A word of two letters can have three bytes."""
    keyword = keyword_of("né")
    assert keyword is not None
    assert keyword.word == "né"


def test_a_query_without_a_usable_word_gives_none() -> None:
    """The API answers 400."""
    assert keyword_of("a, b. --") is None
