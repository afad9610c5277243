"""Print for people or programs: results on standard output, remarks on standard error.

Invariant: nothing that comes from data reaches the terminal as markup or as an escape sequence.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LONGEST = 60
"""Characters of a value in a table; -json shows it whole."""

PIPED_WIDTH = 160
"""Columns where the output is no terminal and COLUMNS says nothing."""


def console() -> Console:
    """Return a console on standard output; piped, it writes plain text in wide lines."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else PIPED_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def print_below(out: Console, text: str, indent: int) -> None:
    """Print ``text`` indented, the lines that it is wrapped to as well."""
    from rich.padding import Padding
    from rich.text import Text

    out.print(Padding(Text(text), (0, 0, 0, indent), expand=False))


def remark(text: str) -> None:
    """Print ``text`` on standard error, without secrets."""
    from harmonylite.config import redact

    click.echo(redact(text), err=True)


def print_json(value: Any, *, lines: bool = False) -> None:
    """Print ``value`` as JSON; ``lines``: in one line."""
    # ASCII only: a lone surrogate in a name could not be printed otherwise.
    click.echo(json.dumps(value, indent=None if lines else 2))


def table(*heads: str) -> Table:
    """Return a table without lines; a head that begins with ``>`` makes its column be at the right."""
    from rich.table import Table

    made = Table(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    for head in heads:
        made.add_column(head.removeprefix(">"), justify="right" if head.startswith(">") else "left", overflow="fold")
    return made


def plain(value: object) -> str:
    """Return ``value`` as text that is safe to show."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def counted(number: int, what: str) -> str:
    """Return a number with the name of what is counted: ``1 row``, ``1,200 rows``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def sql_text(value: Any) -> str:
    """Return a value of the control API as it would be in SQL, shortened to `LONGEST` characters."""
    text = plain(_sql_literal(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _sql_literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case {"blob": hexadecimal}:
            return f"x'{hexadecimal}'"
        case {"raw_text": hexadecimal} | {"text_hex": hexadecimal}:
            return f"CAST(x'{hexadecimal}' AS TEXT)"
        case {"real": text}:
            return str(text)
        case str():
            quoted = value.replace("'", "''")
            return f"'{quoted}'"
    return str(value)


def key_text(key: Mapping[str, Any]) -> str:
    """Return a row's key as ``column=value`` pairs."""
    return " ".join(f"{plain(column)}={sql_text(value)}" for column, value in key.items())


def local_time(seconds: float) -> str:
    """Return a time (seconds since the epoch) in the machine's time zone; "-" for 0."""
    if not seconds:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
