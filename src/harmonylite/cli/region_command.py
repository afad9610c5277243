"""``harmonylite region``: show the primary region, and move it.

Invariant: a command that loses nothing runs at once; one that might lose something needs `-force`.
"""

from __future__ import annotations

import rich_click as click

from harmonylite.cli.go_flags import GoCommand, GoGroup
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import plain, print_json

MOVE_SECONDS = 3600.0
"""Time for a move: a snapshot is saved first, and large databases take long."""


@click.group(cls=GoGroup)
def region() -> None:
    """Show which region is the primary region, or move it."""


@region.command(cls=GoCommand)
@json_option
@config_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Show the regions as the running node sees them, and the nodes of each."""
    nodes = invocation(ctx).control().get("/v1/cluster")["nodes"]
    if as_json:
        print_json({"nodes": [{"node_id": node["node_id"], **node.get("region", {})} for node in nodes]})
        return
    for node in nodes:
        click.echo(f"{plain(node['node_id'])}: {described(node.get('region') or {})}")


def described(found: dict[str, object]) -> str:
    """Return what a node says of its region, in a line."""
    if not found:
        return "in no region, or it did not answer"
    where = f"region {plain(found.get('region'))}"
    if found.get("region") == found.get("primary"):
        return f"{where}, the primary region"
    if not found.get("reachable") and found.get("failover"):
        return f"{where}, failed over, primary region {plain(found.get('primary'))} can't be reached"
    if not found.get("reachable"):
        return f"{where}, primary region {plain(found.get('primary'))} can't be reached"
    milliseconds = float(str(found.get("round_trip_seconds") or 0)) * 1000
    behind = f", copy {found['copy_behind']} messages behind" if found.get("copy_behind") else ""
    return f"{where}, primary region {plain(found.get('primary'))} in {milliseconds:.1f} ms{behind}"


@region.command(cls=GoCommand)
@click.option("-force", is_flag=True, help="The current primary region is lost: promote without it.")
@click.option("-yes", is_flag=True, help="Don't ask.")
@json_option
@config_option
@click.pass_context
def promote(ctx: click.Context, force: bool, yes: bool, as_json: bool) -> None:
    """Make this node's region the primary region.

    From then on its copies of the streams accept all messages, and the former primary region's become copies. Nothing
    is lost, no node is restarted; writes queue for some seconds. With -force, messages that the former primary region
    has acknowledged and not yet sent here are left behind: docs/regions.md says what to do there.
    """
    control = invocation(ctx).control(MOVE_SECONDS)
    if force and not yes:
        click.confirm("Promote without the present primary region, as it is lost?", abort=True, err=True)
    _say(control.post("/v1/region", {"action": "promote", "force": force}), as_json=as_json)


@region.command(cls=GoCommand)
@json_option
@config_option
@click.pass_context
def rejoin(ctx: click.Context, as_json: bool) -> None:
    """Make this region's streams copies of the primary region's again.

    For a region that lost the primary role while it was cut off, or after the primary region created its streams again.
    """
    _say(invocation(ctx).control(MOVE_SECONDS).post("/v1/region", {"action": "rejoin"}), as_json=as_json)


def _say(answer: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    said = answer.get("said")
    for sentence in said if isinstance(said, list) else []:
        click.echo(plain(sentence))
