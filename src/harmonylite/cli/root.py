"""The command ``harmonylite`` itself: its flags and its commands.

Invariant: a command's error ends the process as `harmonylite.cli.ending` says.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit

from harmonylite.cli.completion_command import completion
from harmonylite.cli.config_command import config
from harmonylite.cli.conflicts_command import conflicts
from harmonylite.cli.demo_command import demo
from harmonylite.cli.doctor_command import doctor
from harmonylite.cli.ending import exit_code
from harmonylite.cli.given import Invocation
from harmonylite.cli.go_flags import GoGroup
from harmonylite.cli.history_command import history
from harmonylite.cli.invocation import invocation
from harmonylite.cli.man_command import man
from harmonylite.cli.nats_command import nats
from harmonylite.cli.nkey_command import nkey
from harmonylite.cli.nodes_command import node
from harmonylite.cli.region_command import region
from harmonylite.cli.run_node import run_node
from harmonylite.cli.schema_command import schema, show_status
from harmonylite.cli.skip_command import skip
from harmonylite.cli.snapshot_command import save_snapshot, snapshot
from harmonylite.cli.status_command import status
from harmonylite.cli.tail_command import position, tail, wait
from harmonylite.cli.verify_command import verify

ACTIONS = ("version", "cleanup", "save_snapshot", "schema_status", "schema_status_cluster")


class RootGroup(GoGroup):
    """Ends the process as `harmonylite.cli.ending` promises."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn errors into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            code = exit_code(error, verbose=invocation(ctx).verbose)
        ctx.exit(code)


@click.group(cls=RootGroup, invoke_without_command=True, context_settings={"help_option_names": ["-help", "-h"]})
@click.option(
    "-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration file. Without it: config.toml in the working directory.",
)
@click.option("-database", metavar="NAME", help="Name of the database, if the configuration has several.")
@click.option("-node-id", metavar="NAME", help="Name of this node, instead of node_id.")
@click.option("-cluster-addr", metavar="HOST:PORT", help="Where the embedded server listens for the other nodes'.")
@click.option("-cluster-peers", metavar="URLS", help="The other nodes' cluster addresses, comma separated.")
@click.option("-cluster-secret-file", metavar="FILE", help="Secret that the embedded servers require of each other.")
@click.option("-leaf-servers", metavar="URLS", help="Servers of another region to link to, comma separated.")
@click.option("-verbose", is_flag=True, help="Log more; show where an unexpected error comes from.")
@click.option("-cleanup", is_flag=True, help="Remove everything of HarmonyLite's from the database, then exit.")
@click.option("-save-snapshot", is_flag=True, help="Have the running node save a snapshot, then exit.")
@click.option("-schema-status", is_flag=True, help="Show this node's schema.")
@click.option("-schema-status-cluster", is_flag=True, help="Show the schemas of all nodes.")
@click.option("-version", is_flag=True, help="Show the versions of HarmonyLite and what it runs on, then exit.")
@click.pass_context
def root(ctx: click.RichContext, /, **flags: Any) -> None:
    """Replicate an SQLite file that every node may write to, over NATS JetStream.

    Without a command: run the node. Flags may have one dash or two.
    """
    given = invocation(ctx)
    given.take(flags)
    actions = [name for name in ACTIONS if flags[name]]
    named = [f"-{name.replace('_', '-')}" for name in actions]
    if ctx.invoked_subcommand:
        named.append(ctx.invoked_subcommand)
    if len(named) > 1:
        raise click.UsageError(f"{named[0]} and {named[1]} can't go together; give one of them")
    if not ctx.invoked_subcommand:
        ctx.exit(_act(given, actions[0] if actions else ""))


def _act(given: Invocation, action: str) -> int:
    from harmonylite.cli import node_command

    match action:
        case "version":
            click.echo(node_command.version_text())
            return 0
        case "cleanup":
            return node_command.cleanup_database(given)
        case "save_snapshot":
            return save_snapshot(given, as_json=False)
        case "schema_status" | "schema_status_cluster":
            show_status(given, cluster=action.endswith("cluster"))
            return 0
    return run_node(given)


for command in (
    config,
    doctor,
    nats,
    node,
    status,
    conflicts,
    verify,
    snapshot,
    history,
    nkey,
    region,
    schema,
    skip,
    demo,
):
    root.add_command(command)
for command in (tail, wait, position, completion, man):
    root.add_command(command)
