"""The log: the standard library's logging, in lines for a person or in JSON, to standard error.

Invariant: no line carries a secret: known ones are masked wherever they turn up, the rest by their form; tracebacks
show no local variables.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from harmonylite.config import MASK, LoggingSettings, names_secret
from harmonylite.config import redact as redact_forms

SHORTEST = 4
"""Characters of a known secret that is masked literally; shorter ones would mask parts of ordinary words."""

TAIL_LINES, TAIL_TEXT = 200, 2_000
"""Lines of the log that `LogTail` keeps, and characters of each."""

QUIET = ("nats", "uvicorn.access", "uvicorn.error", "asyncio", "httpx", "asyncssh")
"""Libraries that log only warnings, unless verbose."""

_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
"""Attributes of each record; any others were logged with ``extra``."""

_LINE = {"event", "logger", "level", "timestamp", "exception", "stack"}
"""Names of a line that no field of a message takes."""

_BOUND: ContextVar[dict[str, str]] = ContextVar("fields of log lines")

_COLORS = {"debug": "\x1b[32m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}


class Redactor:
    """Masks secrets in whatever is logged. ``known``: secrets of the configuration, masked literally."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        # The longest first: one secret may hold another.
        self._known = sorted((secret for secret in set(known) if len(secret) >= SHORTEST), key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return ``text`` without secrets."""
        for secret in self._known:
            text = text.replace(secret, MASK)
        return redact_forms(text)

    def value(self, value: Any) -> Any:
        """Return ``value`` without secrets: text and what is in containers; numbers stay as they are."""
        match value:
            case str():
                return self.text(value)
            case None | bool() | int() | float():
                return value
            case dict():
                return {name: self._entry(str(name), item) for name, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.value(item) for item in value]
        return self.text(str(value))

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a line without secrets."""
        return {name: self._entry(name, value) for name, value in event.items()}

    def _entry(self, name: str, value: Any) -> Any:
        return MASK if isinstance(value, str) and value and names_secret(name) else self.value(value)


def bind(**fields: str) -> None:
    """Add fields to each line that is logged in this context, as a task or a thread with a copy of it has."""
    _BOUND.set({**bound(), **fields})


def bound() -> dict[str, str]:
    """Return the fields that lines of this context have."""
    return _BOUND.get({})


class _Lines(logging.Formatter):
    """Makes a line of each record: its fields without secrets, rendered by ``render``.

    ``named``: with the values that its message names (``%(shard)d``) as fields, too, for programs.
    """

    def __init__(self, redactor: Redactor, render: Callable[[dict[str, Any]], str], *, named: bool = False) -> None:
        super().__init__()
        self._redactor = redactor
        self._render = render
        self._named = named

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        given = {name: value for name, value in vars(record).items() if name not in _OWN}
        if self._named and isinstance(record.args, Mapping):
            given = {name: value for name, value in record.args.items() if name not in _LINE} | given
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        event = {
            "event": record.getMessage(),
            **bound(),
            **given,
            "logger": record.name,
            "level": record.levelname.lower(),
        }
        if record.exc_info and record.exc_info[0]:
            event["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = record.stack_info
        return self._render({**self._redactor.event(event), "timestamp": at})


class LogTail(logging.Handler):
    """Keeps the last lines of the log, secrets masked, for those who ask the node."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line; the oldest goes."""
        try:
            self._lines.append(self.format(record))
        except Exception:  # noqa: BLE001  # as every handler of the standard library does
            self.handleError(record)

    def lines(self) -> list[dict[str, str]]:
        """Return the lines, the oldest first: ``at`` (RFC 3339, UTC), ``level`` and ``text`` each."""
        return [dict(zip(("at", "level", "text"), line.split("\t", 2), strict=True)) for line in self._lines]


def _kept(event: dict[str, Any]) -> str:
    """Render a line for `LogTail`."""
    text = " ".join([event["event"], *_more(event)])
    return f"{event['timestamp']}\t{event['level']}\t{text[:TAIL_TEXT]}"


def _json(event: dict[str, Any]) -> str:
    """Render a line as one JSON object."""
    named = {"message" if name == "event" else name: value for name, value in event.items()}
    return json.dumps(named, ensure_ascii=False)


def _console(event: dict[str, Any], *, colors: bool) -> str:
    """Render a line for a person, a traceback below it."""
    color = _COLORS.get(event["level"], "") if colors else ""
    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colors else ("", "", "")
    head = f"{dim}{event['timestamp']}{plain} [{color}{event['level']:<9}{plain}] {bold}{event['event']:<30}{plain}"
    line = " ".join([f"{head} [{event['logger']}]", *_more(event, beside=("exception", "stack"))])
    return "\n".join([line, *(event[name] for name in ("stack", "exception") if name in event)])


def _more(event: dict[str, Any], beside: tuple[str, ...] = ()) -> list[str]:
    taken = ("timestamp", "level", "event", "logger", *beside)
    return [f"{name}={value}" for name, value in event.items() if name not in taken]


def redact(text: str) -> str:
    """Return ``text`` with everything masked that may be a secret."""
    return redact_forms(text)


def configure(
    section: LoggingSettings | None = None,
    *,
    known_secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    tail: LogTail | None = None,
) -> None:
    """Send all logs of this process through one pipeline to ``stream`` (None = standard error).

    Call again to reconfigure. ``known_secrets``: see `harmonylite.config.secrets`. ``tail``: keeps the last lines.
    """
    section = section or LoggingSettings()
    stream = stream or sys.stderr
    redactor = Redactor(known_secrets)
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    colors = stream.isatty()
    for_programs = section.format == "json"
    rendering = _json if for_programs else lambda event: _console(event, colors=colors)
    handlers[0].setFormatter(_Lines(redactor, rendering, named=for_programs))
    if tail is not None:
        tail.setFormatter(_Lines(redactor, _kept))
        handlers.append(tail)
    logging.basicConfig(handlers=handlers, level=logging.DEBUG if section.verbose else logging.INFO, force=True)
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG if section.verbose else logging.WARNING)
