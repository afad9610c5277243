"""What may happen to NATS and to the store of snapshots in a chaos run: down, emptied, lost, damaged, set back.

Invariant: NATS runs after each of these events, on the files that the event left.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

import nats

from tests.cluster.chaos_cluster import Cluster


class Nats:
    """Events of the nats-server and its streams."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._server = cluster.server
        self._disk = self._server.folder / self._server.name
        self._prefix = cluster.nodes[0].sections["nats"]["stream_prefix"]
        self._tails: list[Path] = []
        self.events = [
            self.stop_nats,
            self.kill_nats,
            self.delete_stream,
            self.purge_stream,
            self.lose_nats_disk,
            self.take_tail,
            self.take_tail,
            self.lose_tail,
            self.lose_tail,
        ]

    def stop_nats(self) -> None:
        """Stop NATS for a while, with writes in it."""
        self._server.stop()
        self._cluster.write()
        self._server.start()

    def kill_nats(self) -> None:
        """Kill NATS for a while."""
        self._server.kill()
        self._cluster.write()
        self._server.start()

    def delete_stream(self) -> None:
        """Delete a stream."""
        self._request(f"$JS.API.STREAM.DELETE.{self._prefix}-0")

    def purge_stream(self) -> None:
        """Empty a stream."""
        self._request(f"$JS.API.STREAM.PURGE.{self._prefix}-0")

    def _request(self, subject: str) -> None:
        async def ask() -> None:
            client = await nats.connect(self._server.url)
            await client.request(subject, b"", timeout=30)
            await client.close()

        asyncio.run(ask())

    def lose_nats_disk(self) -> None:
        """Lose everything that NATS has."""
        self._server.stop()
        shutil.rmtree(self._disk)
        self._server.start()

    def take_tail(self) -> None:
        """Copy NATS's files, to go back to them later."""
        copy = self._cluster.site.folder / f"tail-{len(self._tails)}"
        self._server.stop()
        shutil.copytree(self._disk, copy)
        self._server.start()
        self._tails.append(copy)

    def lose_tail(self) -> None:
        """Let NATS go back to what it was a while ago."""
        if not self._tails:
            return
        self._server.stop()
        shutil.rmtree(self._disk)
        shutil.copytree(self._tails[-1], self._disk)
        self._server.start()


class Snapshots:
    """Events of the store."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._copies: list[Path] = []
        self.events = [self.save, self.take_store, self.old_store, self.damage_snapshot, self.empty_store]

    def save(self) -> None:
        """Ask for a snapshot, whether that can be or not."""
        node = self._cluster.some()
        if node.alive:
            node.command("snapshot", "save")

    def take_store(self) -> None:
        """Copy the store; what a node is writing into it may be gone under the copy's hands."""
        copy = self._cluster.site.folder / f"store-{len(self._copies)}"
        copy.mkdir()
        for path in list(self._store.iterdir()):
            with suppress(FileNotFoundError):
                shutil.copy(path, copy)
        self._copies.append(copy)

    def old_store(self) -> None:
        """Let the store go back."""
        if self._copies:
            self.empty_store()
            shutil.copytree(self._cluster.random.choice(self._copies), self._store, dirs_exist_ok=True)

    def damage_snapshot(self) -> None:
        """Alter the newest snapshot."""
        found = sorted(path for path in self._store.glob("snapshot-*") if path.suffix != ".json")
        with suppress(FileNotFoundError, IndexError):  # there is none, or a node takes it out, or it is still empty
            data = bytearray(found[-1].read_bytes())
            data[len(data) // 2] ^= 0x10
            found[-1].write_bytes(data)

    def empty_store(self) -> None:
        """Lose all snapshots."""
        for path in list(self._store.iterdir()):
            path.unlink(missing_ok=True)
