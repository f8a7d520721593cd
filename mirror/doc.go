// Package mirror holds the rules of a database mirroring session and does no I/O.
//
// Two partners hold a database; one is principal and serves, one is mirror and hardens and redoes the principal's log. A
// witness holds no data; its vote makes automatic failover safe. A Session is what one of the three knows and decides.
// It has no clock, no network, no disk, no goroutine and no random number: everything that happens to it is an Event,
// everything to be done comes back as Effects, and the same Session runs in production, in simulation and in exhaustive
// exploration (package mirrortest).
//
// # The duties of a host
//
// First, it loads the HardState that it saved last and makes a Session of it with New. A server with nothing on disk
// saves a HardState with a new Incarnation before it says anything.
//
// Second, it gives the Session every Event in the order in which they happen: a tick at a fixed interval, counted on a
// clock that runs while the machine sleeps; each message; what operators ask for; and what its data path has proven.
//
// Third, after each Step it carries out the Effects in the order of their fields: it stops hardening if Halt says so,
// BEFORE it saves State; it saves State BEFORE it sends anything; it sends; then it lets the data path have its Duty.
// Evidence of the data path comes back as events that name the role sequence they belong to.
//
// Fourth, when Step returns an error that wraps ErrInvariant, or State cannot be saved, it fences and stops.
//
//	for ev := range events {
//		fx, err := session.Step(ev)
//		if errors.Is(err, mirror.ErrRefused) {
//			answer(err)
//			continue
//		} else if err != nil {
//			return fence(err)
//		}
//		if fx.Halt {
//			defer tell(mirror.Event{Kind: mirror.EventHalted, Seq: end.Seq, LSN: end.LSN})
//		}
//		if fx.Saved {
//			save(fx.State)
//		}
//		send(fx.Send)
//		dataPath.Want(fx.Duty)
//		write(fx.Journal)
//	}
//
// Package mirror/host is that loop.
//
// # The protocol in short
//
// The session's configuration is one small versioned Record that all three servers hold. A change counts when two of the
// three have it on disk. A server votes for a role sequence at most once, only upwards, only for a candidate that knows a
// record at least as new as its own, and only if the newest record says that the candidate is promotable. That nobody
// hears the principal is never a permission, only a reason to try. The principal records in_sync=false on itself and on
// one more server before it lets a commit be acknowledged without the mirror; before it records in_sync=true again,
// commits wait first, and then everything that was written until then is hardened at the mirror. "Confirmed" is lost by
// every restart. A server that promised a higher role sequence is deaf to older ones. Leases bound how long a deposed
// principal may be read; acknowledged commits rest on no clock.
//
// The files: record.go is the record and who may win, voter.go what every server does as a voter, principal.go,
// handover.go and role_mirror.go what the partners do, candidate.go elections, command.go what operators may ask for,
// duty.go what the data path has to do, machine.go the five shown states, explain.go why nobody
// serves, invariant.go what is asserted after each step.
package mirror
