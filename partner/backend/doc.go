// Package backend is what a partner needs of a kind of database: the interfaces, and the types that pass through them.
//
// Package partner owns the order of things and every promise of the session; a backend knows its database. The partner
// calls the backend, never the other way round, and imports none: the program gives it one in partner.Config. Package
// pglog is the one for PostgreSQL.
//
// # The interfaces
//
//	Backend    opens the database, and says in words why it cannot
//	Database   the database on this side, all of the following:
//	  Probe      does it answer, which one is it, how far is its log
//	  Gate       who may write
//	  Commits    whom commits wait for
//	  Reigns     where the log of a role sequence begins, and keeping it for the mirror
//	  Barriers   the last commit of a principal that hands over
//	  Tail       what a former principal has that the present one has not
//	  Follower   harden the principal's log, and redo it
//	  Seeder     make this database a copy of the principal's
//	  Examiner   what stands in the way
//	  Verifier   count and sum the rows
//	Peer       the other side's database, as seen from here
//	Undoer, Sampler, Acceptor
//	           what only some databases can do or need
//
// # Positions
//
// An LSN is a place in the log of one database, and means nothing in another's. The log of a database only grows, and each
// of its transactions ends at an LSN above that of the one before. The unit is the backend's: bytes where it can be, since
// lags are shown as bytes. Zero is no place.
//
// # Commits
//
// In safety FULL no commit may return on the principal before the mirror that Commits.WaitMirror named has hardened it.
// Between Stream.Run and the other side's Commits the report of what is hardened is the backend's own matter, and so are
// speed and grouping: nothing of the partner lies between a message that arrives, Log.Append, Log.Harden and the report.
//
// # Errors
//
// The partner tries again what fails, unless the error says that this cannot help: it then has a method
// Reason() mirror.Reason (see [ReasonOf]) and suspends the session for that reason. An error for people names its cause
// and its mend. It shows no secret and no row data.
//
// # Crashes
//
// The program can end between any two calls, and inside each. Every method can be called again and then completes what
// was begun; one that changes something has it on disk when it returns without error.
//
// # Concurrency
//
// The methods of a Database and a Peer are called from several goroutines at the same time. Those of Gate that change it
// are called by one at a time, and so are those of Commits, Reigns, Barriers, Tail and Seeder. A context that ends must
// end the call soon.
package backend
