"""The log: structlog and the standard library's logging in one pipeline, to standard error.

Invariant: no line carries a secret: known ones are masked wherever they turn up, the rest by their form; tracebacks
show no local variables.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from harmonylite.config import MASK, LoggingSettings, names_secret
from harmonylite.config import redact as redact_forms

SHORTEST = 4
"""Characters of a known secret that is masked literally; shorter ones would tear ordinary words apart."""

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


def redact(text: str) -> str:
    """Return ``text`` with everything masked that looks like a secret."""
    return redact_forms(text)


def configure(
    section: LoggingSettings | None = None, *, known_secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Send all logs of this process through one pipeline to ``stream`` (None = standard error).

    Call it again to change it. ``known_secrets``: see `harmonylite.config.secrets`.
    """
    section = section or LoggingSettings()
    stream = stream or sys.stderr
    redactor = Redactor(known_secrets)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(section.format, redactor, colors=stream.isatty()),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if section.verbose else logging.INFO, force=True)
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG if section.verbose else logging.WARNING)
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if section.verbose else logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # loggers of modules are made before this is called, and again by tests
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
