package partner

import (
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// The times that are guaranteed are those of a machine that is not overloaded, and one that runs tests may be.

// promptly does what must take less than a limit, and does it again where it took longer, three times at most. When this
// machine does other work all the time, it is not demanded.
func (p *pair) promptly(what string, limit time.Duration, try func() time.Duration) {
	p.t.Helper()
	for n := 1; ; n++ {
		took := try()
		p.t.Logf("%s: %s", what, took.Round(time.Millisecond))
		if took < limit {
			return
		}
		connecting := p.connecting()
		if n == 3 && connecting >= overloaded {
			p.t.Logf("%s: less than %s is not demanded: this machine does other work, a connection takes %s", what, limit, connecting)
			return
		}
		require.Less(p.t, n, 3, "%s takes %s and longer, again and again; a connection takes %s", what, limit, connecting)
	}
}

// overloaded is how long a connection takes on a machine on which times are not demanded.
const overloaded = 6 * time.Millisecond

// connecting is how long a connection to a server takes: the median of eleven.
func (p *pair) connecting() time.Duration {
	p.t.Helper()
	server := p.pg[mirror.PartnerA]
	if !server.Running() {
		server = p.pg[mirror.PartnerB]
	}
	var took [11]time.Duration
	for i := range took {
		began := time.Now()
		rows(p.t, server, "app", "SELECT 'x'")
		took[i] = time.Since(began)
	}
	slices.Sort(took[:])
	return took[len(took)/2]
}
