"""``harmonylite snapshot``: let the running node save one."""

from __future__ import annotations

import rich_click as click

from harmonylite.cli.go_flags import GoCommand, GoGroup
from harmonylite.cli.invocation import Invocation, config_option, invocation, json_option
from harmonylite.cli.output import plain, print_json

SAVE_SECONDS = 3600.0
"""Time for one snapshot: large databases and slow stores take long."""


@click.group(cls=GoGroup)
def snapshot() -> None:
    """Save a snapshot."""


@snapshot.command(cls=GoCommand)
@json_option
@config_option
@click.pass_context
def save(ctx: click.Context, as_json: bool) -> None:
    """Let the running node save a snapshot now, and wait until it is stored."""
    ctx.exit(save_snapshot(invocation(ctx), as_json=as_json))


def save_snapshot(given: Invocation, *, as_json: bool) -> int:
    """Ask for a snapshot and say which it is; return the exit code."""
    answer = given.control(SAVE_SECONDS).post("/v1/snapshot")
    if as_json:
        print_json(answer)
        return 0
    positions = ", ".join(f"{shard}:{seq}" for shard, seq in sorted(dict(answer.get("positions") or {}).items()))
    click.echo(f"saved {plain(answer['name'])}, {answer['bytes']:,} bytes, at position {positions or '-'}")
    return 0
