// What libraries for Node.js do beside a node: `script.js LIBRARY values|timeout|think FILE [COUNT MS]`.
"use strict";
const [library, what, file, count, pause] = process.argv.slice(2);

const open = {
  "node:sqlite": () => new (require("node:sqlite").DatabaseSync)(file),
  "better-sqlite3": () => new (require("better-sqlite3"))(file),
  libsql: () => new (require("libsql"))(file),
};
const db = open[library]();
const nap = (milliseconds) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);

// The library's own transaction where it has one.
const transaction = db.transaction
  ? (work) => db.transaction(work)()
  : (work) => {
      db.exec("BEGIN");
      try {
        work();
        db.exec("COMMIT");
      } catch (error) {
        db.exec("ROLLBACK");
        throw error;
      }
    };

if (what === "timeout") {
  console.log(Object.values(db.prepare("PRAGMA busy_timeout").get())[0]);
} else if (what === "values") {
  db.exec("PRAGMA busy_timeout = 5000");
  transaction(() => {
    const seen = db.prepare("SELECT value FROM v WHERE id = 'theirs'").get().value;
    const insert = db.prepare("INSERT INTO v VALUES (?, ?)");
    for (const [name, value] of [["null", null], ["integer", 9223372036854775807n], ["real", 0.1], ["text", "gr\u00fc\u00df'e"],
                                 ["blob", Buffer.from([0, 255, 0])], ["read", seen]]) insert.run(name, value);
  });
} else {
  db.exec("PRAGMA busy_timeout = 5000");
  const read = db.prepare("SELECT n FROM t WHERE id = 1"), write = db.prepare("UPDATE t SET n = ? WHERE id = 1");
  let failed = 0;
  for (let number = 0; number < Number(count); number++) {
    try {
      transaction(() => { read.get(); nap(Number(pause)); write.run(number); });
    } catch (error) {
      console.error(String(error));
      failed++;
    }
    nap(2);
  }
  console.log(failed);
}
