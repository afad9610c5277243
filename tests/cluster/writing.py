"""An application beside a database: a process of its own, with the SQLite library that Python brings.

Invariant: what `Application` tells to be committed is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.processes import HERE, SECONDS


class Application:
    """A writing process beside one database file; see `tests/cluster/application.py`.

    ``statements``: what its connection does at once, each for itself: ``PRAGMA``, ``ATTACH``.
    """

    def __init__(self, db: Path, *statements: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "application.py"), str(db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._reader: threading.Thread | None = None
        self.committed = 0
        """The number of the last transaction of a load that is known to be committed."""
        if statements:
            assert self.ask({"plain": statements}) == {"rows": 0}

    def write(self, *statements: str | tuple[str, Sequence[Any]]) -> int:
        """Commit one transaction; return how many rows it changed."""
        answer = self.ask([[s, []] if isinstance(s, str) else [s[0], list(s[1])] for s in statements])
        assert "rows" in answer, answer
        return int(answer["rows"])

    def ask(self, request: Any) -> Any:
        """Send one request and return the answer."""
        self.send(request)
        assert self._process.stdout
        return json.loads(self._process.stdout.readline() or '{"error": "the application ended"}')

    def send(self, request: Any) -> None:
        """Send one line."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def load(self, name: str, *, pause: float = 0.01, most: int = 0, accounts: int = 4) -> None:
        """Begin to write; `committed` tells how far it is."""
        self.send({"load": name, "pause": pause, "most": most, "accounts": accounts})

        def read() -> None:
            assert self._process.stdout
            for line in self._process.stdout:
                if not line.endswith(b"\n"):
                    return
                found = json.loads(line)
                assert isinstance(found, int) or found == "done", found
                if found == "done":
                    return
                self.committed = found

        self._reader = threading.Thread(target=read, name=f"load of {name}")
        self._reader.start()

    def finish(self) -> int:
        """Wait until a load of ``most`` transactions is done; return how many are committed."""
        assert self._reader is not None
        self._reader.join(SECONDS)
        assert not self._reader.is_alive(), f"the load did not end; it is at {self.committed}"
        return self.committed

    def kill(self) -> int:
        """Kill -9, perhaps in the middle of a transaction; return the last one that is known to be committed."""
        self._process.kill()
        self._process.wait()
        if self._reader is not None:
            self._reader.join()
        self.aclose()
        return self.committed

    def aclose(self) -> None:
        """End it."""
        self._process.kill()
        if self._reader is not None:
            self._reader.join()
        self._process.communicate()
