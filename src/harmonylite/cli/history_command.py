"""``harmonylite history``: what happened to a row, when, and on which node.

Invariant: it says what the streams have forgotten, so an empty answer never looks like a row that was never written.
"""

from __future__ import annotations

import json
from typing import Any

import rich_click as click

from harmonylite.cli.go_flags import GoCommand
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import console, local_time, plain, print_below, print_json, remark, sql_text

SECONDS = 600.0
"""Time for reading a whole stream."""


@click.command(cls=GoCommand)
@click.argument("table_name", metavar="TABLE")
@click.argument("key", nargs=-1, required=True, metavar="KEY...")
@click.option("-limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most this many.")
@json_option
@config_option
@click.pass_context
def history(ctx: click.Context, table_name: str, key: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show what happened to one row of TABLE, the oldest first, as far back as the stream reaches.

    KEY is the value of its primary key, one word for each column; NULL and x'0a' are written as in SQL.
    """
    asked = {"table": table_name, "key": json.dumps(list(key)), "limit": limit}
    answer = invocation(ctx).control(SECONDS).get("/v1/history", asked)
    if as_json:
        print_json(answer)
    else:
        _show(answer)


def _show(answer: dict[str, Any]) -> None:
    out = console()
    for entry in answer.get("left_out", ()):
        remark(f"skipped: {plain(entry['reason'])}")
    first = ", ".join(f"{plain(shard)}:{seq}" for shard, seq in sorted(answer["first"].items()))
    if not answer["events"]:
        out.print(f"nothing happened to this row since position {first}, where the stream begins")
        return
    for event in answer["events"]:
        place = f"{event['shard']}:{event['seq']}"
        out.print(f"{local_time(event['at'])}  {plain(event['node'])}  {plain(event['kind'])}  {place}", style="bold")
        for column in dict.fromkeys([*event["after"], *event["before"]]):
            sides = [sql_text(event[side][column]) for side in ("before", "after") if column in event[side]]
            print_below(out, f"{plain(column)}: {' → '.join(sides)}", 4)
    out.print(f"the stream begins at position {first}; what was before it is in the snapshots only")
