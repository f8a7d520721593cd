//go:build !linux

package host

import "time"

// sinceBoot is Go's monotonic clock; on some systems it stops while the machine sleeps.
func sinceBoot() time.Duration { return time.Since(processStart) }

var processStart = time.Now()
