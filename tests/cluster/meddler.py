"""Somebody with rights on the NATS server and no node: sends, stores and answers whatever bytes a test wants.

A plain socket: client libraries refuse to send what this is for.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count

_MESSAGE = re.compile(rb"(H?)MSG (\S+) \S+ (?:(\S+) )?(?:(\d+) )?(\d+)\r\n")


class Meddler:
    """One connection to the server at ``port`` of this machine."""

    def __init__(self, port: int) -> None:
        self._line = socket.create_connection(("127.0.0.1", port), 30)
        self._read = self._line.makefile("rb")
        self._read.readline()
        self._line.sendall(b'CONNECT {"headers":true,"verbose":false,"pedantic":false,"no_responders":true}\r\n')
        self._thread: threading.Thread | None = None
        self._asked = count(100)

    def publish(self, subject: bytes, payload: bytes, *, headers: bytes | None = None, reply: bytes = b"") -> None:
        """Send one message. ``headers``: as they are on the wire, from ``NATS/1.0`` on."""
        where = subject + (b" " + reply if reply else b"")
        if headers is None:
            self._line.sendall(b"PUB %b %d\r\n%b\r\n" % (where, len(payload), payload))
            return
        sizes = len(headers), len(headers) + len(payload)
        self._line.sendall(b"HPUB %b %d %d\r\n%b%b\r\n" % (where, *sizes, headers, payload))

    def flush(self) -> None:
        """Wait until the server has taken everything; not while `answer` runs."""
        self._line.sendall(b"PING\r\n")
        while (told := self._read.readline().strip()) != b"PONG":
            assert told == b"PING" or not told.startswith(b"-ERR"), told

    def request(self, subject: bytes, payload: bytes) -> bytes:
        """Return the payload of one answer."""
        # The server may still be about to end the subscription that got the last answer: it has another number.
        number = next(self._asked)
        self._line.sendall(b"SUB _INBOX.meddler.%d %d\r\nUNSUB %d 1\r\n" % (number, number, number))
        self.publish(subject, payload, reply=b"_INBOX.meddler.%d" % number)
        while True:
            told = self._read.readline()
            if (found := _MESSAGE.fullmatch(told)) is not None:
                data = self._read.read(int(found[5]) + 2)[:-2]
                return data[int(found[4] or 0) :]
            assert not told.startswith(b"-ERR"), told

    def answer(self, subjects: bytes, with_what: Callable[[bytes], tuple[bytes, bytes] | None]) -> None:
        """Answer every question on ``subjects``, in a thread, with headers and payload of ``with_what(subject)``."""
        self._line.sendall(b"SUB %b 9\r\n" % subjects)
        self._thread = threading.Thread(target=self._work, args=(with_what,), name="meddler", daemon=True)
        self._line.settimeout(None)
        self._thread.start()

    def _work(self, with_what: Callable[[bytes], tuple[bytes, bytes] | None]) -> None:
        try:
            while told := self._read.readline():
                if told.startswith(b"PING"):
                    self._line.sendall(b"PONG\r\n")
                if (found := _MESSAGE.fullmatch(told)) is None:
                    continue
                self._read.read(int(found[5]) + 2)
                if found[3] and (said := with_what(found[2])) is not None:
                    self.publish(found[3], said[1], headers=said[0] or None)
        except (OSError, ValueError):
            return  # the test has closed the line

    def aclose(self) -> None:
        """Hang up."""
        with suppress(OSError):  # the server has
            self._line.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
        self._read.close()
        self._line.close()
