package sqlitelog

import (
	"sync"

	"zombiezen.com/go/sqlite"
)

// connections makes opening and closing take turns in the whole process. The driver knows its connections by the address
// of SQLite's, and forgets one after SQLite has freed it (1.4.2, Conn.Close): a connection that was opened in between may
// have the same address, and would lose its busy handler and its functions. It guards what the driver has for the whole
// process, hence not a field.
var connections sync.Mutex

func connect(path string, flags sqlite.OpenFlags) (*sqlite.Conn, error) {
	connections.Lock()
	defer connections.Unlock()
	return sqlite.OpenConn(path, flags)
}

func disconnect(conn *sqlite.Conn) error {
	connections.Lock()
	defer connections.Unlock()
	return conn.Close()
}
