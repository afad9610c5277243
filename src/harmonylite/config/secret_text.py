"""Text that may carry secrets, and what of it may be shown.

Invariant: nothing that this module hands out for showing contains a password, a token, a seed or a signed credential.
"""

from __future__ import annotations

import re

MASK = "***"

_KEEPS_NAME = {"sftp", "ssh", "s3"}
"""Schemes whose lone user name is a name; elsewhere (``nats://x@host``) it is a token."""

_URL_USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^\s/?#\"'<>]*)@")
# A password with an unescaped "/", "?" or "#"; what follows the colon must not look like a port.
_URL_ODD_USER = re.compile(r"(?P<head>://[^\s/?#\"':@]+:)(?!\d+(?:[/?#\s]|$))(?:(?!://)[^\s\"'])*@")
_NAMED = re.compile(
    r"(?i)(?P<name>\b[\w-]*(?:password|passwd|secret|token|access_key|api_key|signature|jwt)[\"']?\s*[=:]\s*)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s&,;\"'}\])]+)"
)
_SECRET_NAME = re.compile(r"(?i)(?:password|passwd|secret|token|access_key|api_key|signature|jwt|authorization)$")
_BEARER = re.compile(r"(?i)\b(?P<kind>bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# https://docs.nats.io, NKeys: a seed is base32, begins with S and its kind, and is 58 characters long.
_SEED = re.compile(r"\bS[ACNOPUX][A-Z2-7]{54,}")


class Hidden:
    """A text that `get_secret_value` alone gives whole. No record of fields, so nothing that shows records shows it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return the whole text: for connecting, never for showing."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._text == getattr(other, "_text", None)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Secret(Hidden):
    """A password or the like. ``str`` and ``repr`` show whether there is one."""

    __slots__ = ()

    def __str__(self) -> str:
        return MASK if self._text else ""


class Url(Hidden):
    """A URL that may carry a password. ``str`` and ``repr`` show it masked."""

    __slots__ = ()

    def __str__(self) -> str:
        return redact(self._text)


def names_secret(name: str) -> bool:
    """Return whether a value called ``name`` is a secret by its name alone."""
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """Return ``text`` with passwords in URLs, named secrets, bearer tokens, NKey seeds and JWTs masked."""
    text = _URL_USER.sub(_masked_user, text)
    text = _URL_ODD_USER.sub(rf"\g<head>{MASK}@", text)
    text = _JWT.sub(MASK, _SEED.sub(MASK, text))
    text = _BEARER.sub(rf"\g<kind> {MASK}", text)
    return _NAMED.sub(_masked_value, text)


def _masked_user(match: re.Match[str]) -> str:
    name, colon, _ = match["user"].partition(":")
    if colon:
        return f"{match['scheme']}://{name}:{MASK}@"
    kept = name if match["scheme"].lower() in _KEEPS_NAME else MASK
    return f"{match['scheme']}://{kept}@"


def _masked_value(match: re.Match[str]) -> str:
    quote = match["value"][0] if match["value"][0] in "\"'" else ""
    return f"{match['name']}{quote}{MASK}{quote}"
