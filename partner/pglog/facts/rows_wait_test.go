package facts

// waiting has the rows about commits that wait.
func waiting() []fact {
	return []fact{
		{id: "P1", claim: "With names in synchronous_standby_names and no standby of such a name, commits wait, shown as SyncRep and invisible to others; another standby does not count.",
			relies: []string{"partner/pglog/wait.go WaitBlock", "partner/pglog/probe.go waits"}, test: waitsForTheNamed},
		{id: "O1.1", claim: "Names are compared without regard to case.",
			relies: []string{"partner/pglog/walsender.go"}, test: namesIgnoreCase},
		{id: "O1.2", claim: "A standby counts from its first status with a flush position on, not from its connection.",
			relies: []string{"partner/pglog/stream_loop.go newReadLoop"}, test: countsAfterTheFirstReport},
		{id: "O1.3", claim: "remote_write, on and remote_apply are released by the write, flush and apply position, exactly at the end of the commit; off and local wait for nothing.",
			relies: []string{"partner/pglog/status.go appendStatus", "docs/guarantees.md"}, test: releasedExactlyAtTheEnd},
		{id: "O1.4", claim: "A commit with published rows waits for its own end and for nothing behind it.",
			relies: []string{"partner/pglog/stream_loop.go commit"}, test: endsSuffice},
		{id: "O1.5", claim: "Decoders are sent a commit before it is acknowledged, so a mirror may hold what no client was told of.",
			relies: []string{"docs/guarantees.md", "partner/pglog/stream_loop.go"}, test: decodedBeforeAcknowledged},
	}
}

// waysOut has the rows about commits that stop waiting without the standby.
func waysOut() []fact {
	return []fact{
		{id: "P2", claim: "A cancel request during the wait makes the command succeed, visible and unmirrored, with warning 01000 that names synchronous replication.",
			relies: []string{"partner/pglog/probe.go startProbe", "docs/guarantees.md", "examples/service/outcome.go"}, test: cancelSucceeds},
		{id: "P3", claim: "Ending the session during the wait makes its commit visible; the client gets warning 57P01, then the end of the connection.",
			relies: []string{"partner/pglog/probe.go startProbe", "docs/guarantees.md"}, test: terminatePublishes},
		{id: "O2.1", claim: "statement_timeout does not end the wait.", versions: "17 and 18: nor does transaction_timeout",
			relies: []string{"docs/guarantees.md"}, test: timeoutsDoNotEndTheWait},
		{id: "T15", claim: "A driver whose context ends during COMMIT sends a cancel request: the commit is visible and unmirrored, and nobody sees a warning.",
			relies: []string{"partner/pglog/probe.go startProbe", "docs/guarantees.md"}, test: deadlinePublishes},
		{id: "O2.2", claim: "A client that vanishes leaves its commit waiting, invisible, also with client_connection_check_interval.",
			relies: []string{"partner/pglog/probe.go endStaleProbes", "partner/pglog/probe.go end"}, test: vanishedClientWaitsOn},
		{id: "O2.3", claim: "A fast stop ends waiting commits as the end of their sessions does, without a standby, and they are visible after the start.",
			relies: []string{"docs/guarantees.md"}, test: fastStopPublishes, crashes: true},
		{id: "O2.4", claim: "The command of a commit whose wait was cancelled returns no error, so only its notice tells.",
			relies: []string{"examples/service/outcome.go"}, with: "P2"},
		{id: "P8", claim: "Any session may set synchronous_commit to local or off, and then waits for nobody.",
			relies: []string{"docs/guarantees.md", "partner/pglog/preflight_server.go syncCommit"}, test: anybodyMayOptOut},
	}
}

// changing has the rows about changes of whom commits wait for.
func changing() []fact {
	return []fact{
		{id: "P4", claim: "Taking the names out releases all who wait, as successful, when the checkpointer has read it and not before, whatever is shown.",
			relies: []string{"partner/pglog/wait.go WaitNone", "partner/pglog/probe.go proveReturned"}, test: clearingReleasesAll},
		{id: "O3.1", claim: "A name that is shown to new sessions is not in force before the checkpointer has read it; until then commits return at once.",
			relies: []string{"partner/pglog/probe.go proveWaiting"}, test: shownIsNotInForce},
		{id: "O3.2", claim: "One commit that is seen to wait proves that all later ones wait.",
			relies: []string{"partner/pglog/probe.go proveWaiting"}, pinned: []string{"partner/pglog.TestWaitMirrorLetsNothingSlip"}},
		{id: "O3.3", claim: "A walsender goes on releasing commits under its former name until it has read the new setting.",
			relies: []string{"partner/pglog/walsender.go"}, test: formerNameStillReleases},
		{id: "O3.4", claim: "Who waited under a name that was taken out and is put back is released by the next report, not by the setting.",
			relies: []string{"partner/pglog/stream_loop.go drained"}, test: changedBackIsReleasedByAReport},
		{id: "O3.5", claim: "Administration that is a transaction waits like any commit unless it commits locally: ALTER DATABASE hangs and its change is not seen.",
			relies: []string{"partner/pglog/server.go connConfig"}, test: administrationWaits},
		{id: "O3.6", claim: "ALTER SYSTEM and pg_reload_conf() do not wait.",
			relies: []string{"partner/pglog/wait.go put"}, with: "O3.5"},
	}
}

// restarts has the rows about servers that were ended.
func restarts() []fact {
	return []fact{
		{id: "P5", claim: "After a crash what was waiting is visible to the first who comes, with no standby connected.",
			relies: []string{"docs/guarantees.md"}, test: crashPublishes, crashes: true},
		{id: "P7", claim: "After a start no commit slips through before the names are in force.", versions: "from 15.13, 16.9 and 17.5 on; preflight warns of older ones",
			relies: []string{"partner/pglog/wait.go", "partner/pglog/preflight_server.go oldestMinor"}, pinned: []string{"partner/pglog.TestWaitNoneDoesNotSurviveARestart"}},
		{id: "T16", claim: "A crash or restart does not wait for the standby: transactions that waited are read before the mirror has them.",
			relies: []string{"docs/guarantees.md"}, with: "P5"},
		{id: "O4.1", claim: "The crash of any session, in whatever database, makes waiting commits visible while the postmaster lives on.",
			relies: []string{"docs/guarantees.md", "partner/datapath.go"}, test: crashOfASessionPublishes, crashes: true},
		{id: "O4.2", claim: "The start time of the checkpointer changes with every crash, that of one session included; the postmaster's does not.",
			relies: []string{"partner/pglog/server.go Ping"}, pinned: []string{"partner/pglog.TestPingTellsCrashFromRestart"}},
		{id: "O4.3", claim: "A server that starts refuses connections with 57P03.",
			idle: "every failed connection is tried again alike; preflight only explains the code"},
		{id: "O4.4", claim: "A crash makes the server forget a report beyond its end.",
			relies: []string{"partner/pglog/probe.go ErrNotWaiting"}, with: "P6"},
		{id: "O14.1", claim: "A login trigger can keep everybody out of a database that has just started.", versions: "17 and 18 only",
			idle: "the gate that starts closed is not built; docs/guarantees.md says so"},
		{id: "O14.2", claim: "A connection limit is a stored value: a server that was serving starts open.",
			relies: []string{"docs/guarantees.md"}, with: "P5"},
	}
}

// beyond has the rows about reports beyond the end of the log.
func beyond() []fact {
	return []fact{
		{id: "P6", claim: "A report beyond what was sent is believed: from then on no commit waits, whatever name is set, until the server is restarted.",
			versions: "17 and 18 save the slot's poisoned position at an orderly stop; 15 and 16 only when it was written for another reason",
			relies:   []string{"partner/pglog/status.go appendStatus", "partner/pglog/probe.go proveWaiting"}, test: reportBeyondTheEnd, crashes: true},
		{id: "O5.1", claim: "A lower report afterwards, the end of the connection and another name take nothing back.",
			relies: []string{"partner/pglog/probe.go ErrNotWaiting"}, with: "P6"},
		{id: "O5.2", claim: "A slot beyond the end of the log sends nothing to a new receiver, and no error.",
			relies: []string{"partner/pglog/stream_check.go check"}, with: "P6"},
		{id: "O5.3", claim: "By a slot beyond the end of the log a commit can be released by the answer to a keepalive, though it was never sent; we refuse such a slot.",
			relies: []string{"partner/pglog/stream_check.go check"}, pinned: []string{"partner/pglog.TestServerRefusals/slot poisoned"}},
		{id: "O5.4", claim: "START_REPLICATION beyond the end of the log is accepted, and what is written up to there is passed over.",
			relies: []string{"partner/pglog/stream_check.go check"}, test: startBeyondTheEnd},
		{id: "O5.5", claim: "A probe commit that returns at once shows the poisoned state.",
			relies: []string{"partner/pglog/probe.go proveWaiting"}, pinned: []string{"partner/pglog.TestWaitIsNotBelievedAfterAReportBeyondTheEnd"}},
	}
}

// closing has the rows about a database that is closed.
func closing() []fact {
	return []fact{
		{id: "P9", claim: "In pg_hba.conf the word replication admits physical replication only; a logical walsender comes by the line of its database.",
			relies: []string{"docs/operations.md", "partner/pglog/preflight_connect.go"}, test: hbaReplicationIsPhysical},
		{id: "O6.1", claim: "CONNECTION LIMIT 0 refuses the owner and ordinary roles with 53300 and lets superusers in.",
			relies: []string{"partner/pglog/gate.go judge"}, pinned: []string{"partner/pglog.TestGateStrength"}},
		{id: "O6.2", claim: "CONNECTION LIMIT 0 does not count connections for replication: a new walsender gets in, and SQL runs there; sessions that are there stay.",
			relies: []string{"partner/pglog/gate.go narrowGate", "docs/guarantees.md"}, test: limitDoesNotCountReplication},
		{id: "O6.3", claim: "ALLOW_CONNECTIONS false refuses walsenders and superusers too, so the log could not be read by who comes back.",
			relies: []string{"partner/pglog/gate.go narrowGate"}, test: allowConnectionsShutsOutTheLog},
		{id: "O6.4", claim: "The owner can lift the limit from another database.",
			relies: []string{"docs/guarantees.md"}, pinned: []string{"partner/pglog.TestGateStrength"}},
		{id: "O6.5", claim: "From a server that refuses for its connection limit pgx goes on to the next one of its list, libpq does not; from one that is read-only by default both go on when they ask for read-write.",
			relies: []string{"docs/guarantees.md", "partner/pglog/gate.go"}, test: clientsStepOver},
		{id: "O6.6", claim: "REVOKE CONNECT refuses a walsender without the right.",
			idle: "the gate takes no rights away: it would have to give them back"},
		{id: "R50", claim: "A session that is starting does not show in pg_stat_activity, and may have read the settings from before they changed.",
			relies: []string{"partner/pglog/gate.go settledSessions"}, pinned: []string{"partner/pglog.TestGateCatchesSessionsThatAreStarting"}},
		{id: "R58", claim: "target_session_attrs=read-write finds the server whose database is not read-only by default.",
			relies: []string{"docs/guarantees.md"}, pinned: []string{"partner.TestClientsFindThePrincipal"}},
	}
}
