"""What `harmonylite tail` does with entries besides showing them: run a command with each, keep the position.

Invariant: a position is stored only after the command succeeded for everything up to it, so that nothing is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmonylite.errors import ConfigError, HarmonyLiteError

MOST = 64 * 1024
"""Bytes of a kept position; one of a thousand shards has half of it."""


@dataclass(frozen=True, slots=True)
class Hook:
    """``command``: for the shell, "" for none. ``file``: where the position is kept, None for nowhere."""

    command: str = ""
    file: Path | None = None

    def start(self, given: str) -> str:
        """Return where to start: where the file says, ``given`` while there is none. Raises ConfigError."""
        if self.file is None or not self.file.exists():
            return given
        try:
            text = self.file.read_bytes()[:MOST].decode("ascii", errors="replace").strip()
        except OSError as error:
            raise ConfigError(f"can't read the position in {self.file}: {error.strerror}") from None
        if not text:
            raise ConfigError(f"{self.file} holds no position", advice="remove the file to start with -from")
        return text

    def take(self, entry: dict[str, Any]) -> None:
        """Process one entry. Raises HarmonyLiteError when the command fails; the entry comes again then."""
        if self.command and entry["changes"]:
            position = entry["position"] or ""
            code = subprocess.run(
                ["/bin/sh", "-c", self.command],
                input=json.dumps(entry).encode() + b"\n",
                env={**os.environ, "HARMONYLITE_FEED_POSITION": position},
                check=False,
            ).returncode
            if code:
                what = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
                raise HarmonyLiteError(f"the command {what} at {entry.get('id', '')}", advice="that entry comes again")
        if self.file is not None and entry["position"]:
            _replace(self.file, entry["position"])


def _replace(file: Path, text: str) -> None:
    """Write ``text`` in one step: after a crash the file has the old position or the new one."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(handle, "w") as written:
                written.write(text + "\n")
                written.flush()
                os.fsync(written.fileno())
            Path(name).replace(file)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise HarmonyLiteError(f"can't keep the position in {file}: {error.strerror}") from None
