// Package pglog is what mirroring knows of PostgreSQL: it reads the log of the principal's server, redoes it in the
// mirror's, and handles both servers: who may write, whom commits wait for, slots, sequences, the first copy.
//
// It has no roles and decides nothing. A partner is told its duty by the session and carries it out with these parts:
//
//	Stream     reads the principal's log into the hardened log and reports what is hardened
//	Redo       redoes the hardened log here, each transaction exactly once
//	Server     the administrative access to a server: gate, wait, slots, sequences, record of role sequences
//	Baseline   makes the mirror's database an exact copy, as of where a slot starts
//	Preflight  finds what stands in the way, with the statement that mends it
//	Compare    counts and sums the rows on both servers; Drift compares the definitions
//
// # A mirror from nothing
//
// On the principal, once:
//
//	err = principal.EnsureSchema(ctx)                            // schema and publication, before any slot
//	snapshot, err := principal.CreateSlotWithSnapshot(ctx, slot) // log from here on is kept
//	err = principal.WriteReign(ctx, Reign{Session: session, Seq: seq, Slot: slot, Start: snapshot.Start, SystemID: id})
//	_, err = Baseline(ctx, BaselineConfig{Principal: p, Mirror: m, Snapshot: snapshot.Name})
//	err = snapshot.Close()
//
// The copy stands where the slot starts. Both the hardened log and the redone position begin there:
//
//	start := mirror.Position{Seq: seq, LSN: snapshot.Start}
//	err = queue.Reset(start)
//	err = EnsureProgress(ctx, conn)
//	err = SetProgress(ctx, tx, session, start)
//
// From then on, on the mirror, two loops that share only the hardened log (package redo) and end alone:
//
//	stream, err := NewStream(StreamConfig{DSN: p, Slot: slot, Publication: Publication, ApplicationName: name, Seq: seq})
//	go stream.Run(ctx, queue)
//	redo, err := NewRedo(RedoConfig{DSN: m, Session: session})
//	go redo.Run(ctx, queue)
//
// # How a commit waits
//
// Server.WaitMirror lists the mirror's name in synchronous_standby_names; the walsender of that name then releases a
// commit when the stream has reported its end hardened. That a setting is shown, even to a new session, does not mean
// that commits wait: the server's checkpointer has to read it first, which can take as long as a checkpoint. So every
// change is proven by a probe, a commit of ours that is seen waiting, or returning. Walsenders of a former name are
// ended first, because they go on releasing commits until they have read the new one.
//
// The setting is the server's: commits of all its databases wait, and other sessions and the operator's standbys may be
// in it. It is changed under a lock of the whole server, names that are not ours stay, and each of them is waited for.
//
// A commit is released without the mirror when somebody cancels or ends its session while it waits, when it runs with
// synchronous_commit local or off, and, for readers, when the server crashes: what waited is visible after the start.
// Health.CheckpointerStart tells of every such crash, that of one session included, which PostmasterStart does not.
//
// # What the stream takes care of
//
// It starts at the end of the hardened log, never at the slot's own position, which may step back or lie ahead, and
// refuses with a *GapError whatever would lose log without a word from the server. It answers every keepalive at once,
// since a commit without published rows is released by nothing else, and repeats its report every StatusEvery. It never
// reports a position beyond what it has received: the server would believe it, and no commit would wait any more until
// it is restarted. Large transactions are sent while they run (logical_decoding_work_mem is 4 MB for our walsender),
// so little is left to send at their commit; those that are rolled back stay in the log and are not redone.
//
// # Redo
//
// Many transactions of the principal become one here: the net change of each key, written as arrays. What cannot be
// combined is redone row by row, in the order of the log. The redone position is a row that changes in the same
// transaction. Triggers and foreign keys do not fire. A transaction that cannot be redone stops redo with a *RedoError;
// it is left out only by Redo.Skip, and the databases are not equal from then on.
//
// # The gate
//
// Server.SetGate has three positions: open; read-only, by default_transaction_read_only, for a mirror in service;
// closed, by a connection limit of zero, with every session ended. Each is proven before it is reported. Proof says what
// it means to an ordinary user, the owner and a superuser, whom nothing holds off.
//
// # What is not in the log
//
// DDL, sequences, large objects and rows of unlogged tables. Sequences are sampled (SampleSequences, StoreSequences) and
// moved past what may have been handed out (AdvanceSequences); the rest is found by preflight or Drift.
//
// # Servers
//
// PostgreSQL 15 to 18, as superuser: the closed database shuts out every other role. What differs, and is dealt with:
//
//	16 to 18   a walsender can miss that log was flushed, until it hears from its reader: repeated reports end that
//	17, 18     a slot that was given up says why; in 18 idle_replication_slot_timeout can be the reason
//	17, 18     a slot's position survives an orderly stop; before, it may step back to the last save
//
// # What is kept on a server
//
// Schema dbmirror with its tables, publication dbmirror, replication slots, names in synchronous_standby_names that
// begin with Server.WaitPrefix, and the database's connection limit and read-only default. Connections are named
// 'dbmirror ...' in pg_stat_activity and commit locally, so that no administration waits for a mirror that is gone; the
// probe, which is there to wait, is the exception. Redo leaves out schema dbmirror: it belongs to its server.
//
// # Secrets
//
// Connection strings are of type Secret, which prints a mask. No error, finding or log line holds one, and none of the
// texts made here holds row data; RedoError.Key does, and the server's own errors that are wrapped may.
package pglog
