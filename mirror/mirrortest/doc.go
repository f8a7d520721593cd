// Package mirrortest runs sessions in worlds of its own making: it explores every order of events within bounds, and
// checks what must hold in each state (Explore); and it plays stories, written as text, whose whole trace is expected
// (Play). It drives the rules of package mirror themselves, never a copy of them.
//
// # The language of stories
//
// The servers are a, b and w. A trace shows each event that led to something, and below it what the host was asked to do
// in its order: halt, save, send, duty; then the journal, then the shown state where it changed. Pings and pongs are left
// out unless asked for. A line that begins with >> is a command whose trace is left out. The commands:
//
//	timing ping=1 timeout=5 lease=3 campaign=5 drain=15    before the first start; ticks
//	option a stay-alone | serve-at-once | mirror-closed | lag=0/10
//	pings on | off          show pings and pongs
//	brief on | off          show the journals only
//	new                     three other servers, nothing on their disks
//	mark; back              remember everything as it is; return to what was remembered last
//
// What happens to servers:
//
//	start a b w             start programs from what they have on disk
//	stop a                  stop a program in order
//	crash a                 its program dies; its database goes on
//	kill a                  program and database die
//	wipe w                  a program that is down loses its disk, and has another identity when it starts
//	copy a old              keep a copy of its disk under a name
//	restore a old           a program that is down finds that copy in the place of its disk
//	database a up | down
//	tick [a] [3]            time passes, everywhere or for one
//	run 3                   three times: tick, then deliver and work until nothing is left to do
//
// What happens to messages and log:
//
//	cut a b | mend a b      both directions; of one server: all its links; a>b: that direction only
//	deliver [a b [vote]]    deliver what is in flight: all there is, or from a to b, cut or not
//	again a b accept        deliver and keep in flight: it will arrive once more
//	drop [a b [vote]]       lose it
//	unlink a b              a learns for certain that nobody listens at b
//	log linked | up | down  log flows where the mirror's link to the principal is up (so it begins), always, or never
//	stream b lost           the mirror learns that the principal's server is gone
//
// What data paths do:
//
//	work [a]                they do what their duties ask for, everywhere or at one server
//	hold b; release b       from now on b's does nothing; does again
//	wrote a 0/200           a's own log has grown to there
//	hardened b 0/200        likewise redone, waiting, drained, aligned, whole, halted; @1 names another role sequence
//	wait lost a             it found that commits did not wait
//	log lost b              hardened log is missing
//	seeding b; failed b redo error
//
// What is asked and shown:
//
//	command a establish [witness] | failover | suspend | resume | safety off | witness none | witness w | admit b | serve |
//	          force [1.2]     with the record that the operator has seen; the one that is there, unless another is named
//	show                    one line for each server
//	explain b; why b        every condition that it explains; those that are not met, with what would change them
//
// What must hold, whatever the trace is rewritten to:
//
//	serves a                the database of a is open and no other is; nobody: none is
//	shows a SUSPENDED b DISCONNECTED
//	table                   what becomes of every command at every server that is up, begun from here each time
//	links                   what becomes of each of the 64 ways in which the six directed links can be up or down,
//	                        begun from here each time; and that it heals when all are up again
//
// A trace says by itself when both databases are open. That nobody serves and a partner that is up does not explain why
// is an error everywhere.
package mirrortest
