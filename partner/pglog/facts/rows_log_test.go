package facts

// slots has the rows about replication slots.
func slots() []fact {
	return []fact{
		{id: "P10", claim: "START_REPLICATION below what the slot has confirmed begins at what is confirmed, without an error.",
			relies: []string{"partner/pglog/stream_check.go check"}, test: startIsMovedForward},
		{id: "P11", claim: "After a crash a slot steps back to where it was last saved; a start above it is honoured, and brings the same transactions with the same ends.",
			relies: []string{"partner/pglog/stream_loop.go newReadLoop", "partner/pglog/tail.go Tail"}, test: tailAfterCrash, crashes: true},
		{id: "T2", claim: "A slot that was advanced, made anew or copied gives a gap and no error.",
			relies: []string{"partner/pglog/stream_check.go check"}, pinned: []string{"partner/pglog.TestServerRefusals/slot ahead", "partner/pglog.TestServerRefusals/slot missing"}},
		{id: "T10", claim: "A standby that takes over from the principal's server has another timeline, and no slot.",
			relies: []string{"partner/pglog/stream_check.go checkIdentity"}, pinned: []string{"partner/pglog.TestServerTimelines", "partner/pglog.TestServerRefusals/slot missing"}},
		{id: "O7.1", claim: "An orderly stop keeps a slot's position.", versions: "17 and 18; in 15 and 16 it may step back as after a crash",
			relies: []string{"partner/pglog/stream_loop.go newReadLoop"}, pinned: []string{"partner/pglog.TestSlotAfterAnOrderlyStop"}},
		{id: "O7.2", claim: "The tail of a server that crashed can be read by its slot, while the server is closed.",
			relies: []string{"partner/pglog/tail.go Tail"}, pinned: []string{"partner/pglog.TestTailAfterCrash", "partner.TestPrincipalCutOff"}},
		{id: "O7.3", claim: "Peeking moves no slot.",
			relies: []string{"partner/pglog/tail.go Tail"}, pinned: []string{"partner/pglog.TestTailAfterCrash"}},
		{id: "O7.4", claim: "A slot that is read by somebody names the process, at the start and when asked.",
			relies: []string{"partner/pglog/stream_open.go startError", "partner/pglog/slot.go FreeSlot"}, pinned: []string{"partner/pglog.TestServerStartAfterCheckRaces"}},
		{id: "O10.1", claim: "A slot that is made waits for every open transaction that has written, in whatever database, prepared ones too, and pg_blocking_pids names them.",
			relies: []string{"partner/pglog/slot.go blockersOf"}, pinned: []string{"partner/pglog.TestSlotIsBlocked"}},
		{id: "O10.2", claim: "Transactions that only read do not hold up a slot.",
			relies: []string{"docs/guarantees.md"}, test: readersDoNotHoldUpASlot},
		{id: "O10.3", claim: "Giving up on a slot that waits leaves nothing behind.",
			relies: []string{"partner/pglog/slot.go watchSlot"}, pinned: []string{"partner/pglog.TestSlotIsBlocked"}},
		{id: "O10.4", claim: "A commit that waits for a mirror holds up the slot by which the mirror would come.",
			relies: []string{"partner/pglog/probe.go endProbe"}, pinned: []string{"partner/pglog.TestSlotIsNotHeldUpByOurProbe"}},
		{id: "T54", claim: "Advancing a slot decodes from its restart position each time.",
			idle: "no slot is ever advanced: the one for the future mirror is made while the new principal is closed"},
		{id: "R7", claim: "The half-made slot of a session that was cancelled can be dropped.",
			relies: []string{"partner/pglog/slot.go watchSlot"}, pinned: []string{"partner/pglog.TestSlotIsBlocked"}},
		{id: "R8", claim: "A slot whose log was removed says so, and cannot be started.", versions: "17 and 18 give the reason; 18 alone has idle_replication_slot_timeout",
			relies: []string{"partner/pglog/stream_check.go readSlot", "partner/pglog/preflight_server.go slotLimits"}, pinned: []string{"partner/pglog.TestServerRefusals/slot invalidated"}},
		{id: "R9", claim: "A publication that is younger than the log does not exist for it.", versions: "15 to 17 end the decoding with 42704; 18 passes over the changes with a warning in the server's log only",
			relies: []string{"partner/pglog/slot.go watchSlot", "partner/pglog/stream_check.go check"}, test: publicationMustBeOlder},
		{id: "R11", claim: "System identifier and timeline tell another server and a restored one.",
			relies: []string{"partner/pglog/identity.go ReadIdentity"}, pinned: []string{"partner/pglog.TestServerTimelines", "partner/pglog.TestServerIdentity"}},
		{id: "R45", claim: "The snapshot that is exported with a slot shows the database as of where the slot starts.",
			relies: []string{"partner/pglog/baseline.go Baseline"}, pinned: []string{"partner/pglog.TestSlotWithSnapshot"}},
		{id: "R46", claim: "An exported snapshot goes with its connection, the slot stays.",
			relies: []string{"partner/pglog/slot.go SlotSnapshot"}, pinned: []string{"partner/pglog.TestSlotWithSnapshot"}},
	}
}

// keepalives has the rows about what releases commits without rows.
func keepalives() []fact {
	return []fact{
		{id: "P12", claim: "A commit without published rows is told by a keepalive that asks for no answer, and is released by the report of its position.",
			relies: []string{"partner/pglog/stream_loop.go keepalive"}, test: keepaliveReleases},
		{id: "T13", claim: "Commits of other databases wait for the mirror too, and are released by the answers to keepalives.",
			relies: []string{"partner/pglog/stream_loop.go keepalive", "docs/guarantees.md"}, pinned: []string{"partner/pglog.TestServerReleasesCommitsWithoutRows"}},
		{id: "O8.1", claim: "The keepalive of a passed-over transaction does not ask for an answer.",
			relies: []string{"partner/pglog/stream_loop.go keepalive"}, with: "P12"},
		{id: "O8.2", claim: "A receiver that answers only when asked holds such commits up for half of wal_sender_timeout.",
			relies: []string{"partner/pglog/stream_loop.go keepalive"}, pinned: []string{"partner/pglog.TestStreamAnswersEveryKeepaliveAtOnce"}},
		{id: "O8.3", claim: "A large transaction holds up the commits of other databases while it is decoded.",
			idle: "it costs time and loses nothing"},
		{id: "O8.4", claim: "A walsender can miss that log was flushed until it hears from its receiver, whatever it hears.", versions: "seen on 16, 17 and 18, never on 15",
			relies: []string{"partner/pglog/stream_loop.go drained"}, test: missedWakeUp},
		{id: "O8.5", claim: "A status that is repeated every 50 ms bounds what a missed wake-up holds up.",
			relies: []string{"partner/pglog/stream.go"}, pinned: []string{"partner/pglog.TestStreamRepeatsStatus"}},
		{id: "R4", claim: "A report of a keepalive's position moves the slot, so a quiet database holds back no log.",
			relies: []string{"partner/pglog/stream_loop.go mark"}, pinned: []string{"partner/pglog.TestServerReleasesCommitsWithoutRows"}},
	}
}

// large has the rows about transactions that are sent while they run.
func large() []fact {
	return []fact{
		{id: "O9.1", claim: "A walsender takes logical_decoding_work_mem from its connection.",
			relies: []string{"partner/pglog/stream_open.go connConfig"}, pinned: []string{"partner/pglog.TestServerSettingsOfStream"}},
		{id: "O9.2", claim: "With streaming on and 4 MB most of a large transaction is sent before its commit.",
			relies: []string{"partner/pglog/stream_open.go connConfig"}, pinned: []string{"partner/pglog.TestServerStreamsLargeTransactions"}},
		{id: "O9.3", claim: "What is rolled back has been sent, and is marked at the end of the transaction or subtransaction.",
			relies: []string{"partner/pglog/spool.go"}, pinned: []string{"partner/pglog.TestServerStreamsLargeTransactions", "partner/pglog.TestRedoLarge"}},
		{id: "O9.4", claim: "Streaming shortens the commit of a large transaction by five to ten times.",
			idle: "a figure, not an assumption: partner/pglog has benchmarks"},
		{id: "R27", claim: "The end of a subtransaction in a stream drops its part only.",
			relies: []string{"partner/pglog/spool.go"}, pinned: []string{"partner/pglog.TestRedoLarge"}},
	}
}

// contents has the rows about what is in the log, and what is not.
func contents() []fact {
	return []fact{
		{id: "P13", claim: "The log carries rows of published tables: no definitions, large objects, unlogged tables, materialized views or sequences, and prepared transactions when they commit.",
			relies: []string{"docs/guarantees.md"}, test: onlyRowsAreCarried},
		{id: "O11.1", claim: "Event triggers could carry definitions in order, as messages.",
			idle: "definitions are not carried; docs/guarantees.md says so"},
		{id: "O11.2", claim: "Event triggers do not fire in a session with session_replication_role = replica.",
			idle: "redo changes no definitions"},
		{id: "O11.3", claim: "Anybody may write a logical message.",
			idle: "messages are redone as nothing"},
		{id: "O11.4", claim: "A rewrite of a table by ALTER TABLE sends no rows.",
			idle: "who changes definitions does so on both servers, and so rewrites both"},
		{id: "O12.1", claim: "Sequences are logged 32 values ahead: after a crash they go on behind that.",
			relies: []string{"partner/pglog/sequence_advance.go reserveLogged"}, test: sequenceJumpsAfterACrash, crashes: true},
		{id: "O12.2", claim: "Values within a logged batch are handed out without waiting for the mirror.",
			relies: []string{"partner/pglog/sequence_advance.go reserveLogged"}, test: sequenceDoesNotWaitWithinABatch},
		{id: "O12.3", claim: "A session hands out values of a sequence with a cache that the server's row does not show.",
			relies: []string{"partner/pglog/sequence_advance.go reserveSessions"}, pinned: []string{"partner/pglog.TestSequencesNeverHandOutAValueTwice"}},
		{id: "R5", claim: "A walsender gives up a receiver that is silent for wal_sender_timeout, so a receiver must speak while its log is full.",
			relies: []string{"partner/pglog/stream_loop.go stall"}, pinned: []string{"partner/pglog.TestStreamWaitsForRoom"}},
		{id: "R24", claim: "A new connection is sent again what was not confirmed.",
			relies: []string{"partner/pglog/stream_loop.go after"}, pinned: []string{"partner/pglog.TestServerCrash"}},
		{id: "R26", claim: "A crash takes away the last commits with synchronous_commit off, none before them and no part of one.",
			relies: []string{"partner/pglog/redo_session.go"}, pinned: []string{"partner/pglog.TestRedoSurvivesCrashes"}},
		{id: "R29", claim: "Values stored out of line that did not change come as a mark without the value, under every identity.",
			relies: []string{"partner/pglog/netchange.go"}, pinned: []string{"partner/pglog.TestRedoIdentities", "partner/pglog.TestTailSaysWhatChanged"}},
		{id: "R30", claim: "A published table without an identity refuses UPDATE and DELETE to everybody, with 55000.",
			relies: []string{"docs/guarantees.md", "partner/pglog/preflight_tables.go"}, test: noIdentityNoUpdate},
		{id: "R31", claim: "The text of values follows the settings of the walsender's session.",
			relies: []string{"partner/pglog/stream_open.go connConfig"}, pinned: []string{"partner/pglog.TestServerSettingsOfStream", "partner/pglog.TestRedoTypes"}},
		{id: "R32", claim: "session_replication_role = replica keeps triggers, foreign keys and rules from firing, but those marked ALWAYS or REPLICA.",
			relies: []string{"partner/pglog/redo_session.go"}, pinned: []string{"partner/pglog.TestRedoDoesNotFire"}},
		{id: "R33", claim: "Keys that are checked late may be there twice within a transaction.",
			relies: []string{"partner/pglog/redo_session.go"}, pinned: []string{"partner/pglog.TestRedoIdentities"}},
		{id: "R34", claim: "Generated columns are not sent, and identity columns take a value only with OVERRIDING SYSTEM VALUE.",
			relies: []string{"partner/pglog/redo_sql.go"}, pinned: []string{"partner/pglog.TestRedoIdentities"}},
		{id: "R35", claim: "TRUNCATE of several tables comes as one message, between the rows in their order.",
			relies: []string{"partner/pglog/redo_batch.go"}, pinned: []string{"partner/pglog.TestRedoTruncate"}},
		{id: "R53", claim: "Rows that redo writes are decoded like any others.",
			idle: "the only slot of a new principal is made after the last redo"},
	}
}

// rights has the rows about who may do what.
func rights() []fact {
	return []fact{
		{id: "P14", claim: "Where output_plugin_libraries exists its default allows pgoutput.", versions: "from 15.19, 16.15, 17.11 and 18.6 on",
			relies: []string{"partner/pglog/preflight_server.go outputPlugin"}, test: pgoutputIsAllowed},
		{id: "P15", claim: "With row_security off a query fails where a policy would leave rows out.",
			relies: []string{"partner/pglog/baseline.go"}, test: rowSecurityFails},
		{id: "O13.1", claim: "A role that is no superuser can neither publish all tables nor end a superuser's session, whatever it is granted; the rest can be granted.",
			relies: []string{"docs/guarantees.md", "partner/pglog/preflight_rights.go"}, test: onlySuperusersMay},
		{id: "O13.2", claim: "A role that may do all that can be granted shuts itself out when it closes the database.",
			relies: []string{"docs/guarantees.md"}, pinned: []string{"partner/pglog.TestGateShutsOutALesserRole"}},
		{id: "O13.3", claim: "A walsender delivers rows of tables that its role may not read.",
			idle: "the role is a superuser"},
	}
}

// pitfalls has the rows that are about none of these.
func pitfalls() []fact {
	return []fact{
		{id: "P16", claim: "pg_rewind needs two servers of one physical origin.",
			idle: "partners are unrelated servers: what diverged is saved and copied anew"},
		{id: "P17", claim: "pglogrepl reports what was received as hardened when no flush position is given.",
			relies: []string{"partner/pglog/status.go appendStatus"}, test: pglogreplFillsIn},
		{id: "T62", claim: "pglogrepl returns messages that lie in the receive buffer.",
			idle: "only tests use pglogrepl; our own reader copies into the log what it reads (TestStreamKeepsBytes)"},
		{id: "R14", claim: "A transaction that locks a table of the catalog exclusively hangs at its commit: decoding waits for its lock, and it for the decoding.",
			relies: []string{"docs/operations.md", "partner/pglog/stream_loop.go listen"}, test: catalogLocksHang},
	}
}
