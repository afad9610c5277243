"""``harmonylite nkey``: make an NKey for a user of NATS, and show its public half.

Invariant: a seed is written to a new file that only its owner can read, or to standard output when no file is named;
it is never part of an error.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import rich_click as click

from harmonylite.cli.config_command import write_private
from harmonylite.cli.go_flags import GoCommand, GoGroup
from harmonylite.cli.invocation import json_option
from harmonylite.cli.output import print_json, remark
from harmonylite.errors import ConfigError

# A seed file may hold remarks, and a .creds file holds the seed between lines of dashes.
SEED = re.compile(rb"(?m)^\s*(S[A-Z][A-Z2-7]{56})\s*$")


@click.group(cls=GoGroup)
def nkey() -> None:
    """Make an NKey for logging in to NATS, or show the public half of one."""


@nkey.command(cls=GoCommand)
@click.option("-o", "file", type=click.Path(path_type=Path), metavar="FILE", help="Write the seed to this new file.")
@json_option
def generate(file: Path | None, as_json: bool) -> None:
    """Make a user's NKey, as `nk -gen user` does.

    With -o the seed goes to FILE (mode 0600) and the public key to standard output; without, the seed goes to standard
    output and the public key to standard error.
    """
    import nkeys  # type: ignore[import-untyped]  # it has no stubs

    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    text = seed.decode()
    if file is None:
        if as_json:
            print_json({"seed": text, "public_key": public_key(seed)})
            return
        click.echo(text)
        remark(f"public key: {public_key(seed)}")
        return
    write_private(file, f"{text}\n")
    print_json({"file": str(file), "public_key": public_key(seed)}) if as_json else click.echo(public_key(seed))


@nkey.command(cls=GoCommand)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def public(file: Path, as_json: bool) -> None:
    """Show the public key of the seed in FILE, as `nk -inkey FILE -pubout` does."""
    try:
        text = file.read_bytes()
        mode = file.stat().st_mode
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror}") from None
    if not (found := SEED.search(text)):
        raise ConfigError(f"{file} holds no NKey seed", advice="make one with `harmonylite nkey generate -o FILE`")
    key = public_key(found[1], file)
    print_json({"file": str(file), "public_key": key}) if as_json else click.echo(key)
    if mode & 0o077:
        remark(f"{file} can be read by others; run: chmod 600 {file}")


def public_key(seed: bytes, file: Path | None = None) -> str:
    """Return the public key of ``seed``; raise ConfigError, naming ``file``, when it is damaged."""
    from harmonylite.nats.credentials import key_pair

    try:
        return bytes(key_pair(seed).public_key).decode()
    except ValueError as error:
        raise ConfigError(f"{file} holds a damaged NKey seed: {error}") from None
