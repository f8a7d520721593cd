// Package mirrortest runs sessions in worlds of its own making: it explores every order of events within bounds, and
// checks what must hold in each state. It drives the rules of package mirror themselves, never a copy of them.
package mirrortest
