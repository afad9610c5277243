"""The command line: ``harmonylite`` and its commands.

Invariant: a command imports what it needs when it runs, so that asking a running node something stays quick.
"""

from __future__ import annotations

import os
import sys
from typing import Final

COMPLETES: Final = "_HARMONYLITE_COMPLETE"
"""Set while a shell asks for completions; click answers."""


def main() -> None:
    """Run the command line of this process and end the process with its exit code."""
    from harmonylite.cli import run_node

    given = run_node.node_line(sys.argv[1:])
    if given is not None and COMPLETES not in os.environ:
        run_node.main(given)
    from harmonylite.cli.root import root

    root.main(prog_name="harmonylite")
