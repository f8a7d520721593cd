// Package testflag holds flags of the tests under partner. The test binary of every package there knows them, so that a
// flag of one package can be given for all: go test ./partner/... -run Chaos -chaos.runs=100.
package testflag

import "flag"

// The flags of partner's tests.
var (
	ChaosRuns = flag.Int("chaos.runs", 10, "how often TestChaos lets a pair meet one to three faults at once")
	ChaosSeed = flag.Uint64("chaos.seed", 0, "seed of the faults of TestChaos's first run, as a run prints it; 0: drawn")
	CrashAll  = flag.Bool("crash.all", false, "TestCrash: meet every point in every role and scene, not only once")
	CrashOnly = flag.String("crash.only", "", "TestCrash: meet only the points whose name, role or scene contains this")
	KillRuns  = flag.Int("kill.runs", 2, "how often each process and each server is killed in TestKill")
)
