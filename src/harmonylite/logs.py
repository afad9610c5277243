"""The log: structlog and the standard library's logging in one pipeline, to standard error.

Invariant: no line carries a secret: known ones are masked wherever they turn up, the rest by their form; tracebacks
show no local variables.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from harmonylite.config import MASK, LoggingSettings, names_secret
from harmonylite.config import redact as redact_forms

SHORTEST = 4
"""Characters of a known secret that is masked literally; shorter ones would tear ordinary words apart."""

TAIL_LINES, TAIL_TEXT = 200, 2_000
"""Lines of the log that `LogTail` keeps, and characters of each."""

QUIET = ("nats", "uvicorn.access", "uvicorn.error", "asyncio", "httpx", "asyncssh")
"""Libraries of whose lines only warnings are shown, unless verbose."""


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

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Mask the values of ``event``; structlog calls this as a processor."""
        return {name: self._entry(name, value) for name, value in event.items()}

    def _entry(self, name: str, value: Any) -> Any:
        if name in ("_record", "_from_structlog", "timestamp", "level"):
            return value
        return MASK if isinstance(value, str) and value and names_secret(name) else self.value(value)


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


def _kept(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Render a line for `LogTail`."""
    more = {name: value for name, value in event.items() if name not in ("timestamp", "level", "event", "logger")}
    text = " ".join([str(event.get("event", "")), *(f"{name}={value}" for name, value in more.items())])
    return f"{event.get('timestamp', '')}\t{event.get('level', '')}\t{text[:TAIL_TEXT]}"


def redact(text: str) -> str:
    """Return ``text`` with everything masked that looks like a secret."""
    return redact_forms(text)


def configure(
    section: LoggingSettings | None = None,
    *,
    known_secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    tail: LogTail | None = None,
) -> None:
    """Send all logs of this process through one pipeline to ``stream`` (None = standard error).

    Call it again to change it. ``known_secrets``: see `harmonylite.config.secrets`. ``tail``: keeps the last lines.
    """
    section = section or LoggingSettings()
    stream = stream or sys.stderr
    redactor = Redactor(known_secrets)
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    handlers[0].setFormatter(_formatter(_rendering(section.format, redactor, colors=stream.isatty())))
    if tail is not None:
        tail.setFormatter(_formatter([structlog.processors.format_exc_info, redactor, _kept]))
        handlers.append(tail)
    logging.basicConfig(handlers=handlers, level=logging.DEBUG if section.verbose else logging.INFO, force=True)
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG if section.verbose else logging.WARNING)
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if section.verbose else logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # loggers of modules are made before this is called, and again by tests
    )


def _formatter(rendering: list[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _rendering(form: str, redactor: Redactor, *, colors: bool) -> list[Processor]:
    # Tracebacks become text before the redactor sees them, and by formatters that show no local variables.
    if form == "json":
        return [
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            redactor,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    return [
        structlog.processors.format_exc_info,
        redactor,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback),
    ]
