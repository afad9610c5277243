"""``harmonylite verify``: do database, mirror and all nodes agree?

Invariant: the exit code is 0 only when every node that was asked holds the same.
"""

from __future__ import annotations

from typing import Any

import rich_click as click

from harmonylite.cli.go_flags import GoCommand
from harmonylite.cli.invocation import config_option, invocation, json_option, timeout_option
from harmonylite.cli.output import console, counted, plain, print_json, table
from harmonylite.errors import VerifyError

GRACE = 15.0
"""Seconds that the answer may take longer than the time that the node was given."""


@click.command(cls=GoCommand)
@click.option("-repair", is_flag=True, help="Repair what differs on this node, from its mirror and from the majority.")
@timeout_option("How long to wait for the other nodes, in seconds.")
@click.option(
    "-without", multiple=True, metavar="NODE", help="Don't wait for this node, which is permanently gone. Repeatable."
)
@json_option
@config_option
@click.pass_context
def verify(ctx: click.Context, repair: bool, seconds: float, without: tuple[str, ...], as_json: bool) -> None:
    """Compare the database with its mirror, and the mirrors of all nodes at one position of the streams.

    Exits with 0 only if all agree, with 4 if something differs, a known node did not answer, or rows stay pending on
    one.
    """
    arguments = {"repair": repair, "seconds": seconds, "without": list(without)}
    answer = invocation(ctx).control(2 * seconds + GRACE).post("/v1/verify", arguments)
    print_json(answer) if as_json else _show(answer, repair=repair)
    ctx.exit(0 if answer["agree"] is True else VerifyError.exit_code)


def _show(answer: dict[str, Any], *, repair: bool) -> None:
    out = console()
    _show_local(answer.get("local", {}))
    for file in answer.get("files", ()):
        if file["damage"]:
            then = "it is healed now; verify again afterwards" if repair else "verify -repair heals it"
            out.print(f"{plain(file['file'])} is damaged: {plain(file['damage'])}; {then}", style="bold red")
        elif file["unchecked"]:
            out.print(f"{plain(file['file'])} was not checked for damage: {plain(file['unchecked'])}")
    positions = ", ".join(f"{plain(shard)}:{seq}" for shard, seq in sorted(answer.get("positions", {}).items()))
    nodes = table("node", "agrees", "digest", "note")
    for node in answer.get("nodes", ()):
        nodes.add_row(
            plain(node["node_id"]),
            "yes" if node["agrees"] else "NO",
            plain(node.get("digest") or "-")[:16],
            plain(node.get("note") or ""),
        )
    for silent in answer.get("silent", ()):
        nodes.add_row(plain(silent), "?", "-", "did not answer")
    if nodes.row_count:
        out.print(nodes)
    if repaired := answer.get("repaired", 0):
        out.print(f"repaired {counted(repaired, 'row')}")
    if right := answer.get("repaired_from"):
        out.print(f"this node's mirror deviated; it was repaired from that of {', '.join(map(str, right))}")
    if note := answer.get("note"):
        out.print(plain(note), style="bold")
    verdict = "all agree" if answer["agree"] else "NOT all agree"
    out.print(
        f"{verdict} at position {positions}" if positions else verdict,
        style="bold green" if answer["agree"] else "bold red",
    )


def _show_local(local: dict[str, Any]) -> None:
    out = console()
    if local.get("equal"):
        rows = sum(each.get("rows", 0) for each in local.get("tables", ()))
        tables = len(local.get("tables", ()))
        out.print(f"database and mirror are equal: {counted(tables, 'table')}, {counted(rows, 'row')}")
    elif local:
        out.print("database and mirror differ", style="bold red")
    for name, text in (
        ("pending_rows", "pending: changed here, not ordered yet"),
        ("held_rows", "held back: a unique index has no room beside a pending row"),
    ):
        if local.get(name):
            out.print(f"{counted(local[name], 'row')} {text}")
    shown = table("table", ">rows", ">missing", ">extra", ">different", "for example")
    for each in local.get("tables", ()):
        if each.get("missing") or each.get("extra") or each.get("different"):
            counts = [f"{each.get(name, 0):,}" for name in ("rows", "missing", "extra", "different")]
            shown.add_row(plain(each["table"]), *counts, ", ".join(plain(row) for row in each.get("sample", ())[:3]))
    if shown.row_count:
        out.print(shown)
