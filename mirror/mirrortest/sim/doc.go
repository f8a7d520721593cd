// Package sim runs three servers of a session for minutes of virtual time in one goroutine, with everything that can go
// wrong drawn from one seed: the same seed is the same story, step for step, on every machine.
//
// The rules are the real ones: each server has a mirror.Session. Around it are models: a host that carries out effects
// in their order and takes time for it, a state file with two slots, a network that loses, doubles, delays and clogs,
// clocks that drift, and for each partner a database server with a log in positions of its own, slots, commits that
// wait, a redo queue and a data path that does its duty as package partner does it.
//
// A run has three parts. First faults strike, each kind as often as the seed says, often not at all. Then everything is
// mended, an operator puts right what needs a person, and the session must come back: one partner serves, both show
// SYNCHRONIZED, both databases hold the same. Last, one single fault is made on purpose, and what it costs is timed.
//
// The files: engine.go is virtual time, plan.go what a seed draws, machine.go a server, program.go its host, path*.go its
// data path, stream.go the log on its way, queue.go and database.go where it lies, statefile.go the hard state on disk,
// network.go the messages, client.go who commits, fault.go what goes wrong, operator.go who mends it, goal.go the timed
// end, check*.go what must hold, situation.go what a run must have met.
package sim
