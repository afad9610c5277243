#!/usr/bin/env bash
# mattn/go-sqlite3 (Go): a text that isn't a time is read from a DATETIME column as the year 1, also into a string.
#
# Versions:  github.com/mattn/go-sqlite3 v1.14.53, Go 1.26; needs a C compiler
# Guess:     What the driver can't parse it hands over as it is stored, or it says so: Scan returns an error. Who scans into
#            a string gets the text.
# Behaviour: In a column declared DATE, DATETIME or TIMESTAMP each text is parsed, whatever Scan's target is. One that is in
#            none of the driver's formats becomes Go's zero time, without an error: an empty text, a day by itself in
#            another order, and what modernc.org/sqlite stores by default (a zone's name at the end). A program that reads
#            a row and writes it back stores 0001-01-01 instead. An expression has no declared type: CAST shows the text.
# For users: The nodes hand on texts bit for bit, so a Go program meets what other languages wrote. Declare such columns
#            TEXT, or SELECT CAST(at AS TEXT).
#
# Output:
#   "2026-11-27 11:00:00.5+01:00": 2026-11-27T11:00:00.5+01:00, error <nil>
#   "": 0001-01-01T00:00:00Z, error <nil>
#   "27.11.2026": 0001-01-01T00:00:00Z, error <nil>
#   "2026-11-27 11:00:00.5 +0100 CET": 0001-01-01T00:00:00Z, error <nil>
#   "27.11.2026" as a time.Time: 0001-01-01 00:00:00 +0000 UTC, error <nil>
#   "27.11.2026" by CAST: 27.11.2026, error <nil>
#   "27.11.2026" stored after it was read and written back: 0001-01-01 00:00:00+00:00
#   as stated
source "$(dirname "$0")/lib/lab.bash"
export GOPATH=$work/go GOCACHE=$work/cache GOFLAGS=-modcacherw
mkdir "$work/main" && cd "$work/main"
cat > main.go <<'GO'
package main

import (
	"database/sql"
	"fmt"
	"os"
	"time"

	_ "github.com/mattn/go-sqlite3"
)

var changed bool

func expect(what string, seen, stated string) {
	fmt.Printf("%s: %s\n", what, seen)
	if seen != stated {
		fmt.Printf("   <- CHANGED, stated is %s\n", stated)
		changed = true
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// as stores a text, and returns what a query gives of it in a target's type, and Scan's error.
func as[T any](db *sql.DB, text, expression string) string {
	_, err := db.Exec("REPLACE INTO t VALUES (1, ?)", text)
	must(err)
	var target T
	err = db.QueryRow("SELECT " + expression + " FROM t").Scan(&target)
	return fmt.Sprintf("%v, error %v", target, err)
}

func main() {
	db, err := sql.Open("sqlite3", ":memory:")
	must(err)
	db.SetMaxOpenConns(1)
	_, err = db.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, at DATETIME)")
	must(err)

	known := "2026-11-27 11:00:00.5+01:00"
	expect(fmt.Sprintf("%q", known), as[string](db, known, "at"), "2026-11-27T11:00:00.5+01:00, error <nil>")
	for _, text := range []string{"", "27.11.2026", "2026-11-27 11:00:00.5 +0100 CET"} {
		expect(fmt.Sprintf("%q", text), as[string](db, text, "at"), "0001-01-01T00:00:00Z, error <nil>")
	}
	day := "27.11.2026"
	zero := "0001-01-01 00:00:00 +0000 UTC, error <nil>"
	expect(fmt.Sprintf("%q as a time.Time", day), as[time.Time](db, day, "at"), zero)
	expect(fmt.Sprintf("%q by CAST", day), as[string](db, day, "CAST(at AS TEXT)"), day+", error <nil>")

	var at time.Time
	must(db.QueryRow("SELECT at FROM t").Scan(&at))
	_, err = db.Exec("UPDATE t SET at = ?", at)
	must(err)
	var text string
	must(db.QueryRow("SELECT CAST(at AS TEXT) FROM t").Scan(&text))
	expect(fmt.Sprintf("%q stored after it was read and written back", day), text, "0001-01-01 00:00:00+00:00")
	if changed {
		os.Exit(1)
	}
	fmt.Println("as stated")
}
GO
go mod init finding 2>/dev/null
go get github.com/mattn/go-sqlite3@v1.14.53 2>/dev/null
go run .
