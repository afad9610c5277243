"""A position in a cookie, for `harmonylite.asgi` and `harmonylite.wsgi`.

Invariant: what a browser sends is untrusted: a cookie that isn't ours is ignored, and costs no more than its length.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote

from harmonylite.errors import ConfigError, HarmonyLiteError, PositionError

log = logging.getLogger("harmonylite")

NAME = "harmonylite_position"
LONGEST = 3500
"""Characters of a cookie; browsers keep 4096 bytes with name and attributes. Some 200 shards fit."""
MAX_AGE = 300
"""Seconds that a browser keeps it: by then every running node has what was written."""
READING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that write nothing (RFC 9110, 9.2.1)."""


class Said:
    """Says once that requests are served without waiting, and once that they are no longer."""

    def __init__(self) -> None:
        self._wrong = False

    def failed(self, error: Exception) -> None:
        """Log the first of several failures."""
        if not self._wrong:
            log.warning("answering requests without what their readers wrote: %(error)s", {"error": error})
        self._wrong = True

    def worked(self) -> None:
        """Log that all is well again."""
        if self._wrong:
            log.warning("answering requests with what their readers wrote again")
        self._wrong = False


@contextmanager
def waiting(said: Said) -> Iterator[None]:
    """Let a request pass whose wait fails; ``said`` logs why, unless its position is made up or of streams now gone."""
    try:
        yield
    except (ConfigError, PositionError):
        return
    except HarmonyLiteError as error:
        said.failed(error)
    else:
        said.worked()


def position_in(header: str, name: str = NAME) -> str:
    """Return the position in a Cookie header, "" where there is none."""
    for pair in header.split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name and len(value) <= LONGEST:
            return unquote(value, errors="replace")
    return ""


def cookie(position: str, *, secure: bool, name: str = NAME) -> str | None:
    """Return a Set-Cookie header's value; None for a position that no cookie holds."""
    value = quote(position, safe="")
    if len(value) > LONGEST:
        return None
    return f"{name}={value}; Path=/; Max-Age={MAX_AGE}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
