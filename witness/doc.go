// Package witness runs the third server of mirroring sessions: it holds no database, and its vote makes automatic
// failover safe.
//
// One process serves any number of sessions at one address:
//
//	w, err := witness.New(witness.Config{
//		Dir:    "/var/lib/dbmirror-witness",
//		Listen: ":7001",
//		Sessions: []witness.Session{{
//			ID:          "00112233445566778899aabbccddeeff",
//			PartnerA:    "db-a.example.org:7000",
//			PartnerB:    "db-b.example.org:7000",
//			Credentials: endpoint.Credentials{CertFile: "witness.pem", KeyFile: "witness.key", CAFile: "session-ca.pem"},
//		}},
//	})
//	err = w.Run(ctx)
//
// # What it remembers
//
// What a witness has promised must survive it, or two partners could win the same role sequence. Each session has one
// state file in Dir, which is on disk before a vote leaves. A witness that lost a file comes back as somebody new, whom
// the session does not know; the principal's operator sets it as witness again.
//
// # What goes wrong
//
// A mistake in the configuration is an error of New, and nothing runs. A session whose state can not be read, or can not
// be written any more, is left out: its partners are refused with the cause, Sessions shows it, and the other sessions go
// on. Only when no session is left does Run return.
package witness
