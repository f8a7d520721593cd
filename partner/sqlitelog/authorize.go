package sqlitelog

import (
	"strings"

	"zombiezen.com/go/sqlite"
)

// guard says, when a statement is compiled, whether a client may run it: inside a transaction of Write, or of Read, which
// are begun and ended here, and on nothing but what is mirrored. What it refuses it remembers, for a better error than
// SQLite's "not authorized".
type guard struct {
	writes  bool // a client may write here
	trusted bool // this package's own statements
	refused *RefusedError
}

// Authorize is called by SQLite.
func (g *guard) Authorize(a sqlite.Action) sqlite.AuthResult {
	if g.trusted {
		return sqlite.AuthResultOK
	}
	if why := g.judge(a); why != nil {
		g.refused = why
		return sqlite.AuthResultDeny
	}
	return sqlite.AuthResultOK
}

// own runs f with this package's rights.
func (g *guard) own(f func() error) error {
	former := g.trusted
	g.trusted = true
	defer func() { g.trusted = former }()
	return f()
}

func (g *guard) judge(a sqlite.Action) *RefusedError {
	switch a.Type() {
	case sqlite.OpTransaction:
		return &RefusedError{a.Operation() + " inside of Write or Read", "return from the function instead, with an error to roll back; SAVEPOINT is allowed"}
	case sqlite.OpAttach, sqlite.OpDetach:
		return &RefusedError{"ATTACH, DETACH and VACUUM cannot be mirrored", "use the one database that this DB has"}
	case sqlite.OpPragma:
		return g.judgePragma(strings.ToLower(a.Pragma()), a.PragmaArg())
	case sqlite.OpCreateVTable:
		return g.judgeModule(strings.ToLower(a.Module()))
	case sqlite.OpInsert, sqlite.OpUpdate, sqlite.OpDelete, sqlite.OpDropTable, sqlite.OpAlterTable, sqlite.OpCreateTable,
		sqlite.OpCreateIndex, sqlite.OpCreateTrigger, sqlite.OpCreateTempTrigger:
		if a.Database() == "temp" && a.Type() != sqlite.OpCreateTempTrigger {
			return nil
		}
		if t := a.Table(); ours(t) || strings.EqualFold(t, "sqlite_dbpage") {
			return &RefusedError{"table " + t + " is not for clients", "leave it alone"}
		}
	}
	return nil
}

// judgeModule lets through the virtual tables that keep their content in ordinary ones.
func (g *guard) judgeModule(name string) *RefusedError {
	switch name {
	case "fts5", "rtree", "rtree_i32", "geopoly":
		return nil
	}
	return &RefusedError{"virtual tables of module " + name + " cannot be mirrored: their content may be outside of the database", "use ordinary tables"}
}

// judgePragma lets through what reads, and what is mirrored.
func (g *guard) judgePragma(name, arg string) *RefusedError {
	switch name {
	case "table_info", "table_xinfo", "table_list", "index_info", "index_xinfo", "index_list", "foreign_key_list",
		"foreign_key_check", "integrity_check", "quick_check", "collation_list", "function_list", "module_list",
		"pragma_list", "compile_options", "database_list":
		return nil
	case "user_version", "application_id":
		return nil
	case "defer_foreign_keys":
		return nil
	}
	if arg == "" && readablePragma(name) {
		return nil
	}
	return &RefusedError{"PRAGMA " + name + " is not for clients", "settings of connections are in Config; what concerns the file cannot be changed while it is mirrored"}
}

func readablePragma(name string) bool {
	switch name {
	case "schema_version", "data_version", "encoding", "page_count", "page_size", "freelist_count", "foreign_keys",
		"journal_mode", "synchronous", "auto_vacuum", "cache_size", "query_only", "recursive_triggers", "busy_timeout":
		return true
	}
	return false
}
