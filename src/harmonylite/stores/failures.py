"""One form for all errors of a store: what was being done, to which object, where, why, what to do.

Invariant: no secret of the store's configuration is in a message, whatever a server or a library puts into its own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from harmonylite.config.secret_text import MASK, redact
from harmonylite.errors import ObjectMissingError, SnapshotError

_ADVICE = {
    errno.ENOSPC: "make room there, or let fewer snapshots stay (snapshot.keep)",
    errno.EDQUOT: "raise the quota, or let fewer snapshots stay (snapshot.keep)",
    errno.EACCES: "give the node's user the right to read and write there",
    errno.EPERM: "give the node's user the right to read and write there",
    errno.EROFS: "mount it for writing",
    errno.ENAMETOOLONG: "the name is too long for that file system",
}


class Failures:
    """Makes the errors of one store. ``place``: how the store is called in them; ``secrets``: what never shows."""

    def __init__(self, place: str, secrets: Iterable[str] = ()) -> None:
        self.place = place
        forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""), quote_plus(secret))}
        self._secrets = sorted(forms, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return ``text`` in one line and without secrets."""
        text = " ".join(text.split())
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return redact(text)

    def error(self, doing: str, why: str, advice: str = "") -> SnapshotError:
        """Return the error of ``doing`` ("store object 'a'") that failed because of ``why``."""
        return SnapshotError(f"can't {doing} in {self.place}: {self.clean(why)}", advice=self.clean(advice))

    def missing(self, name: str) -> ObjectMissingError:
        """Return the error of an object that is not there."""
        return ObjectMissingError(f"object {name!r} is not in {self.place}")

    def of_os(self, doing: str, error: OSError) -> SnapshotError:
        """Return the error for what the operating system of this machine refused."""
        why = error.strerror or str(error) or type(error).__name__
        if error.filename is not None:
            why += f": {error.filename}"
        return self.error(doing, why, _ADVICE.get(error.errno or 0, ""))

    def stalled(self, doing: str, seconds: float) -> SnapshotError:
        """Return the error for work in which nothing has moved for ``seconds``."""
        return self.error(doing, f"nothing has moved for {seconds:g} s", "look at the store and the line to it")


def storing(name: str) -> str:
    """Return what is being done, for an error."""
    return f"store object {name!r}"


def reading(name: str) -> str:
    """Return what is being done, for an error."""
    return f"read object {name!r}"


def deleting(name: str) -> str:
    """Return what is being done, for an error."""
    return f"delete object {name!r}"


LISTING = "list the objects"
