"""How an error ends the process: its message and the exit code.

Invariant: an expected error is one message and its own exit code; an unexpected one is one line, exit code 1, and a
traceback only with -verbose. Neither shows a secret.
"""

from __future__ import annotations

import sys
import traceback

from harmonylite.errors import HarmonyLiteError


def exit_code(error: Exception, *, verbose: bool) -> int:
    """Print ``error`` on standard error; return the exit code."""
    foreseen = _only_foreseen(error)
    if foreseen:
        _say(f"harmonylite: {foreseen}")
        return foreseen.exit_code
    if verbose:
        _say("".join(traceback.format_exception(error)).rstrip())
    hint = "" if verbose else " (-verbose shows where)"
    _say(f"harmonylite: unexpected {type(error).__name__}: {error}{hint}")
    return 1


def _only_foreseen(error: BaseException) -> HarmonyLiteError | None:
    """Return the error inside a group of a single one, as a task group raises it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, HarmonyLiteError) else None


def _say(text: str) -> None:
    from harmonylite.config import redact

    print(redact(text), file=sys.stderr, flush=True)
