"""How a node's process ends: what its errors say in the log, and with which exit code.

Invariant: every end that no signal asked for leaves one clear line in the log and an exit code that is not 0.
"""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

from harmonylite.errors import HarmonyLiteError, leaves

log = logging.getLogger(__name__)

UNEXPECTED = 1
"""Exit code after an unexpected error."""


def ended_by(error: BaseException) -> int:
    """Log why the node ended, an error that may be a group of groups; return the exit code.

    An error of ours is one line. An unexpected one is one line too, and its own traceback where the log shows
    details; it decides the exit code.
    """
    single = leaves(error)
    strange = [each for each in single if not isinstance(each, HarmonyLiteError)]
    ours = [each for each in single if isinstance(each, HarmonyLiteError)]
    for known in dict.fromkeys(map(str, ours)):  # several loops may have met the same
        log.error("%s", known)
    for each in strange:
        verbose = log.isEnabledFor(logging.DEBUG)
        hint = "" if verbose else "; -verbose shows how it came to that"
        log.critical(
            "stopped by an unexpected error: %(type)s: %(error)s (%(place)s)%(hint)s",
            {"type": type(each).__name__, "error": each, "place": _where(each), "hint": hint},
            exc_info=each if verbose else None,
        )
    return UNEXPECTED if strange or not ours else ours[0].exit_code


def cut_short() -> None:
    """End the process at once, as a second signal asks: files and stream are consistent at any instant."""
    log.warning("stopped at once on the second signal; what is committed is published after a restart")
    logging.shutdown()
    os._exit(UNEXPECTED)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "place unknown"
    ours = [frame for frame in frames if "harmonylite" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}"
