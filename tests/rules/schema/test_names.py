"""Names reach SQL as names, and only our own prefix is ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.schema.sql import PRIVATE, is_private, quote, text

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(NAMES)
def test_a_quoted_name_ends_where_it_ends(name: str) -> None:
    quoted = quote(name)
    assert (quoted[0], quoted[-1]) == ('"', '"')
    assert '"' not in quoted[1:-1].replace('""', "")
    assert quoted[1:-1].replace('""', '"') == name


@given(NAMES)
def test_a_quoted_text_ends_where_it_ends(value: str) -> None:
    quoted = text(value)
    assert (quoted[0], quoted[-1]) == ("'", "'")
    assert "'" not in quoted[1:-1].replace("''", "")
    assert quoted[1:-1].replace("''", "'") == value


def test_a_name_with_nul_is_refused_for_sqlite_would_cut_it_off() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote('a\0"; DROP TABLE t')


@pytest.mark.parametrize(
    "name",
    ["t_harmonylite_users", "__harmonylite", "__harmonylite_", "__Harmonylite__log", "_harmonylite__log",
     " __harmonylite__log", "xxharmonyliteyylog", "", "__harmonylit___log"],
)  # fmt: skip
def test_a_name_that_looks_like_ours_is_not(name: str) -> None:
    assert not is_private(name)


@given(st.text())
def test_a_name_with_our_prefix_is_ours(rest: str) -> None:
    assert is_private(PRIVATE + rest)
