"""``harmonylite completion``: print a completion script for commands and flags.

Invariant: click generates the script, so it knows every command and flag.
"""

from __future__ import annotations

import rich_click as click
from click.shell_completion import get_completion_class

from harmonylite.cli.go_flags import GoCommand

SHELLS = ("bash", "zsh", "fish")
NAME = "harmonylite"


@click.command(cls=GoCommand)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands and flags in SHELL: bash, zsh or fish.

    For bash: eval "$(harmonylite completion bash)" in ~/.bashrc.
    """
    found = get_completion_class(shell)
    assert found is not None, shell
    click.echo(found(ctx.find_root().command, {}, NAME, f"_{NAME.upper()}_COMPLETE").source())
