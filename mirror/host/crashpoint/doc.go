// Package crashpoint names the places in production code at which tests end the program.
//
// A place is one line, [Hit], before, between or after the steps that make something durable or tell it to somebody: a
// write, its sync, a message, a change on a server. A test arms one of them in a child process of its own; when the
// program comes by, it is killed there, so that nothing is flushed and nothing deferred is done. Then the test starts it
// again and looks whether anything acknowledged is missing, doubled or different.
//
// What is tested is what runs: there are no build tags. Where nothing is armed a place costs one load of a number that
// never changes. Only Go code can arm one, no flag, no variable of the environment and no message, and a test of this
// package sees to it that only tests do.
package crashpoint
