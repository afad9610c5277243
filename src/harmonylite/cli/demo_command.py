"""``harmonylite demo``: three nodes on this machine.

Invariant: nothing of the demo is imported before the command runs.
"""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from harmonylite.cli.go_flags import GoCommand


@click.command(cls=GoCommand)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "-exit", "exit_when_done", is_flag=True, help="Stop the nodes at the end instead of leaving them running."
)
@click.pass_context
def demo(ctx: click.Context, file: Path | None, exit_when_done: bool) -> None:
    """Run three nodes on copies of FILE, or on a small shop: writes, conflicts, a killed node, proof."""
    from harmonylite.demo import run

    ctx.exit(run(file, exit_when_done))
