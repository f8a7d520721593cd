// Package conformance checks that a backend keeps what package backend asks of it.
//
// A test of the backend gives Run a way to make pairs of databases:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, func(t *testing.T) conformance.Pair { ... })
//	}
//
// Each case is a story that two partners could live through, told by calling the interfaces in the order of package
// partner: the databases, the connection between them and the hardened log are real, the session is not there. So a case
// that fails names a promise of the interfaces that is broken, not the session that broke on it.
//
// What a session makes of it all is checked by the tests of package partner.
package conformance
