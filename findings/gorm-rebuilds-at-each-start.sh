#!/usr/bin/env bash
# GORM (Go): on SQLite AutoMigrate makes a table again at each start of the program, if a column is decimal(10,2) or has
# an expression as its default.
#
# Versions:  gorm.io/gorm v1.31.2, gorm.io/driver/sqlite v1.6.0, mattn/go-sqlite3 v1.14.53, Go 1.26; needs a C compiler
# Guess:     AutoMigrate changes what differs from the model. A second start with the same model changes nothing.
# Behaviour: SQLite's schema gives such a type or default back in another form than GORM compares it with, so it differs at
#            each start, and the column is "altered": a new table, all rows copied, the old one dropped. Each time
#            triggers and indexes that aren't in the model go, and AUTOINCREMENT counts from the largest id that is
#            left, so the id of a deleted row is given out again.
# For users: HarmonyLite's triggers come back by themselves, and the copy sends no row; but each start costs the writer and the
#            node a look at all rows. type:decimal or numeric without digits, defaults that are constants; or run AutoMigrate
#            only when the model has changed, and create triggers and indexes after it.
#
# Output:
#   size:100 with default:'x': made again at the second start: false, triggers 1, indexes 1, next id 10
#   type:decimal(10,2): made again at the second start: true, triggers 0, indexes 0, next id 3
#   default:(lower('X')): made again at the second start: true, triggers 0, indexes 0, next id 3
#   as stated
source "$(dirname "$0")/lib/lab.bash"
export GOPATH=$work/go GOCACHE=$work/cache GOFLAGS=-modcacherw CGO_ENABLED=1
mkdir "$work/main" && cd "$work/main"
cat > main.go <<'GO'
package main

import (
	"fmt"
	"os"

	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
)

type plain struct {
	ID   uint
	Name string `gorm:"size:100;default:'x'"`
}

type decimal struct {
	ID   uint
	Name float64 `gorm:"type:decimal(10,2)"`
}

type expression struct {
	ID   uint
	Name string `gorm:"default:(lower('X'))"`
}

func (plain) TableName() string      { return "t" }
func (decimal) TableName() string    { return "t" }
func (expression) TableName() string { return "t" }

var changed bool

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func start(model any) *gorm.DB {
	db, err := gorm.Open(sqlite.Open("file:a.db"), &gorm.Config{})
	must(err)
	must(db.AutoMigrate(model))
	return db
}

func number(db *gorm.DB, sql string) (n int) {
	must(db.Raw(sql).Scan(&n).Error)
	return n
}

func look(what string, model any, stated string) {
	os.Remove("a.db")
	db := start(model)
	for _, sql := range []string{
		"CREATE TABLE log(x)",
		"CREATE TRIGGER mine AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (new.id); END",
		"CREATE INDEX fast ON t(name DESC)",
		"INSERT INTO t(id) VALUES (1), (2), (9)",
		"DELETE FROM t WHERE id = 9",
	} {
		must(db.Exec(sql).Error)
	}
	first := number(db, "PRAGMA schema_version")
	pool, err := db.DB()
	must(err)
	pool.Close()
	db = start(model)
	seen := fmt.Sprintf("%v, triggers %d, indexes %d, next id %d", number(db, "PRAGMA schema_version") != first,
		number(db, "SELECT count(*) FROM sqlite_master WHERE name = 'mine'"),
		number(db, "SELECT count(*) FROM sqlite_master WHERE name = 'fast'"),
		number(db, "SELECT seq + 1 FROM sqlite_sequence WHERE name = 't'"))
	fmt.Printf("%s: made again at the second start: %s\n", what, seen)
	if seen != stated {
		fmt.Printf("   <- CHANGED, stated is %s\n", stated)
		changed = true
	}
}

func main() {
	look("size:100 with default:'x'", &plain{}, "false, triggers 1, indexes 1, next id 10")
	look("type:decimal(10,2)", &decimal{}, "true, triggers 0, indexes 0, next id 3")
	look("default:(lower('X'))", &expression{}, "true, triggers 0, indexes 0, next id 3")
	if changed {
		os.Exit(1)
	}
	fmt.Println("as stated")
}
GO
go mod init finding 2>/dev/null
go get gorm.io/gorm@v1.31.2 gorm.io/driver/sqlite@v1.6.0 github.com/mattn/go-sqlite3@v1.14.53 2>/dev/null
go run .
