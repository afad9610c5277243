"""``harmonylite conflicts``: the journal of values that were overruled.

Invariant: values are shown as in SQL and shortened; `-json` has them whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich_click as click

from harmonylite.cli.go_flags import GoCommand
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import console, key_text, local_time, plain, print_below, print_json, sql_text


@click.command(cls=GoCommand)
@click.option("-table", "table_name", metavar="T", help="Only of this table.")
@click.option("-limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most this many.")
@json_option
@config_option
@click.pass_context
def conflicts(ctx: click.Context, table_name: str | None, limit: int, as_json: bool) -> None:
    """Show values that another node's change overruled: what stays, what was overruled, newest first."""
    answer = invocation(ctx).control().get("/v1/conflicts", {"table": table_name, "limit": limit})
    if as_json:
        print_json(answer)
    else:
        _show(answer["conflicts"])


def _show(entries: Sequence[dict[str, Any]]) -> None:
    if not entries:
        console().print("no conflicts")
        return
    out = console()
    for entry in entries:
        head = f"{local_time(entry['at'])}  {plain(entry['table'])} {key_text(entry['key'])}"
        out.print(head, style="bold")
        place = f"position {entry['shard']}:{entry['seq']}"
        print_below(out, f"{plain(entry['column'])} ({plain(entry['kind'])}, {place})", 2)
        for name, value, node in (("stays", "winning", "winner"), ("overruled", "overruled", "loser")):
            print_below(out, f"{name:<9}  {sql_text(entry[value])}  from {plain(entry[node] or '-')}", 4)
