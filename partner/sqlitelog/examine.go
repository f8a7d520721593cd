package sqlitelog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// Examine looks for what cannot be mirrored.
func (d *database) Examine(ctx context.Context, as mirror.Role) ([]backend.Finding, error) {
	server := "principal"
	if as == mirror.RoleMirror {
		server = "mirror"
	}
	var findings []backend.Finding
	err := d.inspect(ctx, func(conn *sqlite.Conn) error {
		return query(conn, "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table'", func(stmt *sqlite.Stmt) error {
			name, sql := stmt.ColumnText(0), stmt.ColumnText(1)
			if ours(name) || internal(name) {
				return nil
			}
			why := judgeTable(conn, name, sql)
			if why != nil {
				findings = append(findings, backend.Finding{Severity: backend.Fatal, Code: CodeTable, Server: server,
					Object: quote(name), Text: why.Error()})
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("examine the tables: %w", err)
	}
	if free, known := backend.FreeBytes(d.directory()); known && as == mirror.RolePrincipal {
		findings = append(findings, backend.SendingSpace(server, d.directory(), free, d.env.LogBudget)...)
	}
	return findings, nil
}

// directory is where the database lies, its log and a copy that it becomes.
func (d *database) directory() string { return filepath.Dir(d.cfg.Path) }

// The kinds of findings beside backend.CodeConnect.
const (
	CodeTable   backend.Code = "table"   // a table cannot be mirrored
	CodeContent backend.Code = "content" // the mirror's database holds something
	CodeSame    backend.Code = "same"    // both partners use one database
)

func judgeTable(conn *sqlite.Conn, name, sql string) error {
	if firstWords(sql, 2) == "CREATE VIRTUAL" {
		module := strings.ToLower(moduleOf(sql))
		if why := (&guard{}).judgeModule(module); why != nil {
			return why
		}
		return nil
	}
	var refused *RefusedError
	if _, err := readTable(conn, name); errors.As(err, &refused) {
		return refused
	}
	return nil
}

// moduleOf is the word after USING.
func moduleOf(sql string) string {
	at := strings.Index(strings.ToUpper(sql), " USING ")
	if at < 0 {
		return ""
	}
	return wordAt(skipBlank(sql[at+len(" USING "):]))
}

// ExaminePair looks at both.
func (d *database) ExaminePair(ctx context.Context, pair backend.Pair) ([]backend.Finding, error) {
	theirs, err := (&peer{d}).ask(ctx, request{Ask: "content"})
	if err != nil {
		return nil, err
	}
	var findings []backend.Finding
	if theirs.ID == d.ID() {
		findings = append(findings, backend.Finding{Severity: backend.Fatal, Code: CodeSame, Server: "mirror", Object: d.cfg.Path,
			Text: "it is the same database as the principal's, or a copy of its file: give each partner a database of its own"})
	}
	ours, err := d.content(ctx)
	if err != nil {
		return nil, err
	}
	from, to := ours, theirs
	if !pair.Principal {
		from, to = theirs, ours
	}
	if !pair.Replace {
		findings = append(findings, to.replaced()...)
	}
	if to.Free != nil { // what is there stays until the copy is whole, beside it
		findings = append(findings, backend.ReceivingSpace("mirror", filepath.Dir(to.Path), *to.Free, from.Bytes)...)
	}
	return findings, nil
}

// content is what this database holds, and what room there is beside it.
func (d *database) content(ctx context.Context) (a answer, err error) {
	a.ID, a.Path = d.ID(), d.cfg.Path
	err = d.inspect(ctx, func(conn *sqlite.Conn) (err error) {
		if a.Tables, err = countTables(conn); err == nil {
			a.Bytes, err = sizeOf(conn)
		}
		return err
	})
	if free, known := backend.FreeBytes(d.directory()); known {
		a.Free = &free
	}
	return a, err
}

func countTables(conn *sqlite.Conn) (int64, error) {
	return number(conn, `SELECT count(*) FROM main.sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'dbmirror\_%' ESCAPE '\' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`)
}

// replaced finds what a copy would replace in the mirror's database, of which this is the content.
func (a answer) replaced() []backend.Finding {
	if a.Tables == 0 {
		return nil
	}
	return []backend.Finding{{Severity: backend.Fatal, Code: CodeContent, Server: "mirror", Object: a.Path,
		Text: fmt.Sprintf("the mirror's database holds %d tables, which a copy would replace: empty it, or allow to replace it", a.Tables)}}
}

// sizeOf is how many bytes a copy of the database has.
func sizeOf(conn *sqlite.Conn) (int64, error) {
	pages, err := number(conn, "PRAGMA page_count")
	if err != nil {
		return 0, err
	}
	size, err := number(conn, "PRAGMA page_size")
	return pages * size, err
}
