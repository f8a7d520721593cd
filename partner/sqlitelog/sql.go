package sqlitelog

import (
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"
)

// run executes a statement with parameters; the driver keeps it prepared.
func run(conn *sqlite.Conn, sql string, params ...Value) error {
	return query(conn, sql, nil, params...)
}

// query executes a statement and calls row for each row of its result.
func query(conn *sqlite.Conn, sql string, row func(*sqlite.Stmt) error, params ...Value) (err error) {
	stmt, err := conn.Prepare(sql)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, finish(stmt)) }()
	for i, p := range params {
		p.bind(stmt, i+1)
	}
	for {
		more, err := stmt.Step()
		if err != nil || !more {
			return err
		}
		if row != nil {
			if err := row(stmt); err != nil {
				return err
			}
		}
	}
}

// finish leaves a statement as the next user wants it. Its error was told by Step.
func finish(stmt *sqlite.Stmt) error {
	_ = stmt.Reset()
	return stmt.ClearBindings()
}

// runOnce executes a statement that is not worth keeping prepared.
func runOnce(conn *sqlite.Conn, sql string) error {
	stmt, rest, err := conn.PrepareTransient(sql)
	if err != nil {
		return err
	}
	defer stmt.Finalize()
	if rest > 0 {
		return fmt.Errorf("more than one statement in %.60q", sql)
	}
	for {
		more, err := stmt.Step()
		if err != nil || !more {
			return err
		}
	}
}

// number reads a result of one row and one column, zero where there is no row.
func number(conn *sqlite.Conn, sql string, params ...Value) (n int64, err error) {
	err = query(conn, sql, func(stmt *sqlite.Stmt) error {
		n = stmt.ColumnInt64(0)
		return nil
	}, params...)
	return n, err
}

func textValue(s string) Value    { return Value{Kind: Text, Bytes: []byte(s)} }
func intValue(n int64) Value      { return Value{Kind: Integer, Int: n} }
func blobValue(data []byte) Value { return Value{Kind: Blob, Bytes: data} }
