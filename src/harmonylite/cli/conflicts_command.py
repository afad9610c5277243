"""``harmonylite conflicts``: the journal of values that were overruled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich_click as click

from harmonylite.cli.go_flags import GoCommand
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import console, key_text, local_time, plain, print_json, sql_text, table


@click.command(cls=GoCommand)
@click.option("-table", "table_name", metavar="T", help="Only of this table.")
@click.option("-limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most this many.")
@json_option
@config_option
@click.pass_context
def conflicts(ctx: click.Context, table_name: str | None, limit: int, as_json: bool) -> None:
    """Show values that were overruled by another node's change: what stays, what was overruled, newest first."""
    answer = invocation(ctx).control().get("/v1/conflicts", {"table": table_name, "limit": limit})
    if as_json:
        print_json(answer)
    else:
        _show(answer["conflicts"])


def _show(entries: Sequence[dict[str, Any]]) -> None:
    if not entries:
        console().print("no conflicts")
        return
    shown = table("when", "table", "row", "column", "kind", "stays", "from", "overruled", "from", ">position")
    for entry in entries:
        cells = [
            local_time(entry["at"]),
            plain(entry["table"]),
            key_text(entry["key"]),
            plain(entry["column"]),
            plain(entry["kind"]),
            sql_text(entry["winning"]),
            plain(entry["winner"] or "-"),
            sql_text(entry["overruled"]),
            plain(entry["loser"] or "-"),
            f"{entry['shard']}:{entry['seq']}",
        ]
        shown.add_row(*cells)
    console().print(shown)
