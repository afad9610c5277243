"""The process of a node that a program runs (`harmonylite.program`): its configuration comes on standard input.

Invariant: nothing of the configuration, secrets included, is on the command line or in the environment.
"""

from __future__ import annotations

import sys

from harmonylite.cli.given import Invocation
from harmonylite.cli.run_node import run_node
from harmonylite.config.load import load_given


def main() -> int:
    """Run the node; return its exit code."""
    given = Invocation()
    given.databases = [load_given(sys.stdin.read())]
    return run_node(given)


if __name__ == "__main__":
    sys.exit(main())
