// What libraries for Node.js that know nothing of a write-ahead log do to a file: `rewriting.js LIBRARY FILE`.
"use strict";
const fs = require("fs");
const [library, file] = process.argv.slice(2);

if (library === "sql.js") {
  require("sql.js")().then((SQL) => {
    const db = new SQL.Database(fs.readFileSync(file));
    db.run("INSERT INTO v VALUES ('program', 'written')");
    fs.writeFileSync(file, Buffer.from(db.export()));
  });
} else {
  const { Database } = require("node-sqlite3-wasm");
  try {
    new Database(file).run("INSERT INTO v VALUES ('program', 'written')");
  } catch (error) {
    console.log(String(error));
  }
}
