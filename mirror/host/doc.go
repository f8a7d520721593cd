// Package host runs one session: it owns it, feeds it events, and carries out its effects in order.
//
// One goroutine owns the session. For each event it does, and in this order: stop hardening if the effects say so, save
// what must be on disk, hand messages to their outboxes, tell the data path its duty, write the journal. A message can
// therefore not leave before what it claims is on disk. Time is counted from a clock that runs while the machine
// sleeps, so that a host that was paused counts every tick it missed before it believes anything it hears.
package host
