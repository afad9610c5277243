"""The command line: ``harmonylite`` and its commands.

Invariant: a command imports what it needs when it runs, so that asking a running node something stays quick.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process and end the process with its exit code."""
    from harmonylite.cli.root import root

    root.main(prog_name="harmonylite")
