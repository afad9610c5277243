#!/usr/bin/env bash
# sqlite-jdbc: with transaction_mode=IMMEDIATE a connection whose autocommit is off holds the write lock also between its
# transactions.
#
# Versions:  sqlite-jdbc 3.54.1.0, Java 17 or later; needs java and mvn
# Guess:     BEGIN IMMEDIATE comes with the first statement of a transaction, and commit() sets the lock free.
# Behaviour: setAutoCommit(false) begins at once, and commit() and rollback() begin the next transaction right away. So
#            the lock is held while nothing is done, and nobody else can write until autocommit is on again or
#            the connection is closed. With DEFERRED the same BEGINs hold no lock.
# For users: With IMMEDIATE, call setAutoCommit(false) right before a transaction's work and setAutoCommit(true) after
#            its commit, and give pooled connections back in that state: a pool with auto-commit = false
#            keeps every other process from writing.
#
# Output:
#   DEFERRED autocommit off: free
#   DEFERRED after a commit: free
#   DEFERRED after a rollback: free
#   DEFERRED autocommit on: free
#   IMMEDIATE autocommit off: database is locked
#   IMMEDIATE after a commit: database is locked
#   IMMEDIATE after a rollback: database is locked
#   IMMEDIATE autocommit on: free
#   steps: 8
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages
mvn -q dependency:copy -Dartifact=org.xerial:sqlite-jdbc:3.54.1.0 -DoutputDirectory="$work/jars" >/dev/null
mvn -q dependency:copy -Dartifact=org.slf4j:slf4j-api:1.7.36 -DoutputDirectory="$work/jars" >/dev/null
mvn -q dependency:copy -Dartifact=org.slf4j:slf4j-nop:1.7.36 -DoutputDirectory="$work/jars" >/dev/null
cat > "$work/Look.java" <<'JAVA'
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.Statement;

public class Look {
    static void say(String what) throws Exception {
        System.out.println(what);
        System.out.flush();
        System.in.read();
    }

    public static void main(String[] args) throws Exception {
        for (String mode : new String[] {"DEFERRED", "IMMEDIATE"}) {
            try (Connection connection = DriverManager.getConnection(args[0] + "?transaction_mode=" + mode)) {
                connection.setAutoCommit(false);
                say(mode + " autocommit off");
                try (Statement statement = connection.createStatement()) {
                    statement.execute("INSERT INTO t VALUES (1)");
                }
                connection.commit();
                say(mode + " after a commit");
                connection.rollback();
                say(mode + " after a rollback");
                connection.setAutoCommit(true);
                say(mode + " autocommit on");
            }
        }
    }
}
JAVA
"$python" - <<'PY'
import sqlite3
import subprocess

from lab import WORK, error_of, expect, finish

file = WORK / "app.db"
db = sqlite3.connect(file, timeout=0.2, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE t(n)")
jars = ":".join(str(jar) for jar in (WORK / "jars").iterdir())
command = ["java", "-cp", jars, str(WORK / "Look.java"), f"jdbc:sqlite:{file}"]
look = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
seen = 0
for line in look.stdout:
    what = line.strip()
    locked = error_of(lambda: db.execute("BEGIN IMMEDIATE"))
    if locked == "none":
        db.execute("ROLLBACK")
    stated = "free" if what.startswith("DEFERRED") or what.endswith("on") else "database is locked"
    expect(what, "free" if locked == "none" else locked, stated)
    seen += 1
    look.stdin.write("\n")
    look.stdin.flush()
look.wait()
expect("steps", seen, 8)
finish()
PY
