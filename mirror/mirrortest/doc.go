// Package mirrortest runs sessions in worlds of its own making: it explores every order of events within bounds, and
// checks what must hold in each state (Explore); and it plays stories, written as text, whose whole trace is expected
// (Play). It drives the rules of package mirror themselves, never a copy of them.
package mirrortest
