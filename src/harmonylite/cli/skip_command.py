"""``harmonylite skip``: leave out a message that the node can't understand, or has no table for; undo it.

Invariant: only the message at which the node is paused can be left out.
"""

from __future__ import annotations

from typing import Any

import rich_click as click

from harmonylite.cli.go_flags import GoCommand
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import console, local_time, plain, print_json, table

SECONDS = 600.0
"""How long leaving a message out, or applying it after all, may take: the mirror is copied first, or created again."""


@click.command(cls=GoCommand)
@click.argument("shard", type=click.IntRange(min=0), required=False)
@click.argument("seq", type=click.IntRange(min=1), required=False)
@click.option("-list", "listing", is_flag=True, help="List the messages that this node skipped and still lacks.")
@click.option("-undo", is_flag=True, help="Apply a skipped message, while the stream still has it.")
@click.option("-yes", is_flag=True, help="Don't ask.")
@json_option
@config_option
@click.pass_context
def skip(
    ctx: click.Context, shard: int | None, seq: int | None, listing: bool, undo: bool, yes: bool, as_json: bool
) -> None:
    """Leave out message SEQ of SHARD, at which the node is paused: it can't understand it, or has no table for it.

    Any other message is refused. All of the change set that the message belongs to is left out on this node, until
    `harmonylite verify -repair` has taken it from another node, or `-undo` from the stream.
    """
    if listing:
        if undo or shard is not None:
            raise click.UsageError("-list goes without -undo, SHARD and SEQ")
        answer = invocation(ctx).control().get("/v1/skip/list")
        print_json(answer) if as_json else _show(answer["left_out"])
        return
    if shard is None or seq is None:
        raise click.UsageError("SHARD and SEQ are missing; `harmonylite status` says where the node is paused")
    what = {"shard": shard, "seq": seq}
    control = invocation(ctx).control(SECONDS)
    if undo:
        answer, said = control.post("/v1/skip/undo", what), "is taken in"
    else:
        if not yes:
            click.confirm(f"Leave out message {seq} of shard {shard} on this node?", abort=True, err=True)
        answer, said = control.post("/v1/skip", what), "is skipped; the node continues"
    print_json(answer) if as_json else click.echo(f"message {seq} of shard {shard} {said}: {plain(answer['holds'])}")


def _show(entries: list[dict[str, Any]]) -> None:
    if not entries:
        console().print("no message is skipped")
        return
    shown = table("when", ">shard", ">message", "holds", "because")
    for entry in entries:
        cells = (plain(entry["shard"]), plain(entry["seq"]), plain(entry["holds"]), plain(entry["reason"]))
        shown.add_row(local_time(entry["at"]), *cells)
    console().print(shown)
