package sqlitelog

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
	"zombiezen.com/go/sqlite"
)

// The driver does not offer three things of SQLite that mirroring stands on: to be told of each row before it changes,
// to be told of each statement before it runs, and to have the last word on a commit. They are asked for directly, on
// the handle that the driver keeps, and so is who may compile what, which the driver (1.4.2) loses where a connection is
// opened while another one is closed. What the driver calls the handle is looked up once, and Open fails where that has changed.

// handle is SQLite's own connection below a driver's connection. It belongs to whoever has the connection's turn.
type handle struct {
	tls   *libc.TLS
	db    uintptr // *sqlite3
	value uintptr // room for one *sqlite3_value
	hooks hooks   // kept alive for as long as SQLite may call them
}

// hooks are called by SQLite within calls of the driver, on the goroutine of the caller.
type hooks struct {
	change   func(tls *libc.TLS, _, db uintptr, op int32, schema, table uintptr, oldKey, newKey int64)
	trace    func(tls *libc.TLS, event uint32, _, stmt, x uintptr) int32
	commit   func(tls *libc.TLS, _ uintptr) int32
	rollback func(tls *libc.TLS, _ uintptr)
	// authorize is told of the objects' names in an order that depends on what is done.
	authorize func(tls *libc.TLS, _ uintptr, op int32, first, second, schema, _ uintptr) int32
}

var errDriver = errors.New("this version of zombiezen.com/go/sqlite is built otherwise than the one in this module's go.mod: use that version")

func handleOf(conn *sqlite.Conn) (*handle, error) {
	field := reflect.ValueOf(conn).Elem().FieldByName("conn")
	if !field.IsValid() || field.Kind() != reflect.Uintptr || field.Uint() == 0 {
		return nil, errDriver
	}
	h := &handle{tls: libc.NewTLS(), db: uintptr(field.Uint())}
	if h.value = libc.Xmalloc(h.tls, 8); h.value == 0 {
		h.tls.Close()
		return nil, errors.New("out of memory")
	}
	return h, nil
}

// close gives back what the handle has. The driver's connection is closed by its owner, before.
func (h *handle) close() {
	libc.Xfree(h.tls, h.value)
	h.tls.Close()
}

// installAuthorizer makes SQLite ask whether a statement may be compiled.
func (h *handle) installAuthorizer() {
	lib.Xsqlite3_set_authorizer(h.tls, h.db, callable(h.hooks.authorize), 0)
}

// install makes SQLite call the hooks.
func (h *handle) install() {
	h.installAuthorizer()
	lib.Xsqlite3_preupdate_hook(h.tls, h.db, callable(h.hooks.change), 0)
	lib.Xsqlite3_trace_v2(h.tls, h.db, lib.SQLITE_TRACE_STMT|lib.SQLITE_TRACE_PROFILE, callable(h.hooks.trace), 0)
	lib.Xsqlite3_commit_hook(h.tls, h.db, callable(h.hooks.commit), 0)
	lib.Xsqlite3_rollback_hook(h.tls, h.db, callable(h.hooks.rollback), 0)
}

// triggersOff stops triggers from firing on this connection.
func (h *handle) triggersOff() error {
	list := libc.NewVaList(int32(0), uintptr(0))
	if list == 0 {
		return errors.New("out of memory")
	}
	defer libc.Xfree(h.tls, list)
	if rc := lib.Xsqlite3_db_config(h.tls, h.db, lib.SQLITE_DBCONFIG_ENABLE_TRIGGER, list); rc != lib.SQLITE_OK {
		return fmt.Errorf("turn triggers off: %w", sqlite.ResultCode(rc).ToError())
	}
	return nil
}

// statement is the text of a statement that runs, and whether a client gave it, rather than another statement.
func statement(tls *libc.TLS, stmt, x uintptr) (text string, outer bool) {
	text = libc.GoString(lib.Xsqlite3_sql(tls, stmt))
	return text, text == libc.GoString(x)
}

// oldValue and newValue read a column of the row that changes; they are of use within the change hook only.
func (h *handle) oldValue(tls *libc.TLS, column int) (Value, error) {
	return h.changing(tls, lib.Xsqlite3_preupdate_old(tls, h.db, int32(column), h.value))
}

func (h *handle) newValue(tls *libc.TLS, column int) (Value, error) {
	return h.changing(tls, lib.Xsqlite3_preupdate_new(tls, h.db, int32(column), h.value))
}

func (h *handle) changing(tls *libc.TLS, rc int32) (Value, error) {
	if rc != lib.SQLITE_OK {
		return Value{}, fmt.Errorf("read a row that changes: %w", sqlite.ResultCode(rc).ToError())
	}
	v := *(*uintptr)(memory(h.value))
	switch lib.Xsqlite3_value_type(tls, v) {
	case lib.SQLITE_INTEGER:
		return Value{Kind: Integer, Int: lib.Xsqlite3_value_int64(tls, v)}, nil
	case lib.SQLITE_FLOAT:
		return Value{Kind: Real, Float: lib.Xsqlite3_value_double(tls, v)}, nil
	case lib.SQLITE_TEXT:
		return Value{Kind: Text, Bytes: bytesOf(tls, lib.Xsqlite3_value_text(tls, v), v)}, nil
	case lib.SQLITE_BLOB:
		return Value{Kind: Blob, Bytes: bytesOf(tls, lib.Xsqlite3_value_blob(tls, v), v)}, nil
	}
	return Value{Kind: Null}, nil
}

// bytesOf copies the bytes of a value, which SQLite keeps for the time of the hook only.
func bytesOf(tls *libc.TLS, at, value uintptr) []byte {
	n := int(lib.Xsqlite3_value_bytes(tls, value))
	if n == 0 || at == 0 {
		return []byte{}
	}
	return append([]byte(nil), unsafe.Slice((*byte)(memory(at)), n)...)
}

// memory is the address of SQLite's memory, which is outside of Go's heap, as a pointer.
func memory(at uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&at)) }

// callable is a function as SQLite calls it. The caller keeps the function alive.
func callable[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }
