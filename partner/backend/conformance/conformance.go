package conformance

import "testing"

// Run checks the backend that pairs are made of. Each case has a pair of its own, made when the one before has ended.
func Run(t *testing.T, pair func(t *testing.T) Pair) {
	for _, c := range []struct {
		name  string
		check func(r *rig)
	}{
		{"a database is known by its identity", identity},
		{"the gate holds off whom it must", gate},
		{"commits wait for whom they must", commitsWait},
		{"nothing is acknowledged before it is hardened", hardenedFirst},
		{"a restarted database acknowledges nothing by itself", restartWaits},
		{"what is committed is redone, in order and once", everythingOnce},
		{"a log that breaks off goes on where it ends", tornTails},
		{"the mirror can end at every step", restartAtEveryStep},
		{"the principal can end at every step", principalRestarts},
		{"a gap is never passed over", gaps},
		{"a transaction that cannot be redone stops redo", poison},
		{"a transaction is left out by command, and no other", skip},
		{"log is kept as long as it is needed", retention},
		{"a copy replaces nothing by itself", refusedCopy},
		{"roles are switched without loss", roleSwitches},
		{"what the new principal never had is saved and taken back", divergence},
		{"a stream is a sign of life", signOfLife},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(newRig(t, pair(t))) })
	}
}
