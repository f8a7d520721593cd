// Package sqlitelog mirrors a SQLite database inside the process that owns it, without cgo.
//
//	db, err := sqlitelog.Open(sqlitelog.Config{Path: "app.db"})
//	err = db.Write(ctx, func(conn *sqlite.Conn) error { ... })  // one transaction
//	err = db.Read(ctx, func(conn *sqlite.Conn) error { ... })   // one state, cannot write
//
// The connection is that of zombiezen.com/go/sqlite. A partner gets the database by DB.Backend. On the principal, in
// safety FULL, Write returns when the mirror has hardened the transaction, and Read when it has hardened all that was
// read, as a commit of PostgreSQL is not seen before it is hardened. While one Write waits for the mirror, the next
// runs. On a mirror in service Read works; what is not let in gets a *NotServingError. It names the principal, as
// the partner knows it: by the other one's endpoint, or by Config.PeerURL, where clients reach it.
//
// # What is recorded
//
// SQLite's pre-update hook, on which its session extension is built too, tells of each row before it changes, whoever
// changes it: the statement, a trigger, a foreign key, REPLACE. The first time, what the row was is kept; before the
// commit the row is read again, and the difference goes into table dbmirror_log in the same SQLite transaction. So what
// was rolled back to a savepoint, or by a statement that failed half-way, is not in it.
//
// Rows are known by their rowid, or by their key in a table WITHOUT ROWID. Tables without a key, with NULL in a key, or
// with a key that ignores case are mirrored like any other, and rowids are the same on both sides. Full text (fts5) and
// rtree tables are mirrored by the ordinary tables that they keep their content in.
//
// Statements that change the schema are recorded as text, in order: before one runs, the rows changed until then are
// read and recorded. What it does to rows of other tables, as DROP TABLE does by foreign keys, is recorded as rows. The
// hash of the whole schema follows and is compared where it is redone. What AUTOINCREMENT counts on from, PRAGMA
// user_version and PRAGMA application_id are compared before and after each transaction.
//
// # What is refused
//
// Whatever could not be redone exactly ends in a *RefusedError on the Write, which is rolled back: BEGIN, COMMIT,
// ATTACH, VACUUM, pragmas that change how the file or the connection works, virtual tables of other modules, a
// transaction larger than Config.MaxTransaction, a transaction that has changed the schema and is rolled back to a
// savepoint, one that SQLite has rolled back by itself (OR ROLLBACK), whatever is done after that, a function that makes a
// session of its own on the connection, changes of the statistics that are not ANALYZE's. The rules are enforced by
// SQLite's authorizer and by its commit hook, which lets only Write commit: nothing can be written on a connection that a
// function has kept.
//
// Something else that writes to the file, another process or connection, is found by the next transaction under the
// write lock (PRAGMA data_version): a *ForeignWriterError, and nothing is written or mirrored any more. After a restart the
// principal goes on, and what was written stays; its log has a gap, so that the mirror is copied anew. What is written
// while no program of this library has the file open is not found; comparing the sums (DB.Sums) does.
//
// # The log
//
// A position is the number of bytes of log since the database was made, 32 for each part of a transaction added. It
// only rises, and is kept in the database. Log is kept for as long as a mirror has not hardened it, and given back in the
// transactions of clients. Each database has a random identity; a copy gets its own.
//
// The principal serves its log on a connection that the mirror's partner makes (Backend, Acceptor). All that has arrived
// at the mirror goes to its hardened log (package redo) with one sync, and then is reported.
//
// # Redo and undo
//
// Redo makes many transactions of the principal one here, together with the redone position. Within a part of a
// transaction rows that disappear go first and new ones come last, so that none is in another's way in a unique index;
// rows that exchange unique values are taken out and put back. Each row must be as the transaction found it, otherwise
// redo stops with a *RedoError: a conflict is divergence and is never resolved. Triggers do not fire; foreign keys and
// checks are not looked at, since the principal has.
//
// Undo takes back what was committed after a position, in one transaction, by the inverse of each change in reverse
// order, once Tail has saved it. A tail that changed the schema cannot be undone.
//
// # A copy
//
// A copy of the principal's database is its pages as one read transaction sees them, and the log stands where they do.
// It is received beside the mirror's file, checked, given the mirror's own identity, synced, and takes the file's place
// in steps of which each can be the last before a crash; Open goes on.
//
// # What is kept in a database
//
// Tables whose names begin with dbmirror_. They are not mirrored, and clients can read but not change them. The journal
// is WAL, with synchronous=FULL.
//
// # Sources
//
// sqlite.org: c3ref/preupdate_blobwrite (hooks), c3ref/set_authorizer, c3ref/commit_hook, c3ref/c_trace, pragma
// (data_version, schema_version), lang_conflict, rowidtable, withoutrowid, autoinc, wal, dbpage, sessionintro (what the
// session extension leaves out: tables without a key, rows with NULL in it, and the schema).
package sqlitelog
