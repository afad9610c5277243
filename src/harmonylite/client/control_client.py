"""Ask the running node: a small client of its control API on 127.0.0.1.

Invariant: every call ends within its time, and every failure is an error that says whether a node runs at all: the lock
of its folder identifies, whatever the port does. The token of `control.json` goes nowhere but to that port.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from harmonylite.client.control_answers import ANSWERS, CODEC
from harmonylite.errors import (
    ConfigError,
    ForeignError,
    HarmonyLiteError,
    NotAnsweringError,
    NotFoundError,
    NotRunningError,
    PositionError,
    WaitTimeoutError,
)
from harmonylite.foreign import convert
from harmonylite.identity import folder_for, holder
from harmonylite.web.control_file import ControlFile, read_control_file

REFUSALS = {
    kind.exit_code: kind
    for kind in (ConfigError, NotRunningError, NotAnsweringError, NotFoundError, PositionError, WaitTimeoutError)
}
"""What a caller can distinguish by type; every other refusal is a HarmonyLiteError with the node's exit code."""


class ControlClient:
    """Calls to the node behind ``found``. ``start``: the command that starts it; ``seconds``: time for one call."""

    def __init__(self, found: ControlFile, db_path: Path, *, start: str, seconds: float = 15.0) -> None:
        self._found = found
        self._db_path = db_path
        self._start = start
        self._seconds = seconds

    @classmethod
    def find(cls, db_path: Path, *, start: str = "harmonylite", seconds: float = 15.0) -> ControlClient:
        """Return the way to the node of ``db_path``.

        :raises NotRunningError: there is none, or its control file can't be read. :raises NotAnsweringError: it runs,
            and takes no commands yet, or no more.
        """
        try:
            found = read_control_file(folder_for(db_path))
        except NotRunningError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise _silent(db_path, start, "it is starting or stopping") from None
            raise
        return cls(found, db_path, start=start, seconds=seconds)

    @property
    def pid(self) -> int:
        """The node's process id, as it wrote it down."""
        return self._found.pid

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to GET ``path``; entries of ``query`` that are None are left out.

        :raises NotRunningError: no node runs. :raises NotAnsweringError: it runs, and does not answer.
        :raises HarmonyLiteError: the node refuses, with its exit code.
        """
        return self._call("GET", with_query(path, query or {}), None)

    def post(self, path: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to POST ``path`` with ``arguments`` as JSON; errors as `get`."""
        return self._call("POST", path, json.dumps(dict(arguments or {})).encode())

    def lines(
        self, path: str, query: Mapping[str, Any], kind: type[msgspec.Struct]
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the lines of GET ``path``, each as ``kind`` has it, until the node ends them; errors as `get`.

        The call's time is the longest silence between two lines.
        """
        headers = {"Authorization": f"Bearer {self._found.token}"}
        connection = http.client.HTTPConnection("127.0.0.1", self._found.port, timeout=self._seconds)
        try:
            connection.request("GET", with_query(path, query), headers=headers)
            with connection.getresponse() as response:
                if response.status != 200:
                    self.answer(path, response.status, response.read(CODEC.most + 1))
                while line := response.readline(CODEC.most + 1):
                    yield decoded_line(path, line, kind)
        except TimeoutError:
            raise self.silent(f"nothing within {self._seconds:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise self.silent(str(error) or type(error).__name__) from None
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._found.token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self._found.port, timeout=self._seconds)
        try:
            connection.request(method, path, body=body, headers=headers)
            with connection.getresponse() as response:
                return self.answer(path.partition("?")[0], response.status, response.read(CODEC.most + 1))
        except TimeoutError:
            raise self.silent(f"no answer within {self._seconds:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            # A killed node leaves its control file behind.
            raise self.silent(str(error) or type(error).__name__) from None
        finally:
            connection.close()

    def request(self, path: str) -> bytes:
        """Return GET ``path`` as it is sent by a client that closes the connection afterwards."""
        head = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{self._found.port}\r\nAuthorization: Bearer {self._found.token}"
        return f"{head}\r\n\r\n".encode()

    @property
    def port(self) -> int:
        """Where the node answers on 127.0.0.1, as it wrote it down."""
        return self._found.port

    def silent(self, why: str) -> HarmonyLiteError:
        """Return the error for a node that gave no answer: its lock says whether it runs."""
        return _silent(self._db_path, self._start, why)

    def answer(self, path: str, status: int, body: bytes) -> dict[str, Any]:
        """Return what the node answered to ``path``; raises as `get`."""
        try:
            answer = CODEC.decode(body) if status != 401 else None
        except ForeignError:
            answer = None
        # Another program, or another database's node, may have taken the port of a killed node.
        if answer is None:
            raise self.silent(f"another program has its port {self._found.port}")
        if status >= 400:
            raise refusal(answer.get("error") or f"the node answered {status}", answer.get("exit_code", 1))
        if path in ANSWERS:
            try:
                convert(answer, ANSWERS[path], f"the node's answer to {path}")
            except ForeignError as found:
                raise HarmonyLiteError(found.message, advice="use the command of the node's version") from None
        return answer


def refusal(text: str, exit_code: int) -> HarmonyLiteError:
    """Return the error that the node answered with."""
    error = REFUSALS.get(exit_code, HarmonyLiteError)(text)
    error.exit_code = exit_code
    return error


def with_query(path: str, query: Mapping[str, Any]) -> str:
    """Return ``path`` with what ``query`` names; entries that are None are left out."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def decoded_line(path: str, line: bytes, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return a line of the answer to ``path``; raises HarmonyLiteError where it is no ``kind``."""
    try:
        found = CODEC.decode(line)
        convert(found, kind, f"the node's answer to {path}")
    except ForeignError as error:
        raise HarmonyLiteError(error.message, advice="use the command of the node's version") from None
    return found


def _silent(db_path: Path, start: str, why: str) -> HarmonyLiteError:
    """Return the error for a node that gave no answer: its lock says whether it runs."""
    process = holder(folder_for(db_path))
    if process is None:
        return NotRunningError(f"no running node for {db_path}", advice=f"start it with `{start}`")
    return NotAnsweringError(
        f"the node of {db_path} runs (process {process}) and does not answer: {why}",
        advice="try again, and look at its log; `/livez` says whether it is alive",
    )
