"""Whether an SSH server is the one that the user trusts: `known_hosts`, as OpenSSH keeps it.

Invariant: a server whose key is not in the file is refused, and the error holds what a person needs to decide: the
key's fingerprint, and the line to add once the fingerprint has been compared with the server's own.
"""

from __future__ import annotations

from pathlib import Path

import asyncssh

from harmonylite.errors import SnapshotError


class HostKeys:
    """The known keys, and what a server showed that is not among them."""

    def __init__(self, file: Path | None) -> None:
        self.file = file or Path("~/.ssh/known_hosts").expanduser()
        self.known = self._read()
        self._refused: _Refused | None = None

    def _read(self) -> asyncssh.SSHKnownHosts:
        try:
            return asyncssh.import_known_hosts(self.file.read_text(encoding="utf-8", errors="surrogateescape"))
        except FileNotFoundError:
            return asyncssh.import_known_hosts("")
        except OSError as error:
            raise SnapshotError(f"{self.file} can't be read: {error.strerror}") from None
        except ValueError as error:
            raise SnapshotError(
                f"{self.file} can't be understood: {error}", advice="correct or remove that line"
            ) from None

    def client(self) -> asyncssh.SSHClient:
        """Return the client that asyncssh asks about keys it does not know; for its ``client_factory``."""
        self._refused = _Refused()
        return self._refused

    def explained(self, host: str, port: int, error: Exception) -> tuple[str, str]:
        """Return why the server is not trusted, and what to do."""
        key = self._refused.key if self._refused is not None else None
        if key is None:
            return f"its host key is not trusted: {error}", f"look at {self.file}"
        place = host if port == 22 else f"[{host}]:{port}"
        line = f"{place} {key.export_public_key().decode().strip()}"
        shown = f"{key.get_algorithm()} {key.get_fingerprint()}"
        expected, *_ = self.known.match(host, "", port)
        if expected:
            known = ", ".join(each.get_fingerprint() for each in expected)
            return (
                f"the server shows another host key, {shown}, than {self.file} has ({known})",
                "an attacker may be in between, or the server has a new key: ask its operator, then put there: " + line,
            )
        return (
            f"its host key is not in {self.file}: {shown}",
            f"if the server's administrator confirms this fingerprint, add this line: {line}",
        )


class _Refused(asyncssh.SSHClient):
    """Remembers an unknown key that the server showed; never accepts it."""

    key: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Refuse ``key``."""
        self.key = key
        return False
