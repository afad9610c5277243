#!/usr/bin/env bash
# apsw: Connection.data_version() doesn't notice what another process commits; PRAGMA data_version does.
#
# Versions:  apsw 3.54.1.0
# Guess:     The method is the pragma without the cost of a statement: poll it, and look at the tables when the
#            number has changed.
# Behaviour: It reads a counter in this connection's memory, which moves only when this connection reads the file.
#            Another process commits, and the number stays the same at every poll; PRAGMA data_version reads the
#            file, and from then on the method is right, too. It also counts this connection's own commits, which
#            the pragma never does.
# For users: Poll with the pragma (a few microseconds). A loop around the method waits until something else makes
#            the connection read.
#
# Output:
#   another process commits: method changed, three polls: [False, False, False]
#   another process commits: pragma changed: True
#   method changed after that: True
#   own commit: method changed: True
#   own commit: pragma changed: False
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import subprocess, sys
import apsw
from lab import WORK, expect, finish

path = str(WORK / "a.db")
db = apsw.Connection(path)
db.execute("PRAGMA journal_mode = wal").get
db.execute("CREATE TABLE t(x)")


def pragma():
    return db.execute("PRAGMA data_version").get


method, statement = db.data_version(), pragma()
other = "import apsw, sys; apsw.Connection(sys.argv[1]).execute('INSERT INTO t VALUES (1)')"
subprocess.run([sys.executable, "-c", other, path], check=True)
expect("another process commits: method changed, three polls", [db.data_version() != method for _ in range(3)], [False] * 3)
expect("another process commits: pragma changed", pragma() != statement, True)
expect("method changed after that", db.data_version() != method, True)
method, statement = db.data_version(), pragma()
db.execute("INSERT INTO t VALUES (2)")
expect("own commit: method changed", db.data_version() != method, True)
expect("own commit: pragma changed", pragma() != statement, False)
finish()
PY
