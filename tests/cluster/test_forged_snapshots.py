"""Somebody who can write to the store, and is no member, leaves a snapshot there: nobody starts from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.snapshots.archive import pack, unpack
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until
from tests.cluster.test_snapshots import insert, listed, written

pytestmark = pytest.mark.timeout(300)


def forge(store: Path, name: str, sql: str, values: tuple[str, ...] = ()) -> None:
    """Change a snapshot in the store by ``sql``, and its description so that it fits."""
    note = store / f"{name}.json"
    said: dict[str, Any] = json.loads(note.read_text())
    plain = store.parent / "forged.db"
    unpack(store / name, plain, said["sha256"])
    connection = apsw.Connection(str(plain))
    connection.execute(sql, values)
    connection.close()
    said["sha256"] = pack(plain, store / name)
    said |= {"size": plain.stat().st_size, "bytes": (store / name).stat().st_size}
    note.write_text(json.dumps(said))


def wipe(node: Node) -> None:
    for path in node.folder.iterdir():
        if path not in (node.config, node.log):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("forged", ["schema", "rows"])
def test_a_forged_snapshot_is_refused_and_the_one_before_it_is_used(site: Site, forged: str) -> None:
    store, key, marker = site.folder / "store", site.folder / "key", site.folder / "marker"
    store.mkdir()
    sections: dict[str, dict[str, Any]] = {"snapshot": {"store": "file"}, "snapshot.file": {"path": str(store)}}
    server = site.server()
    node = site.node("a", urls=[server.url], sections=sections)
    node.write_config()
    if forged == "rows":
        assert node.command("nkey", "generate", "-o", str(key))[0] == 0
        node.sections["snapshot"]["sign_key"] = str(key)
    start([node])
    for n in (1, 2):
        written(node, insert(n))
        assert node.command("snapshot", "save")[0] == 0
    newest = str(listed(node)[0]["name"])
    assert node.stop() == 0
    if forged == "rows":
        forge(store, newest, "UPDATE events SET note = 'forged'")
    else:
        sql = f"CREATE TABLE x(y); ATTACH '{marker}' AS m; CREATE TABLE m.marker(x)"
        forge(store, newest, "INSERT INTO __harmonylite__schema VALUES ('table', 'x', 'x', ?)", (sql,))

    server.stop()  # whose pointer knows the SHA-256 of the honest one
    shutil.rmtree(server.folder / server.name)
    for command, name in (("restore", "restored.db"), ("fetch", "fetched.db")):
        code, said = node.command("snapshot", command, "-o", str(node.folder / name))
        assert code == 0, said
        assert f"snapshot {newest} is refused: " in said
        connection = apsw.Connection(str(node.folder / name))
        assert connection.execute("SELECT id, note FROM events").fetchall() == [("a-1", None)]
        connection.close()
    code, said = node.command("snapshot", "fetch", newest, "-o", str(node.folder / "x.db"))
    assert (code, "is refused: " in said) == (9, True), said
    assert not (node.folder / "x.db").exists()

    server.start()
    wipe(node)
    node.start()
    said = f"snapshot {newest} is refused: "
    # until there is a new one health names it, which may be for a moment
    until(lambda: node.waits(said) or said in node.log.read_text(), "it is told")
    node.ready()
    assert node.rows("SELECT id, note FROM events") == [("a-1", None)]
    node.logged(said)
    assert not marker.exists()
    if key.exists():
        seed = next(line for line in key.read_text().splitlines() if line.startswith("SU"))
        assert seed not in node.log.read_text()
