"""``harmonylite node``: the nodes that the cluster knows, and forgetting one that is permanently gone.

Invariant: a node that answers is never forgotten.
"""

from __future__ import annotations

import time
from typing import Any

import rich_click as click

from harmonylite.cli.go_flags import GoCommand, GoGroup
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import console, plain, print_json, table

WIDE = 100
"""Columns from which on the list has hosts, and times in full."""
FORGET_SECONDS = 30.0
"""Time to forget a node: it is asked first whether it answers."""


@click.group(cls=GoGroup)
def node() -> None:
    """List the nodes of the cluster, or forget one that is permanently gone."""


@node.command(cls=GoCommand, name="list")
@json_option
@config_option
@click.pass_context
def listing(ctx: click.Context, as_json: bool) -> None:
    """List all nodes that the cluster knows, including those that are gone."""
    answer = invocation(ctx).control().get("/v1/nodes")
    if as_json:
        print_json(answer)
        return
    out = console()
    wide = out.width >= WIDE
    shown = table(
        "node", "state", "last seen", ">behind", ">oldest", ">pending", "version", *(["host"] if wide else [])
    )
    for each in answer["nodes"]:
        shown.add_row(
            *(plain(each[name]) for name in ("node_id", "state")),
            _when(each["last_seen"], wide=wide),
            _number(each["lag_messages"]),
            "-" if each["lag_seconds"] is None else f"{each['lag_seconds']:.1f} s",
            _number(each["pending_rows"]),
            *(plain(each[name]) for name in ("version", *(["host"] if wide else []))),
        )
    out.print(shown)


@node.command(cls=GoCommand)
@click.argument("name")
@json_option
@config_option
@click.pass_context
def forget(ctx: click.Context, name: str, as_json: bool) -> None:
    """Forget the node NAME, on every node: `verify`, `doctor` and `status -cluster` no longer wait for it.

    Its rows and its history stay. Refused for a node that answers; one that comes back is known again by itself.
    """
    answer: dict[str, Any] = invocation(ctx).control(FORGET_SECONDS).post("/v1/forget", {"node": name})
    print_json(answer) if as_json else click.echo(f"{plain(answer['forgotten'])} is forgotten")


def _when(seconds: float, *, wide: bool) -> str:
    """Return a time, in a narrow terminal how long ago that was."""
    if not seconds or wide:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds)) if seconds else "-"
    from harmonylite.cli.status_view import duration

    return f"{duration(max(0.0, time.time() - seconds))} ago"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
