// Knex's migrations: `knex.js FILE COUNT`.
"use strict";
const [file, count] = process.argv.slice(2);
const migrations = {
  books: (db) =>
    db.schema.createTable("books", (t) => {
      t.string("id").primary();
      t.string("title").notNullable();
      t.string("note");
    }),
  author: (db) =>
    db.schema.alterTable("books", (t) => {
      t.string("author").defaultTo("nobody").index("index_books_on_author");
    }),
  title: (db) => db.schema.alterTable("books", (t) => t.renameColumn("title", "name")),
  note: async (db) => {
    await db("books").whereNull("author").update({ author: "nobody" });
    await db.schema.alterTable("books", (t) => {
      t.dropColumn("note");
      t.string("author").defaultTo("nobody").notNullable().alter();
      t.integer("pages").defaultTo(0);
    });
    await db("books").update({ pages: 7 });
  },
};
const names = Object.keys(migrations).slice(0, Number(count));
const db = require("knex")({
  client: "better-sqlite3",
  connection: { filename: file },
  useNullAsDefault: true,
  migrations: {
    migrationSource: {
      getMigrations: async () => names,
      getMigrationName: (name) => name,
      getMigration: async (name) => ({ up: migrations[name], down: async () => {} }),
    },
  },
});
db.migrate
  .latest()
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  })
  .finally(() => db.destroy());
