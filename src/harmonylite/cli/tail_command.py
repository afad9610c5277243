"""``harmonylite tail``: changes, live; ``harmonylite wait``: return once the node has reached a position.

Invariant: a position is printed or kept once everything up to it was.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import rich_click as click

from harmonylite.cli.feed_hook import Hook
from harmonylite.cli.given import Invocation
from harmonylite.cli.go_flags import GoCommand
from harmonylite.cli.invocation import config_option, invocation, json_option, timeout_option
from harmonylite.cli.output import console, key_text, local_time, plain, print_json, remark, sql_text
from harmonylite.client.blocking import SILENT_SECONDS, Patience
from harmonylite.client.control_answers import FeedAnswer
from harmonylite.client.control_client import refusal
from harmonylite.errors import NotAnsweringError, NotRunningError

GRACE = 15.0
"""Seconds that the answer may take longer than the time that the node was given."""

VERBS = {"insert": "+", "update": "~", "delete": "-"}


@click.command(cls=GoCommand)
@click.option("-table", "table_name", metavar="T", help="Only changes of this table.")
@click.option("-from", "start", metavar="P", default="now", show_default=True, help="A position, or start, or now.")
@click.option("-limit", type=click.IntRange(1), metavar="N", help="Exit after this many transactions.")
@click.option(
    "-exec",
    "command",
    metavar="CMD",
    default="",
    help="Run CMD for each entry, with the entry as JSON on its standard input.",
)
@click.option(
    "-keep",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Continue from the position in FILE, and store it there; without the file, begin at -from.",
)
@json_option
@config_option
@click.pass_context
def tail(
    ctx: click.Context, /, table_name: str | None, start: str, limit: int | None, as_json: bool, **hook: Any
) -> None:
    """Show transactions live, with the values before and after, until Ctrl-C.

    They come in the order of the streams, once this node has them. -json prints one per line. If a command of -exec
    fails, tail exits; with -keep the next start begins with that entry.
    """
    hooked = Hook(hook["command"], hook["keep"])
    start = hooked.start(start)
    control = invocation(ctx).control(SILENT_SECONDS)
    left, whole = limit, True
    try:
        for entry in control.lines("/v1/changes", {"from": start, "table": table_name}, FeedAnswer):
            if "error" in entry:
                raise refusal(entry["error"], entry.get("exit_code", 1))
            if as_json:
                print_json(entry, lines=True)
            elif not hooked.command:
                _show(entry, head=whole)
            hooked.take(entry)
            if entry["changes"]:
                whole = entry["position"] is not None
                left = left - 1 if left is not None and whole else left
            if left == 0:
                return
    except KeyboardInterrupt:
        ctx.exit(0)
    raise NotAnsweringError("the node ended the feed: it stops", advice="start again -from the last position")


def _show(entry: dict[str, Any], *, head: bool) -> None:
    out = console()
    if skipped := entry.get("skipped"):
        remark(f"skipped: {plain(skipped)}")
    if entry["changes"] and head:
        out.print(f"{local_time(entry['at'])}  {plain(entry['origin'])}", style="bold", soft_wrap=True)
    for change in entry["changes"]:
        row = f"  {VERBS.get(change['kind'], '?')} {plain(change['table'])} {key_text(change['key'])}"
        out.print(row, soft_wrap=True)
        for column in dict.fromkeys([*change["after"], *change["before"]]):
            if column in change["key"]:
                continue
            sides = [sql_text(change[side][column]) for side in ("before", "after") if column in change[side]]
            out.print(f"      {plain(column)}: {' → '.join(sides)}", soft_wrap=True)


give_up_option = timeout_option("Give up after so many seconds, with exit code 13.")


@click.command(cls=GoCommand)
@click.option("-caught-up", is_flag=True, help="Until this node has everything that is in the streams now.")
@click.option("-position", metavar="P", help="Until this node has everything up to this position.")
@give_up_option
@json_option
@config_option
@click.pass_context
def wait(ctx: click.Context, caught_up: bool, position: str | None, seconds: float, as_json: bool) -> None:
    """Wait until the node's database has everything that the streams have now, or everything up to a position.

    Also waits for a node that is starting. Prints the position that it has reached.
    """
    if caught_up == (position is not None):
        raise click.UsageError("give one of -caught-up and -position P")
    answer = _waited(invocation(ctx), position, seconds)
    print_json(answer) if as_json else click.echo(plain(answer["position"]))


def _waited(given: Invocation, position: str | None, seconds: float) -> dict[str, Any]:
    patience = Patience(seconds)
    while True:
        try:
            query = {"position": position, "seconds": patience.left}
            return given.control(patience.left + GRACE).get("/v1/wait", query)
        except (NotRunningError, NotAnsweringError) as error:  # also the node's own, while it begins to replicate
            pause = patience.failed(error)
        time.sleep(pause)


@click.command(cls=GoCommand)
@give_up_option
@json_option
@config_option
@click.pass_context
def position(ctx: click.Context, seconds: float, as_json: bool) -> None:
    """Print a position that covers everything committed here before, for `wait -position` on another node."""
    answer = invocation(ctx).control(seconds + GRACE).get("/v1/position", {"seconds": seconds})
    print_json(answer) if as_json else click.echo(plain(answer["position"]))
