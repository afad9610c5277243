"""Flags as Go's ``flag`` package reads them, for click: ``-name x``, ``-name=x``, ``--name x``, ``-switch=false``.

Invariant: arguments are brought into one form before click sees them, so that click's short options, which would read
``-confg x`` as ``-c onfg x``, never come into play. The rules are those of https://pkg.go.dev/flag.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import rich_click as click

TRUE = {"1", "t", "T", "TRUE", "true", "True"}
FALSE = {"0", "f", "F", "FALSE", "false", "False"}


class GoCommand(click.RichCommand):
    """A command with Go's flags, before and after its arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Bring ``args`` into click's form, then parse them."""
        return super().parse_args(ctx, plain_arguments(self.get_params(ctx), args, ctx=ctx, mixed=True))


class GoGroup(click.RichGroup):
    """A group of commands with Go's flags before the command's name."""

    command_class = GoCommand

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Bring ``args`` up to the command's name into click's form, then parse them."""
        return super().parse_args(ctx, plain_arguments(self.get_params(ctx), args, ctx=ctx, mixed=False))


def plain_arguments(
    parameters: Iterable[click.Parameter], args: Sequence[str], *, ctx: click.Context | None = None, mixed: bool
) -> list[str]:
    """Return ``args`` with every flag as ``-name`` or ``-name=value``, in the spelling that click knows.

    ``mixed``: flags may follow arguments; otherwise everything from the first argument on stays as it is.

    :raises click.UsageError: an unknown flag, or a switch with another value than true or false.
    """
    known = {
        name.lstrip("-"): (name, option)
        for option in parameters
        if isinstance(option, click.Option)
        for name in option.opts
    }
    plain: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*plain, word, *rest]
        if not _is_flag(word):
            if not mixed:
                return [*plain, word, *rest]
            plain.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name not in known:
            shown = "-" * min(2, len(word) - len(word.lstrip("-"))) + name
            raise click.NoSuchOption(shown, _unknown(shown, known), ctx=ctx)
        spelling, option = known[name]
        if option.is_flag:
            plain = _switched(plain, spelling, value if equals else "true", ctx)
        elif equals:
            plain.append(_joined(spelling, value))
        elif rest:
            plain.append(_joined(spelling, rest.pop(0)))
        else:
            plain.append(spelling)  # click says that the value is missing
    return plain


def _joined(spelling: str, value: str) -> str:
    # One word, so that a value may begin with a dash; click attaches a one-letter option's value without "=".
    return f"{spelling}={value}" if len(spelling) > 2 else f"{spelling}{value}"


def _unknown(shown: str, known: Iterable[str]) -> str:
    near = get_close_matches(shown.lstrip("-"), list(known), n=1)
    return f"No such option {shown}." + (f" Did you mean -{near[0]}?" if near else "")


def _is_flag(word: str) -> bool:
    # A lone dash is an argument, and so is a negative number.
    return len(word) > 1 and word.startswith("-") and not word[1:].isdecimal()


def _switched(plain: list[str], spelling: str, value: str, ctx: click.Context | None) -> list[str]:
    """Return ``plain`` with the switch on or off; the last word on a switch counts."""
    if value not in TRUE | FALSE:
        text = f"{spelling}={value}: this is a switch; write {spelling}, {spelling}=true or {spelling}=false"
        raise click.BadOptionUsage(spelling, text, ctx=ctx)
    others = [word for word in plain if word != spelling]
    return [*others, spelling] if value in TRUE else others
