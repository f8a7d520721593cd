// Package tidy holds no code, only tests that keep the layout of the repository: which package may import which, what
// stands at the top, that each package says what it is, and that nothing unfinished is left. Each rule carries its
// reason, which is printed where the rule is broken.
package tidy
