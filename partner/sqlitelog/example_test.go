package sqlitelog_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/f19126b3/dbmirror/partner/sqlitelog"
)

// A database that no session has had yet is open to clients. A partner gets it by Backend.
func Example() {
	dir, err := os.MkdirTemp("", "sqlitelog")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db, err := sqlitelog.Open(sqlitelog.Config{Path: filepath.Join(dir, "app.db")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	ctx := context.Background()
	err = db.Write(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.ExecuteScript(conn, "CREATE TABLE greeting (text); INSERT INTO greeting VALUES ('hello')", nil)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = db.Read(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, "SELECT text FROM greeting", &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
			fmt.Println(stmt.ColumnText(0))
			return nil
		}})
	})
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(db.Write(ctx, func(conn *sqlite.Conn) error { return sqlitex.ExecuteTransient(conn, "ATTACH 'x.db' AS x", nil) }))
	// Output:
	// hello
	// ATTACH, DETACH and VACUUM cannot be mirrored: use the one database that this DB has
}
