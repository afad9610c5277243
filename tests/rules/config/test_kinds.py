"""Lengths of time, addresses, and lines of keys: read right for every input."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.config.kinds import duration_ms, split_address
from harmonylite.config.toml_lines import key_lines
from harmonylite.config.write import toml

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(sorted(UNITS))), min_size=1, max_size=5))
def test_lengths_of_time_add_up(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert duration_ms(text) == sum(number * UNITS[unit] for number, unit in parts)


@given(st.text(max_size=8))
def test_no_text_is_misread_as_a_length_of_time(text: str) -> None:
    if text.strip()[:1].isdecimal() and text.strip().endswith(tuple(UNITS)):
        return
    with pytest.raises(ValueError, match="write for example"):
        duration_ms(text)


@given(st.sampled_from(["", "host", "127.0.0.1", "a.b"]), st.integers(-1, 65535))
def test_addresses_come_apart(host: str, port: int) -> None:
    assert split_address(f"{host}:{port}") == (host, port)


@pytest.mark.parametrize("text", ["host", "host:", "host:65536", "::1:4222", "host:-2", "host:²", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        split_address(text)


names = st.text("abcXYZ_-9é .\"'\\#=[]", min_size=1, max_size=6)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
values = st.one_of(scalars, st.lists(scalars, max_size=3))


@given(st.dictionaries(names, values, max_size=4), st.dictionaries(names, st.dictionaries(names, values), max_size=3))
def test_every_key_is_found_on_its_line(top: dict[str, Any], tables: dict[str, dict[str, Any]]) -> None:
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    tables = {name: table for name, table in tables.items() if name not in top}
    for name, value in top.items():
        lines += ["# a comment with [brackets] and a = b", f"{toml(name)} = {toml(value)}  # end"]
        expected[(name,)] = len(lines)
    for table, pairs in tables.items():
        lines += ["", f"[{toml(table)}]"]
        expected[(table,)] = len(lines)
        for name, value in pairs.items():
            lines.append(f"{toml(name)} = {toml(value)}")
            expected[(table, name)] = len(lines)
    text = "\n".join(lines)
    assert tomllib.loads(text) == top | tables
    assert key_lines(text) == expected


def test_lines_are_found_beside_every_shape_of_toml() -> None:
    text = '''a = """
not = "a key"
[nor a table]
"""
b.c = [ # one
  { d = 1, "e f" = ']' }, [2, '''
    text += """'''
g = 1
''']
]
'h.i' = { j.k = "}", l = [1] }
[[m]]
n = 1979-05-27T07:32:00Z
[[m]]
n = -inf # last
[ o . "p" ]
q=0x10"""
    tomllib.loads(text)
    found = key_lines(text)
    assert json.dumps({".".join(path): line for path, line in found.items()}) == json.dumps(
        {
            "a": 1,
            "b": 5,
            "b.c": 5,
            "b.c.d": 6,
            "b.c.e f": 6,
            "h.i": 10,
            "h.i.j": 10,
            "h.i.j.k": 10,
            "h.i.l": 10,
            "m": 11,
            "m.n": 12,
            "o": 15,
            "o.p": 15,
            "o.p.q": 16,
        }
    )
