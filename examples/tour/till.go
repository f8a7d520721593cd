package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/f19126b3/dbmirror/partner/sqlitelog"
)

// makeEmbedded is what the clients have before mirroring begins. The trigger keeps the balances: what it does is
// mirrored like everything else, and is not done again at the mirror.
const makeEmbedded = `
	CREATE TABLE account (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance INTEGER NOT NULL DEFAULT 0);
	CREATE TABLE payment (ticket INTEGER PRIMARY KEY AUTOINCREMENT, client INTEGER NOT NULL, number INTEGER NOT NULL,
		account INTEGER NOT NULL REFERENCES account, amount INTEGER NOT NULL, paid TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
	CREATE TRIGGER booked AFTER INSERT ON payment BEGIN
		UPDATE account SET balance = balance + NEW.amount WHERE id = NEW.account;
	END;
	CREATE TABLE article (code TEXT PRIMARY KEY, price REAL, attributes TEXT, picture BLOB) WITHOUT ROWID;
	CREATE TABLE visit (day TEXT, page TEXT, visits INTEGER, PRIMARY KEY (day, page));
	CREATE TABLE upload (part INTEGER, content BLOB);
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
		INSERT INTO account (id, owner) SELECT i, 'owner ' || i FROM n;
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
		INSERT INTO article SELECT 'A' || i, i * 1.07, json_object('weight', i % 17, 'colour', iif(i % 3 > 0, 'red', NULL)), randomblob(32) FROM n;
	WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 3999)
		INSERT INTO visit SELECT date('2025-11-01', '+' || i / 40 || ' days'), '/page/' || i % 40, i FROM n`

// till is the application of the embedded tour. It lives in the process of a partner, and its clients call it over HTTP.
// On the mirror it answers what only reads.
func till(db *sqlitelog.DB) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /payments", func(w http.ResponseWriter, r *http.Request) {
		var o order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ticket, err := book(context.WithoutCancel(r.Context()), db, o)
		reply(w, ticket, err)
	})
	mux.HandleFunc("GET /payments", func(w http.ResponseWriter, r *http.Request) {
		all, err := readBooks(r.Context(), db)
		reply(w, all, err)
	})
	mux.HandleFunc("POST /uploads", func(w http.ResponseWriter, r *http.Request) {
		reply(w, nil, upload(r.Context(), db))
	})
	mux.HandleFunc("GET /end", func(w http.ResponseWriter, _ *http.Request) { reply(w, db.End(), nil) })
	mux.HandleFunc("GET /sums", func(w http.ResponseWriter, r *http.Request) {
		sums, err := db.Sums(r.Context())
		reply(w, sums, err)
	})
	return mux
}

// reply writes what was done, or what is known of what was not.
func reply(w http.ResponseWriter, v any, err error) {
	var elsewhere *sqlitelog.NotServingError
	var unconfirmed *sqlitelog.UnconfirmedError
	switch {
	case err == nil:
		_ = json.NewEncoder(w).Encode(v) // whoever asked has gone away
	case errors.As(err, &unconfirmed):
		http.Error(w, err.Error(), http.StatusGatewayTimeout)
	case errors.As(err, &elsewhere):
		http.Error(w, err.Error(), http.StatusMisdirectedRequest)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// book makes one payment. When it returns without an error, the mirror has it on disk.
func book(ctx context.Context, db *sqlitelog.DB, o order) (ticket int64, err error) {
	err = db.Write(ctx, func(conn *sqlite.Conn) error {
		err := sqlitex.Execute(conn, "INSERT INTO payment (client, number, account, amount) VALUES (?, ?, ?, ?)",
			&sqlitex.ExecOptions{Args: []any{o.Client, o.Number, o.Account, o.Amount}})
		ticket = conn.LastInsertRowID()
		return err
	})
	return ticket, err
}

// books are all payments that one partner holds.
type books struct {
	Payments [][4]int64 // client, number, rows, ticket
	Balanced bool
}

func readBooks(ctx context.Context, db *sqlitelog.DB) (all books, err error) {
	err = db.Read(ctx, func(conn *sqlite.Conn) error {
		err := sqlitex.Execute(conn, "SELECT client, number, count(*), max(ticket) FROM payment GROUP BY client, number",
			&sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
				var row [4]int64
				for i := range row {
					row[i] = stmt.ColumnInt64(i)
				}
				all.Payments = append(all.Payments, row)
				return nil
			}})
		if err != nil {
			return err
		}
		return sqlitex.Execute(conn, "SELECT (SELECT sum(balance) FROM account) = (SELECT coalesce(sum(amount), 0) FROM payment)",
			&sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
				all.Balanced = stmt.ColumnBool(0)
				return nil
			}})
	})
	return all, err
}

// uploadMiB is the size of an upload. It has to be more than the system keeps on the way between two processes.
const uploadMiB = 8

// upload writes so much in one transaction that it is not shipped at once.
func upload(ctx context.Context, db *sqlitelog.DB) error {
	content := make([]byte, 1<<20)
	rand.Read(content)
	return db.Write(ctx, func(conn *sqlite.Conn) error {
		for i := range uploadMiB {
			err := sqlitex.Execute(conn, "INSERT INTO upload (part, content) VALUES (?, ?)", &sqlitex.ExecOptions{Args: []any{i, content}})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
