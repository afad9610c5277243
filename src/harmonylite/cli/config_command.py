"""``harmonylite config``: check a configuration, write a commented one.

Invariant: secrets are masked in what is printed, and no file that exists is overwritten.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import rich_click as click

from harmonylite.cli.go_flags import GoCommand, GoGroup
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import print_json, remark
from harmonylite.errors import ConfigError


@click.group(cls=GoGroup)
def config() -> None:
    """Check a configuration, or write a commented one."""


@config.command(cls=GoCommand)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
@config_option
@click.pass_context
def check(ctx: click.Context, file: Path | None, as_json: bool) -> None:
    """Check FILE and print what is in effect, including environment and flags, secrets masked."""
    from harmonylite.config import effective, notes

    given = invocation(ctx)
    given.config = file or given.config
    databases = given.databases
    if as_json:
        found = [{"effective": tomllib.loads(effective(each)), "notes": list(notes(each))} for each in databases]
        named = {each.name: what for each, what in zip(databases, found, strict=True)}
        print_json({"databases": named} if databases[0].name else found[0])
        return
    for each in databases:
        click.echo((f"## database {each.name}\n\n" if each.name else "") + effective(each))
    for note in dict.fromkeys(
        f"{f'{each.name}: ' if each.name else ''}{note}" for each in databases for note in notes(each)
    ):
        remark(f"note: {note}")
    remark(f"{given.file or 'the configuration'} is fine")


@config.command(cls=GoCommand)
@click.argument("file", default="config.toml", type=click.Path(path_type=Path))
@json_option
def init(file: Path, as_json: bool) -> None:
    """Write a commented configuration to FILE ("-": standard output); never over an existing file."""
    from harmonylite.config import template

    if str(file) == "-":
        click.echo(template(), nl=False)
        return
    write_private(file, template())
    if as_json:
        print_json({"file": str(file)})
        return
    click.echo(f"wrote {file}; set db_path in it, then: harmonylite -config {file}")


def write_private(file: Path, text: str) -> None:
    """Write ``text`` to the new ``file``, readable by its owner only.

    :raises ConfigError: the file exists already, or can't be written.
    """
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(f"{file} exists already", advice="name another file, or remove it first") from None
    except OSError as error:
        raise ConfigError(f"can't write {file}: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text)
