#!/usr/bin/env bash
# modernc.org/sqlite (Go): a time.Time is stored as Go prints it, which SQLite's date functions don't read, and Go
# itself not always.
#
# Versions:  modernc.org/sqlite v1.62.0, Go 1.26
# Guess:     A time.Time goes into a DATETIME column as ISO 8601, so datetime(at), comparisons with
#            CURRENT_TIMESTAMP and other languages understand it.
# Behaviour: It is stored by String(): "2026-11-27 11:00:00.5 +0100 CET", for time.Now() with "m=+0.0001" at the
#            end. datetime() of it is NULL, and another language can't parse it. The driver itself reads it back as
#            a string, not as a time.Time, for a zone whose name Go's layout doesn't match. _time_format=sqlite in
#            the data source name stores ISO 8601.
# For users: Each value travels as it is, bit for bit, so the other nodes' applications get these texts. Set
#            _time_format=sqlite, or bind t.UTC().Format(time.RFC3339Nano) yourself.
#
# Output:
#   stored: 2026-11-27 11:00:00.5 +0100 office
#   datetime(at): <nil>
#   read back by Go as: string
#   time.Now() has m=+ in it: true
#   with _time_format=sqlite: 2026-11-27 11:00:00.5+01:00
#   datetime(at): 2026-11-27 10:00:00
#   read back by Go as: time.Time
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
	"strings"
	"time"

	_ "modernc.org/sqlite"
)

var changed bool

func expect(what string, seen, stated any) {
	fmt.Printf("%s: %v\n", what, seen)
	if seen != stated {
		fmt.Printf("   <- CHANGED, stated is %v\n", stated)
		changed = true
	}
}

func stored(name string, at time.Time) (text string, date any, back string) {
	db, err := sql.Open("sqlite", name)
	if err != nil {
		panic(err)
	}
	defer db.Close()
	for _, statement := range []string{"DROP TABLE IF EXISTS t", "CREATE TABLE t(at DATETIME)"} {
		if _, err := db.Exec(statement); err != nil {
			panic(err)
		}
	}
	if _, err := db.Exec("INSERT INTO t VALUES (?)", at); err != nil {
		panic(err)
	}
	var value any
	if err := db.QueryRow("SELECT CAST(at AS TEXT), datetime(at), at FROM t").Scan(&text, &date, &value); err != nil {
		panic(err)
	}
	return text, date, fmt.Sprintf("%T", value)
}

func main() {
	at := time.Date(2026, 11, 27, 11, 0, 0, 500000000, time.FixedZone("office", 3600))
	text, date, back := stored("file:a.db", at)
	expect("stored", text, "2026-11-27 11:00:00.5 +0100 office")
	expect("datetime(at)", date, nil)
	expect("read back by Go as", back, "string")
	text, _, _ = stored("file:a.db", time.Now())
	expect("time.Now() has m=+ in it", strings.Contains(text, "m=+"), true)
	text, date, back = stored("file:a.db?_time_format=sqlite", at)
	expect("with _time_format=sqlite", text, "2026-11-27 11:00:00.5+01:00")
	expect("datetime(at)", date, "2026-11-27 10:00:00")
	expect("read back by Go as", back, "time.Time")
	if changed {
		os.Exit(1)
	}
	fmt.Println("as stated")
}
GO
go mod init finding 2>/dev/null
go get modernc.org/sqlite@v1.62.0 2>/dev/null
go run .
