"""``harmonylite schema``: show the schema of all nodes, who changed it and what waits; change it.

Invariant: only `apply` and `accept` change a schema, each after it has shown what it changes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from harmonylite.cli.given import Invocation
from harmonylite.cli.go_flags import GoCommand, GoGroup
from harmonylite.cli.invocation import config_option, invocation, json_option, timeout_option
from harmonylite.cli.output import console, local_time, plain, print_below, print_json, table

CLUSTER_SECONDS = 30.0
"""How long the answer about all nodes may take: those behind slow lines are waited for."""
HISTORY_SECONDS = 600.0
"""Time for reading a whole stream."""
ACCEPT_SECONDS = 600.0
"""Time for applying what waits: rebuilding a large table takes long."""
DIFFERS = 4


@click.group(cls=GoGroup)
def schema() -> None:
    """Show the schema of this node and of others, who changed it and what waits; change it."""


@schema.command(cls=GoCommand)
@click.option("-cluster", is_flag=True, help="Of every node that the cluster knows.")
@json_option
@config_option
@click.pass_context
def status(ctx: click.Context, cluster: bool, as_json: bool) -> None:
    """Show the schema's hash, the previous one, when it changed, and what waits."""
    show_status(invocation(ctx), cluster=cluster, as_json=as_json)


def show_status(given: Invocation, *, cluster: bool, as_json: bool = False) -> None:
    """Show this node's schema, or every node's."""
    answer = given.control(CLUSTER_SECONDS).get("/v1/schema/cluster" if cluster else "/v1/schema")
    if as_json:
        print_json(answer)
        return
    nodes = answer["nodes"] if cluster else [answer]
    shown = table("node", "state", "hash", "previous", "since", ">version", ">tables", "waits")
    for node in nodes:
        shown.add_row(
            *(plain(node[name]) for name in ("node_id", "state", "hash", "previous_hash")),
            local_time(node["since"]) if node["since"] else "-",
            str(node["version"]),
            str(node["tables"]),
            "paused" if node["paused"] else str(len(node["waiting"]) or "-"),
        )
    out = console()
    out.print(shown)
    for node in nodes:
        if node["why"]:
            out.print(f"{plain(node['node_id'])}: {plain(node['why'])}")
        for change in node["waiting"]:
            print_below(out, f"{plain(change['object'])}, by {plain(change['node'])}: {plain(change['why'])}", 2)
        for what in ("identities of tables", "affinities of columns"):
            if others := node.get(f"other_{what.partition(' ')[0]}"):
                names = ", ".join(map(plain, others))
                out.print(
                    f"other {what} than {plain(node['node_id'])}: {names}; every node needs the same", style="bold red"
                )


@schema.command(cls=GoCommand)
@click.argument("name", metavar="NODE")
@json_option
@config_option
@click.pass_context
def diff(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show how the schema of NODE differs from the one here. Exits with 4 if it does."""
    answer = invocation(ctx).control().get("/v1/schema/objects", {"node": name})
    lines = list(differences(answer["here"], answer["there"], name))
    if answer["versions"][0] != answer["versions"][1]:
        lines.append("user_version: {} here, {} there".format(*answer["versions"]))
    print_json(answer | {"diff": lines}) if as_json else click.echo("\n".join(map(plain, lines)) or "no difference")
    ctx.exit(DIFFERS if lines else 0)


def differences(here: Sequence[Sequence[str]], there: Sequence[Sequence[str]], name: str) -> Iterator[str]:
    """Yield a unified diff of two lists of kind, name and definition; every column has a line of its own."""

    def text(objects: Sequence[Sequence[str]]) -> list[str]:
        return [line for _, _, sql in sorted(map(tuple, objects)) for line in [*_lines(sql), ""]]

    yield from difflib.unified_diff(text(here), text(there), "here", name, lineterm="", n=2)


def _lines(sql: str) -> list[str]:
    """Break a definition at the commas between its columns."""
    lines, depth, line = [""], 0, ""
    for letter in " ".join(sql.split()):
        depth += (letter == "(") - (letter == ")")
        line += letter
        if depth == 1 and letter in ",(":
            lines.append(line.strip())
            line = ""
    return [each if n == 0 else f"  {each}" for n, each in enumerate([*lines[1:], line.strip()])]


@schema.command(cls=GoCommand)
@click.option("-limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most this many.")
@json_option
@config_option
@click.pass_context
def history(ctx: click.Context, limit: int, as_json: bool) -> None:
    """Show who changed the schema, what and when, the oldest first, as far back as the stream reaches."""
    answer = invocation(ctx).control(HISTORY_SECONDS).get("/v1/schema/changes", {"limit": limit})
    if as_json:
        print_json(answer)
        return
    out = console()
    for change in answer["changes"]:
        place = f"{change['shard']}:{change['seq']}"
        out.print(f"{local_time(change['at'])}  {plain(change['node'])}  {place}", style="bold")
        for each in change["changes"]:
            print_below(out, _changed(each), 4)
    out.print(f"the stream begins at position 0:{answer['first']}" if answer["changes"] else "no schema change")


def _changed(each: dict[str, Any]) -> str:
    kind, name = plain(each["kind"]), plain(each["name"])
    if each["new"] is None:
        return f"drop {kind} {name}"
    what = f"rename {kind} {plain(each['was'])} to {name}" if each.get("was") else f"{kind} {name}"
    return f"{what}: {plain(each['new'])}"


@schema.command(cls=GoCommand)
@json_option
@config_option
@click.pass_context
def accept(ctx: click.Context, as_json: bool) -> None:
    """Apply the schema changes of other nodes that wait here. Exits with 4 if some can't be applied."""
    answer = invocation(ctx).control(ACCEPT_SECONDS).post("/v1/schema/accept", {})
    if as_json:
        print_json(answer)
    else:
        for made in answer["made"]:
            click.echo(f"made {plain(made)}")
        for change in answer["waiting"]:
            click.echo(f"{plain(change['object'])} waits: {plain(change['why'])}")
        if not answer["made"] and not answer["waiting"]:
            click.echo("nothing waits")
    ctx.exit(DIFFERS if answer["waiting"] else 0)


@schema.command(cls=GoCommand)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE.sql")
@click.option("-dry-run", "dry", is_flag=True, help="Show what would change, and roll back.")
@timeout_option("How long to follow it around the cluster, in seconds.", seconds=60.0)
@json_option
@config_option
@click.pass_context
def apply(ctx: click.Context, file: Path, dry: bool, seconds: float, as_json: bool) -> None:
    """Run FILE.sql here in one transaction, and follow it until every node that is up has the same schema.

    Exits with 13 if that takes longer than -timeout; the change still replicates.
    """
    from harmonylite.cli.schema_apply import follow, run_file

    given = invocation(ctx)
    changed = run_file(given.settings, file, dry=dry)
    lines = list(differences(changed.before, changed.after, file.name))
    for line in () if as_json else lines:
        click.echo(plain(line))
    after = {} if dry else follow(given, changed.hash, seconds, quiet=as_json)
    if as_json:
        print_json({"diff": lines, "hash": changed.hash, "dry_run": dry, "seconds": after})
    elif dry:
        click.echo("nothing was changed")
