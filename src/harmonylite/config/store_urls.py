"""The URLs of snapshot stores, in the forms that users of this system know, parsed.

Invariant: a URL that can't be understood raises ValueError with a sentence that continues after the key's name and
never repeats what the URL says: it may hold a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit, urlunsplit

_WEBDAV_FORM = 'write "https://host/dav?dir=/folder&login=name&secret=password"'
_SFTP_FORM = 'write "sftp://name:password@host:22/folder"'
_ESCAPES = "in names and passwords write % as %25, # as %23, & as %26, + as %2B, / as %2F, : as %3A, ? as %3F, @ as %40"
_PARAMETERS = {"dir", "login", "secret"}


@dataclass(frozen=True, slots=True)
class WebdavPlace:
    """``root``: URL of the server's WebDAV tree, without secrets; ``folder``: below it, "" = the root itself."""

    root: str
    folder: str
    login: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SftpPlace:
    """``folder``: absolute, or relative to where the server lets the user in; "" = right there."""

    host: str
    port: int
    user: str
    folder: str
    password: str = field(repr=False)


def webdav_place(url: str) -> WebdavPlace:
    """Parse ``https://host/dav?dir=/folder&login=name&secret=password``; raises ValueError."""
    parts = _split(url, {"https", "http"}, _WEBDAV_FORM)
    try:
        given = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict")
    except ValueError:
        raise ValueError(f"has a query that can't be read; {_WEBDAV_FORM}; {_ESCAPES}") from None
    if given.keys() - _PARAMETERS or any(len(values) > 1 for values in given.values()):
        raise ValueError(f"has more in its query than dir, login and secret, once each; {_WEBDAV_FORM}; {_ESCAPES}")
    login = given.get("login", [unquote(parts.username or "")])[0]
    secret = given.get("secret", [unquote(parts.password or "")])[0]
    if bool(login) != bool(secret):
        raise ValueError(f"has {'login' if login else 'secret'} alone; give login and secret, or neither")
    netloc = parts.netloc.rpartition("@")[2]
    root = urlunsplit((parts.scheme.lower(), netloc, parts.path.rstrip("/") + "/", "", ""))
    return WebdavPlace(root, _inside(given.get("dir", [""])[0]).strip("/"), login, secret)


def sftp_place(url: str) -> SftpPlace:
    """Parse ``sftp://name:password@host:port/folder``; raises ValueError."""
    parts = _split(url, {"sftp", "ssh"}, _SFTP_FORM)
    if parts.query:
        raise ValueError(f'has a "?"; {_SFTP_FORM}; {_ESCAPES}')
    if not parts.username:
        raise ValueError(f"has no user name; {_SFTP_FORM}")
    folder = _inside(unquote(parts.path))
    # As with git and curl: /~/ is the user's own folder, everything else starts at the server's root.
    folder = folder[2:].strip("/") if folder == "/~" or folder.startswith("/~/") else folder.rstrip("/")
    user, password = unquote(parts.username), unquote(parts.password or "")
    return SftpPlace(parts.hostname or "", parts.port or 22, user, folder, password)


def _split(url: str, schemes: set[str], form: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"has a host or port that can't be read; {form}; {_ESCAPES}") from None
    if parts.scheme.lower() not in schemes:
        raise ValueError(f"does not begin with {' or '.join(f'{name}://' for name in sorted(schemes))}; {form}")
    if parts.fragment or "#" in url:
        raise ValueError(f'has a "#"; {_ESCAPES}')
    if not parts.hostname or port == 0 or any(mark in parts.netloc.rpartition("@")[0] for mark in "@/"):
        raise ValueError(f"names no host, or has an @ in the password; {form}; {_ESCAPES}")
    return parts


def _inside(folder: str) -> str:
    if ".." in folder.split("/") or any(ord(letter) < 32 for letter in folder):
        raise ValueError("has a folder with .. or control characters in it; write the folder plainly")
    return folder
