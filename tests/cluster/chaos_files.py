"""What may happen to the files of nodes in a chaos run: lost, damaged, or put back from an old copy.

Invariant: a disk takes with it only what was not published; so it is lost, and a backup put back, at rest.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import apsw

from tests.cluster.chaos_cluster import PATIENCE, Cluster
from tests.cluster.processes import Node, until

PAGE = 4096


class Files:
    """The events."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._backups: dict[str, list[Path]] = {node.name: [] for node in cluster.nodes}
        self.events = [
            self.lose_disk,
            self.lose_mirror,
            self.damage_mirror,
            self.damage_database,
            self.take_backup,
            self.take_backup,
            self.restore_database,
            self.restore_under_a_node,
            self.restore_folder,
        ]

    def lose_disk(self) -> None:
        """Lose all files of a node."""
        node = self._cluster.some()
        self._cluster.rest(node)
        node.kill()
        _clear(node)
        node.start()
        node.ready(PATIENCE)

    def lose_mirror(self) -> None:
        """Delete a mirror, after a kill."""
        node = self._cluster.some()
        self._cluster.kill(node)
        for path in _mirror(node).parent.glob("mirror.db*"):
            path.unlink()
        node.start()

    def damage_mirror(self) -> None:
        """Scribble over a page of a mirror, whether its node runs or not."""
        self._scribble(_mirror(self._cluster.some()))

    def damage_database(self) -> None:
        """Scribble over a page of the database of a killed node."""
        node = self._cluster.some()
        self._cluster.rest(node)
        node.kill()
        connection = apsw.Connection(str(node.db))
        connection.pragma("wal_checkpoint", "truncate")  # what is in the WAL would hide the damage
        connection.close()
        self._scribble(node.db)
        node.start()
        node.ready(PATIENCE)

    def _scribble(self, path: Path) -> None:
        # a running node may heal its mirror meanwhile
        with suppress(FileNotFoundError), path.open("r+b") as file:
            if (pages := os.fstat(file.fileno()).st_size // PAGE) >= 4:
                file.seek(PAGE * self._cluster.random.randint(1, pages - 1))
                file.write(b"\xa5" * PAGE)

    def take_backup(self) -> None:
        """Copy a database by VACUUM, and the whole folder of the killed node, as a virtual machine's snapshot is."""
        node = self._cluster.some()
        backups = self._backups[node.name]
        copy = self._cluster.site.folder / f"backup-{node.name}-{len(backups)}"
        copy.mkdir(exist_ok=True)
        connection = apsw.Connection(str(node.db))
        connection.set_busy_timeout(60_000)
        try:
            connection.execute("VACUUM INTO ?", (str(copy / "vacuumed.db"),))
        except apsw.CorruptError:
            (copy / "vacuumed.db").unlink(missing_ok=True)
            return
        finally:
            connection.close()
        was = node.alive
        self._cluster.kill(node)
        for path in node.folder.glob("app.db*"):
            shutil.copy(path, copy)
        if (node.folder / "mirror").exists():
            shutil.copytree(node.folder / "mirror", copy / "mirror")
        if was:
            node.start()
        backups.append(copy)

    def _backup(self) -> tuple[Node, Path] | None:
        """Return a backup and its node, all at rest; None where no backup was taken."""
        node = self._cluster.some()
        if not self._backups[node.name]:
            return None
        backup = self._cluster.random.choice(self._backups[node.name])
        self._cluster.ledger.write(node, 1)  # so the backup is behind, and that it was put back can be seen
        self._cluster.rest(node)
        return node, backup

    def restore_database(self) -> None:
        """Put an old database in place while the node is down."""
        if (chosen := self._backup()) is None:
            return
        node, backup = chosen
        self._cluster.stop(node)
        for path in node.folder.glob("app.db*"):
            path.unlink()
        shutil.copy(backup / "vacuumed.db", node.db)
        node.start()
        node.ready(PATIENCE)

    def restore_under_a_node(self) -> None:
        """Write an old database into the one of a running node, as `.restore` of the sqlite3 shell does."""
        if (chosen := self._backup()) is None:
            return
        node, backup = chosen
        opened = _opened(node)
        source, target = apsw.Connection(str(backup / "vacuumed.db")), apsw.Connection(str(node.db))
        target.set_busy_timeout(60_000)
        with target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step()
        source.close()
        target.close()
        # What is written before the node noticed would be taken for the backup's.
        until(lambda: _opened(node) > opened, f"{node.name} notices that its database went back", PATIENCE)
        node.ready(PATIENCE)

    def restore_folder(self) -> None:
        """Put database and mirror back as they were, like a virtual machine that is set back."""
        if (chosen := self._backup()) is None:
            return
        node, backup = chosen
        node.kill()
        _clear(node)
        for path in backup.glob("app.db*"):
            shutil.copy(path, node.folder)
        if (backup / "mirror").exists():
            shutil.copytree(backup / "mirror", node.folder / "mirror")
        node.start()
        node.ready(PATIENCE)


def _mirror(node: Node) -> Path:
    return node.folder / "mirror" / node.db.name / "mirror.db"


def _opened(node: Node) -> int:
    return node.log.read_text().count("replication with the files as opened")


def _clear(node: Node) -> None:
    for path in [*node.folder.glob("app.db*"), *node.folder.glob(".app.db*"), node.folder / "mirror"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
