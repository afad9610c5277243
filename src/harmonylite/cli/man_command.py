"""``harmonylite man``: print the manual page, made from the same texts as -help.

Invariant: every command and flag that -help shows is in it, hidden ones are not.
"""

from __future__ import annotations

from collections.abc import Iterator

import rich_click as click

from harmonylite.cli.go_flags import GoCommand

HEAD = r""".\" Made by: harmonylite man
.TH HARMONYLITE 1 "" "" "HarmonyLite"
.SH NAME
harmonylite \- replicate an SQLite file that is written to everywhere
.SH SYNOPSIS
.B harmonylite
[\fIflags\fR] [\fIcommand\fR]
.SH DESCRIPTION"""

FILES = r""".SH FILES
.TP
.I config.toml
The configuration, where \fB\-config\fR names no other one. \fBharmonylite config init\fR writes a commented one.
.TP
.IR mirror/ ", " nats/
Beside the database: the mirror and the node's private files, and those of the embedded nats-server."""


@click.command(cls=GoCommand)
@click.pass_context
def man(ctx: click.Context) -> None:
    """Print the manual page: harmonylite man | man -l -"""
    click.echo(man_page(ctx.find_root().command))


def man_page(root: click.Command) -> str:
    """Return the manual page of the command line ``root``, for man(1)."""
    lines = [HEAD, *_paragraphs(root.help or ""), ".SH FLAGS", *_flags(root), ".SH COMMANDS"]
    for name, command in _commands(root, ()):
        words = " ".join((*name, *(f"[{each.human_readable_name}]" for each in _arguments(command))))
        lines += [".SS", f"harmonylite {_plain(words)}", *_paragraphs(command.help or ""), *_flags(command)]
    return "\n".join([*lines, FILES])


def _commands(group: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below ``group`` that does something, with the words that name it, in the alphabet's order."""
    for name, command in sorted(group.commands.items() if isinstance(group, click.Group) else ()):
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _arguments(command: click.Command) -> list[click.Parameter]:
    return [each for each in command.params if isinstance(each, click.Argument)]


def _flags(command: click.Command) -> Iterator[str]:
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            value = "" if option.is_flag else rf" \fI{_plain(option.metavar or option.name or 'value')}\fR"
            yield from (".TP", rf"\fB{_plain(option.opts[0])}\fR{value}", _plain(option.help or ""))


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text, each on a line."""
    for paragraph in text.strip().split("\n\n"):
        yield from (".PP", _plain(" ".join(paragraph.split())))


def _plain(text: str) -> str:
    """Return ``text`` with what troff reads as its own escaped."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("`", "")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
