#!/usr/bin/env bash
# sqlx (Rust): after another process has changed a table, SELECT * gives values under the names of other columns.
#
# Versions:  sqlx 0.9.0 (sqlite, runtime-tokio), Rust 1.95; needs cargo and a C compiler
# Guess:     SQLite prepares a statement again when the schema has changed, so a row has the columns of the new schema, or there
#            is an error.
# Behaviour: A connection keeps prepared statements, and with each the names of its columns as they were at first. SQLite does
#            prepare it again; the names stay. Where a column was dropped and another one added, or columns were
#            put in another order by a rebuild, get("name") returns the value of another column, without an error, for as
#            long as the connection lives; other changes end the connection. Statements that name their columns are right,
#            and so is SELECT * with persistent(false). The drivers for Node.js, Java and Go look again.
# For users: A node changes the schema under connections that are open. Name the columns, or restart the
#            program when a migration has arrived.
#
# Output:
#   before: title = title of the book, shelf = B7
#   SELECT *: title = B7, shelf = 2026
#   SELECT *, persistent(false): shelf = B7, year = 2026
#   SELECT id, shelf, year: shelf = B7, year = 2026
#   as stated
source "$(dirname "$0")/lib/lab.bash"
export CARGO_TARGET_DIR=$work/target DATABASE=$work/a.db
mkdir -p "$work/main/src" && cd "$work/main"
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["sqlite", "runtime-tokio"] }
tokio = { version = "=1.54.1", features = ["rt"] }
TOML
cat > src/main.rs <<'RUST'
use std::process::{exit, Command};

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

const BEFORE: &str = "CREATE TABLE book(id INTEGER PRIMARY KEY, title TEXT, shelf TEXT);
    INSERT INTO book VALUES (1, 'title of the book', 'B7')";
const MIGRATION: &str = "BEGIN; ALTER TABLE book DROP COLUMN title;
    ALTER TABLE book ADD COLUMN year TEXT DEFAULT '2026'; COMMIT";

fn other_process(sql: &str) {
    let code = "import os, sqlite3, sys; sqlite3.connect(os.environ['DATABASE']).executescript(sys.argv[1])";
    assert!(Command::new("python3").args(["-c", code, sql]).status().unwrap().success());
}

fn shown(row: &SqliteRow, names: [&str; 2]) -> String {
    names.map(|name| format!("{name} = {}", row.get::<String, _>(name))).join(", ")
}

fn expect(what: &str, seen: String, stated: &str) -> bool {
    println!("{what}: {seen}");
    if seen != stated {
        println!("   <- CHANGED, stated is {stated}");
    }
    seen == stated
}

async fn look() -> bool {
    other_process(BEFORE);
    let path = format!("sqlite:{}", std::env::var("DATABASE").unwrap());
    let mut db = SqliteConnection::connect(&path).await.unwrap();
    let row = sqlx::query("SELECT * FROM book").fetch_one(&mut db).await.unwrap();
    let mut same = expect("before", shown(&row, ["title", "shelf"]), "title = title of the book, shelf = B7");
    other_process(MIGRATION);
    let row = sqlx::query("SELECT * FROM book").fetch_one(&mut db).await.unwrap();
    same &= expect("SELECT *", shown(&row, ["title", "shelf"]), "title = B7, shelf = 2026");
    let row = sqlx::query("SELECT * FROM book").persistent(false).fetch_one(&mut db).await.unwrap();
    same &= expect("SELECT *, persistent(false)", shown(&row, ["shelf", "year"]), "shelf = B7, year = 2026");
    let row = sqlx::query("SELECT id, shelf, year FROM book").fetch_one(&mut db).await.unwrap();
    same &= expect("SELECT id, shelf, year", shown(&row, ["shelf", "year"]), "shelf = B7, year = 2026");
    same
}

fn main() {
    let same = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(look());
    println!("{}", if same { "as stated" } else { "changed" });
    exit(if same { 0 } else { 1 });
}
RUST
cargo run --quiet
