"""``harmonylite doctor``: the production checklist for this node.

Invariant: it reads only; a check that can't be made has its own row, and is never left out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import rich_click as click

from harmonylite.cli.given import Invocation
from harmonylite.cli.go_flags import GoCommand
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import console, plain, print_json, table
from harmonylite.errors import HarmonyLiteError, NotAnsweringError

if TYPE_CHECKING:
    from harmonylite.doctor import Row

NOT_READY = 11
"""Exit code when a row is a problem."""

STYLES = {"ok": "green", "advice": "yellow", "problem": "bold red", "unknown": "dim"}


@click.command(cls=GoCommand)
@click.option("-strict", is_flag=True, help="Exit with 11 for advice and unknown lines, too.")
@json_option
@config_option
@click.pass_context
def doctor(ctx: click.Context, strict: bool, as_json: bool) -> None:
    """Check this node against the production checklist: current state, recommendation, reason.

    Checks the configuration, the database, the machine and NATS, and the running node if there is one. Changes nothing.
    Exits with 0, or with 11 if a row is a problem.
    """
    from harmonylite.doctor import check, collect

    given = invocation(ctx)
    report, nodes, pid = _asked(given)
    rows = check(asyncio.run(collect(given.settings, report=report, nodes=nodes, pid=pid)))
    bad = [row for row in rows if row.level == "problem" or (strict and row.level != "ok")]
    if as_json:
        print_json({"good": not bad, "rows": [row.plain() for row in rows]})
    else:
        _show(rows)
    ctx.exit(NOT_READY if bad else 0)


def _asked(given: Invocation) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int]:
    """Return the running node's report, those of the nodes that it knows, and its process; nothing when none runs."""
    try:
        control = given.control()
        report = control.get("/v1/status")
    except NotAnsweringError as error:
        return {"ready": False, "waits": [error.message]}, [], 0
    except HarmonyLiteError:
        return None, [], 0
    try:
        nodes = list(control.get("/v1/cluster")["nodes"])
    except HarmonyLiteError:
        nodes = []
    return report, nodes, control.pid


def _show(rows: list[Row]) -> None:
    from rich.text import Text

    out = console()
    shown = table("", "what", "found", "recommended", "why")
    for row in rows:
        level = Text(row.level, STYLES[row.level])
        shown.add_row(level, plain(row.name), plain(row.found), plain(row.recommended), plain(row.why))
    out.print(shown)
    count = {level: sum(row.level == level for row in rows) for level in STYLES}
    out.print(", ".join(f"{number} {level}" for level, number in count.items() if number))
