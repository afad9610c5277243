"""Run the node: what ``harmonylite`` does without a command.

Invariant: a command line that only runs the node means the same as click would read, but without click, which would
stay in the node's memory. Click reads every other line, including invalid ones.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harmonylite.cli.ending import exit_code
from harmonylite.cli.given import OVERRIDES, Invocation
from harmonylite.errors import HarmonyLiteError

M_ARENA_MAX = -8
"""mallopt(3)'s number for the most arenas."""

INTERRUPTED = 1
"""Exit code of a start that Ctrl-C ended; click's."""


def node_line(words: Sequence[str]) -> Invocation | None:
    """Return what a line of nothing but flags for the node says; None for any other line."""
    flags: dict[str, Any] = {"config": None, "verbose": False, "database": None, **dict.fromkeys(OVERRIDES)}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        flag = name.replace("-", "_")
        dashes = len(word) - len(word.lstrip("-"))
        if dashes not in (1, 2) or "_" in name or flag not in flags:
            return None
        if flag == "verbose":
            if equals:
                return None
            flags[flag] = True
        elif not equals and not rest:
            return None
        else:
            given = value if equals else rest.pop(0)
            flags[flag] = Path(given) if flag == "config" else given
    found = Invocation()
    found.take(flags)
    return found


def main(given: Invocation) -> None:
    """Run the node and end the process with its exit code."""
    try:
        code = run_node(given)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 # the process's edge: whatever it is, it is said and has an exit code
        code = exit_code(error, verbose=given.verbose)
    sys.exit(code)


def run_node(given: Invocation) -> int:
    """Run the node until it ends; return its exit code."""
    _few_arenas()
    gc.disable()  # what is imported stays: the collector would look through it a hundred times
    import logging

    from harmonylite import logs
    from harmonylite.config import secrets
    from harmonylite.node.process import run

    gc.freeze()
    gc.enable()
    databases = given.databases
    logs.configure(databases[0].logging, known_secrets=[each for one in databases for each in secrets(one)])
    log = logging.getLogger(__name__)
    log.info("read configuration", extra={"file": str(given.file or "none, only defaults, environment and flags")})
    try:
        return asyncio.run(run(databases))
    except HarmonyLiteError as error:
        # In the log, not beside it: where lines are JSON, the last one must be, too.
        log.critical("%s", error.message, extra={"advice": error.advice, "exit_code": error.exit_code})
        return error.exit_code


def _few_arenas() -> None:
    """Let the threads share two arenas of glibc's malloc: each thread that gets its own holds on to some 0.3 MB."""
    import ctypes  # the node needs it anyway

    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
