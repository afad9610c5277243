"""``harmonylite skip``: the way on past a message that the node can't understand, or has no table for."""

from __future__ import annotations

import rich_click as click

from harmonylite.cli.go_flags import GoCommand
from harmonylite.cli.invocation import config_option, invocation


@click.command(cls=GoCommand)
@click.argument("shard", type=click.IntRange(min=0))
@click.argument("seq", type=click.IntRange(min=1))
@click.option("-yes", is_flag=True, help="Don't ask.")
@config_option
@click.pass_context
def skip(ctx: click.Context, shard: int, seq: int, yes: bool) -> None:
    """Leave out message SEQ of SHARD, at which the node is paused: it can't understand it, or has no table for it.

    What the message holds will be missing on this node; `harmonylite verify` shows what differs then. Run it on every
    node that is paused there.
    """
    control = invocation(ctx).control()
    if not yes:
        click.confirm(f"Leave out message {seq} of shard {shard} for ever on this node?", abort=True, err=True)
    control.post("/v1/skip", {"shard": shard, "seq": seq})
    click.echo(f"message {seq} of shard {shard} is left out; the node goes on")
