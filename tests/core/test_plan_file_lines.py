"""Lines of keys in TOML: by hand, and against the standard library's reader."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.core.plan_file_lines import Place, find_lines
from tests.core.helpers import steady

DOCUMENT = '''\
# a comment with = and [brackets]
rounds = 3            # and one behind
"quoted key" = 'it\\'
a.b."c.d" = 1
gates = [  # comment ] in an array
  "x >= 1",
  """
  two = lines [ "
  """,
  'last',
]
points = [[1, 2], [
  3]]
inline = { x = 1, y = [ { z = "}" } ] }
when = 1979-05-27 07:32:00Z

[node]
[ node . a ]
source = """five quotes: ""\\""""
[node.a.env]
K = "="

[[list]]
name = 1
[list.sub]
deep = true
[[list]]
name = """"two quotes at the end"""""
[[list.inner]]
x = 1
'''


def test_keys_of_every_form_are_found_in_their_lines() -> None:
    """Comments, quotes, brackets and equals signs inside of texts mislead nobody."""
    lines = find_lines(DOCUMENT)
    wanted: dict[Place, int] = {
        ("rounds",): 2,
        ("quoted key",): 3,
        ("a",): 4,
        ("a", "b", "c.d"): 4,
        ("gates",): 5,
        ("gates", 0): 6,
        ("gates", 1): 7,
        ("gates", 2): 10,
        ("points", 1, 0): 13,
        ("inline", "y", 0, "z"): 14,
        ("when",): 15,
        ("node",): 17,
        ("node", "a"): 18,
        ("node", "a", "source"): 19,
        ("node", "a", "env", "K"): 21,
        ("list", 0, "name"): 24,
        ("list", 0, "sub", "deep"): 26,
        ("list", 1, "name"): 28,
        ("list", 1, "inner", 0, "x"): 30,
    }
    assert {place: lines.get(place) for place in wanted} == wanted


def places(value: object, at: Place = ()) -> Iterator[Place]:
    """Every place in what tomllib has read."""
    parts: Mapping[Any, object] = {}
    if isinstance(value, dict):
        parts = value
    elif isinstance(value, list):
        parts = dict(enumerate(value))
    for key, part in parts.items():
        yield (*at, key)
        yield from places(part, (*at, key))


@pytest.mark.parametrize("text", [DOCUMENT, DOCUMENT.replace("\n", "\r\n"), "", "# only", "a=1"])
def test_the_keys_are_those_that_the_reader_finds(text: str) -> None:
    """None is missed and none is made up, at whatever line ends."""
    assert set(find_lines(text)) == set(places(tomllib.loads(text)))


@pytest.mark.parametrize("text", ["a b", "= 1", "[a", "a = [1", "a = [}"])
def test_what_is_no_toml_is_a_fault_of_the_caller(text: str) -> None:
    """It is to be read by `tomllib` first; nothing is guessed, and nothing goes on for ever."""
    with pytest.raises((AssertionError, IndexError)):
        find_lines(text)


_keys = st.one_of(st.sampled_from("abc"), st.text("ab.\"\\'[=#\u00e4 ", max_size=5))
_scalars = st.one_of(
    st.sampled_from(["1", "-2.5e3", "true", "1979-05-27", "07:32:00", "''", "'#]'", "'''a'\n'''"]),
    st.text("a\"\\\n[]{}#=,'", max_size=8).map(json.dumps),
    st.text("a\n[]{}#=,' ", max_size=8).map(lambda text: f'"""{text}"""'),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[ # c\n " + " ,\n".join(items) + "\n]"),
        st.dictionaries(_keys, inner, max_size=3).map(
            lambda table: f"{{ {', '.join(f'{json.dumps(k)} = {v}' for k, v in table.items())} }}"
        ),
    ),
    max_leaves=6,
)
_tables = st.dictionaries(_keys, _values, max_size=3)


@given(_tables, st.dictionaries(_keys, _tables, max_size=3), st.lists(_tables, max_size=3))
@steady
def test_any_document_gives_the_readers_keys(
    top: dict[str, str], tables: dict[str, dict[str, str]], array: list[dict[str, str]]
) -> None:
    """Texts full of TOML's own marks included; each key stands in a line that names it."""
    parts = _pairs(top)
    for name, table in tables.items():
        parts += [f"[{json.dumps('t' + name)} ] # ]", *_pairs(table)]
    for table in array:
        parts += ["[[ array ]]", *_pairs(table)]
    text = "\n".join(parts)
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        # An inline table may not hold a value of several lines before TOML 1.1.
        return
    lines = find_lines(text)
    assert set(lines) == set(places(read))
    rows = text.split("\n")
    for place, line in lines.items():
        if isinstance(place[-1], str) and len(place) == 1 and place[0] in top:
            assert rows[line - 1].startswith(json.dumps(place[0]))


def _pairs(table: Mapping[str, str]) -> list[str]:
    return [f"{json.dumps(key)} = {value}" for key, value in table.items()]
