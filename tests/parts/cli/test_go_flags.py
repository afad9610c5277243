"""Flags are read as Go reads them, whatever the number of dashes."""

from __future__ import annotations

import pytest
import rich_click as click
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.cli.go_flags import FALSE, TRUE, plain_arguments

OPTIONS = [
    click.Option(["-config"]),
    click.Option(["-cleanup"], is_flag=True),
    click.Option(["-node-id"]),
    click.Option(["-o", "file"]),
]


def plain(*words: str, mixed: bool = False) -> list[str]:
    """Return what click would be given."""
    return plain_arguments(OPTIONS, words, mixed=mixed)


@given(st.sampled_from(["-", "--"]), st.text(min_size=1, max_size=8), st.booleans())
def test_every_form_of_a_flag_is_the_same(dashes: str, value: str, attached: bool) -> None:
    words = [f"{dashes}config={value}"] if attached else [f"{dashes}config", value]
    assert plain(*words) == [f"-config={value}"]


@pytest.mark.parametrize("value", sorted(TRUE))
def test_a_switch_is_on_by_every_word_that_go_knows(value: str) -> None:
    assert plain("-cleanup") == plain(f"--cleanup={value}") == ["-cleanup"]


@pytest.mark.parametrize("value", sorted(FALSE))
def test_a_switch_is_off_by_every_word_that_go_knows(value: str) -> None:
    assert plain(f"-cleanup={value}") == plain("-cleanup", f"--cleanup={value}") == []


def test_a_switch_takes_no_word_after_it() -> None:
    assert plain("-cleanup", "status", "-cleanup") == ["-cleanup", "status", "-cleanup"]


def test_a_value_may_begin_with_a_dash() -> None:
    assert plain("-node-id", "-x", "-o", "-y") == ["-node-id=-x", "-o-y"]


def test_flags_stand_before_a_groups_command_and_anywhere_in_a_command() -> None:
    assert plain("status", "-config", "x") == ["status", "-config", "x"]
    assert plain("status", "-config", "x", "-1", mixed=True) == ["status", "-config=x", "-1"]
    assert plain("--", "-config", mixed=True) == ["--", "-config"]


@pytest.mark.parametrize("word", ["-confg", "--confg", "-confg=x", "-c"])
def test_a_typo_is_named_and_not_taken_apart(word: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        plain(word, "x")
    assert word.partition("=")[0] in caught.value.format_message()
    assert word == "-c" or "Did you mean -config?" in caught.value.format_message()


def test_a_switch_with_another_value_is_refused() -> None:
    with pytest.raises(click.UsageError, match="write -cleanup, -cleanup=true or -cleanup=false"):
        plain("-cleanup=yes")
