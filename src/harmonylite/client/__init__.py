"""Public: ask the node beside a database, from a program in Python.

`Client` waits for each answer, `AsyncClient` is the same for asyncio. Both find the node by the path of its database,
on this machine, as the same user. They need no configuration and never open the database.
"""

from harmonylite.client.blocking import Client
from harmonylite.client.nonblocking import AsyncClient
from harmonylite.client.values import Change, ConflictEntry, Entry, NodeReport, Value
from harmonylite.errors import (
    ConfigError,
    HarmonyLiteError,
    NotAnsweringError,
    NotFoundError,
    NotRunningError,
    PositionError,
    WaitTimeoutError,
)

__all__ = [
    "AsyncClient",
    "Change",
    "Client",
    "ConfigError",
    "ConflictEntry",
    "Entry",
    "HarmonyLiteError",
    "NodeReport",
    "NotAnsweringError",
    "NotFoundError",
    "NotRunningError",
    "PositionError",
    "Value",
    "WaitTimeoutError",
]
