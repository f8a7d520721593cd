// Package pgtest starts throwaway PostgreSQL servers, for the tests of this module, for its examples, and for tests of
// programs that use it. A server is a real one: it can be killed with all its processes at once, stopped in each of
// PostgreSQL's modes, frozen, and started again on the same data and port.
//
// In a test one line is enough:
//
//	server := pgtest.New(t, map[string]string{"wal_level": "logical"})
//	conn, err := pgx.Connect(ctx, server.DSN("app"))
//
// Outside tests use [Find], [Start] and [Server.Remove].
//
// # What is on disk
//
// [Config.Dir] holds data (the data directory) and server.log (what the server writes to its standard error, appended
// over restarts). Settings stand in data/postgresql.conf, so that ALTER SYSTEM overrides them as it does in service.
//
// # Accounts
//
// PostgreSQL refuses to run as root. When this process is root the server runs as the user postgres, or else as nobody;
// its directory then belongs to that user, and every directory above must be searchable for it. [Start] widens the
// directory just above, and those below [os.TempDir], to let it pass; for any other it returns an error that names the
// directory.
//
// # Nothing is left behind
//
// A server ends with the process that started it, even when that process is killed (on Linux). Directories are removed
// by [Server.Remove] only.
//
// The package works on Linux and on other Unix systems; nothing here is meant for a server whose data matter.
package pgtest
