// Package partner runs a principal or mirror beside a database.
//
// A Partner is made with New, runs with Run until its context ends, and is asked by its other methods. It finds out by
// itself which role it has; the program around it does not have to know.
//
//	p, err := partner.New(cfg)
//	registry.MustRegister(metrics.NewCollector(p.Metrics), p.Timings())
//	err = p.Run(ctx)
//
// What it knows of the database goes through package backend: the program gives it one in Config.Backend, for
// PostgreSQL that of package pglog. The rest of this page is about PostgreSQL.
//
// # How a commit travels
//
// In safety FULL a commit on the principal waits, by synchronous_standby_names, until the mirror has hardened it. The
// mirror's partner reads the principal's server itself, over the replication protocol; the principal's partner is not
// in the way and may be restarted without stopping commits. What the mirror has hardened it redoes on its own.
//
// # What a Partner owns
//
// On its server: schema dbmirror, publication dbmirror, replication slots and names in synchronous_standby_names that
// begin with dbmirror_ and the first eight digits of the session, the connection limit and the read-only default of the
// mirrored database. In Dir: the state file, which database it belongs to, the hardened log, damaged ones that were set
// aside, the journal, files of lost transactions, and what the backend keeps. A Partner ends every client session of the
// database when it may not serve.
package partner
