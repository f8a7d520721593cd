package sqlitelog

import (
	"strings"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// guard says, when a statement is compiled, whether a client may run it: inside a transaction of Write, or of Read, which
// are begun and ended here, and on nothing but what is mirrored. What it refuses it remembers, for a better error than
// SQLite's "not authorized".
type guard struct {
	writes  bool // a client may write here
	trusted bool // this package's own statements
	refused *RefusedError
}

// action is what a statement would do; what first and second name depends on op.
type action struct {
	op                    int32
	first, second, schema string
}

// authorize is called by SQLite.
func (g *guard) authorize(_ *libc.TLS, _ uintptr, op int32, first, second, schema, _ uintptr) int32 {
	if g.trusted {
		return lib.SQLITE_OK
	}
	if why := g.judge(action{op, libc.GoString(first), libc.GoString(second), libc.GoString(schema)}); why != nil {
		g.refused = why
		return lib.SQLITE_DENY
	}
	return lib.SQLITE_OK
}

// own runs f with this package's rights.
func (g *guard) own(f func() error) error {
	former := g.trusted
	g.trusted = true
	defer func() { g.trusted = former }()
	return f()
}

func (g *guard) judge(a action) *RefusedError {
	switch a.op {
	case lib.SQLITE_TRANSACTION:
		return &RefusedError{a.first + " inside of Write or Read", "return from the function instead, with an error to roll back; SAVEPOINT is allowed"}
	case lib.SQLITE_ATTACH, lib.SQLITE_DETACH:
		return &RefusedError{"ATTACH, DETACH and VACUUM cannot be mirrored", "use the one database that this DB has"}
	case lib.SQLITE_PRAGMA:
		return g.judgePragma(strings.ToLower(a.first), a.second)
	case lib.SQLITE_CREATE_VTABLE:
		return g.judgeModule(strings.ToLower(a.second))
	case lib.SQLITE_INSERT, lib.SQLITE_UPDATE, lib.SQLITE_DELETE, lib.SQLITE_DROP_TABLE, lib.SQLITE_CREATE_TABLE:
		return g.judgeTable(a.schema, a.first)
	case lib.SQLITE_CREATE_INDEX, lib.SQLITE_CREATE_TRIGGER:
		return g.judgeTable(a.schema, a.second)
	case lib.SQLITE_CREATE_TEMP_TRIGGER: // it may be on a table of the file
		return g.judgeTable("", a.second)
	case lib.SQLITE_ALTER_TABLE:
		return g.judgeTable(a.first, a.second)
	}
	return nil
}

func (g *guard) judgeTable(schema, table string) *RefusedError {
	if schema != "temp" && (ours(table) || strings.EqualFold(table, "sqlite_dbpage")) {
		return &RefusedError{"table " + table + " is not for clients", "leave it alone"}
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
