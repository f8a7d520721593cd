// Package facts holds what this library assumes of PostgreSQL, one test an assumption, and nothing else.
//
// Each row of the table has an id, the claim in one sentence, who relies on it, and exactly one answer to how it is
// held: by a test here, by a test elsewhere in the module that pins it already, or by nobody, with the reason why nothing
// rests on it. Where versions differ the row says what each does, and its test asks the server which one it is.
//
//	go test ./partner/pglog/facts -v -run TestTable                # the table
//	go test ./partner/pglog/facts -v                               # and every fact on the server that is found
//	DBMIRROR_PG_BIN=/path/to/bin go test ./partner/pglog/facts     # on that server
//
// A fact that fails on a new version of PostgreSQL is no broken test: it is a reason to change the code that stands in
// the row, and then the row.
//
// # Ids
//
//	P   what the protocol stands on: P1 to P17
//	T   pitfalls of mirroring by logical decoding that need proof before anything may rest on them
//	R   the other pitfalls in which the server's own behaviour matters
//	O   observations, numbered by subject: O1 waiting, O2 the ways out of it, O3 changing whom commits wait for, O4
//	    restarts, O5 reports beyond the end, O6 closing a database, O7 the slot, O8 keepalives, O9 large transactions,
//	    O10 the slot of a new principal, O11 schema changes, O12 sequences, O13 rights, O14 the window after a restart
//
// The tests talk to servers with a plain client and a receiver under their own control, never through the library.
package facts
