// What each Go driver does beside a node, by way of database/sql: `values FILE`, `timeout FILE`, `think FILE COUNT MS`.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strconv"
	"time"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func values(connection *sql.Conn) {
	background := context.Background()
	_, err := connection.ExecContext(background, "PRAGMA busy_timeout = 5000")
	must(err)
	transaction, err := connection.BeginTx(background, nil)
	must(err)
	var seen string
	must(transaction.QueryRow("SELECT value FROM v WHERE id = 'theirs'").Scan(&seen))
	for name, value := range map[string]any{
		"null": nil, "integer": int64(9223372036854775807), "real": 0.1, "text": "grüß'e",
		"blob": []byte{0, 255, 0}, "read": seen,
	} {
		_, err = transaction.Exec("INSERT INTO v VALUES (?, ?)", name, value)
		must(err)
	}
	must(transaction.Commit())
}

func think(connection *sql.Conn, count int, pause time.Duration) int {
	background := context.Background()
	_, err := connection.ExecContext(background, "PRAGMA busy_timeout = 5000")
	must(err)
	failed := 0
	for n := 0; n < count; n++ {
		transaction, err := connection.BeginTx(background, nil)
		must(err)
		var value int
		must(transaction.QueryRow("SELECT n FROM t WHERE id = 1").Scan(&value))
		time.Sleep(pause)
		if _, err = transaction.Exec("UPDATE t SET n = ? WHERE id = 1", n); err == nil {
			err = transaction.Commit()
		}
		if err != nil {
			failed++
			transaction.Rollback()
		}
		time.Sleep(2 * time.Millisecond)
	}
	return failed
}

func main() {
	database, err := sql.Open(driver, os.Args[2])
	must(err)
	connection, err := database.Conn(context.Background())
	must(err)
	switch os.Args[1] {
	case "values":
		values(connection)
	case "timeout":
		var found int
		must(connection.QueryRowContext(context.Background(), "PRAGMA busy_timeout").Scan(&found))
		fmt.Println(found)
	case "think":
		count, _ := strconv.Atoi(os.Args[3])
		milliseconds, _ := strconv.Atoi(os.Args[4])
		fmt.Println(think(connection, count, time.Duration(milliseconds)*time.Millisecond))
	}
}
