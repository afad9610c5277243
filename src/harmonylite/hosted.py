"""The process of a node that a program runs (`harmonylite.program`): its configuration comes on standard input.

Invariant: nothing of the configuration, secrets included, is on the command line or in the environment.
"""

from __future__ import annotations

import sys

from harmonylite.cli.invocation import Invocation
from harmonylite.cli.node_command import run_node
from harmonylite.program import settings_of


def main() -> int:
    """Run the node; return its exit code."""
    given = Invocation()
    given.databases = [settings_of(sys.stdin.read())]
    return run_node(given)


if __name__ == "__main__":
    sys.exit(main())
