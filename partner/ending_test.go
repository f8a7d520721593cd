package partner

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
)

// TestSessionThatCannotBeSaved: the partner that is to make the session cannot write it down. Its program ends and says
// why, here and at the other partner, though there is no session to be told of.
func TestSessionThatCannotBeSaved(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.edit = func(c *Config) { c.Witness = "" }
	other := begin(t, p.config(mirror.PartnerB))
	cfg := p.config(mirror.PartnerA)
	made, err := New(cfg)
	require.NoError(t, err)
	require.NoError(t, made.state.Close()) // as good as a disk that fails: the next save does
	a := &beginning{Partner: made, t: t, log: new(logBook), done: make(chan struct{})}
	var ctx context.Context
	ctx, a.stop = context.WithCancel(context.Background())
	go func() {
		defer close(a.done)
		a.err = made.Run(ctx)
	}()
	t.Cleanup(a.end)
	require.ErrorContains(t, a.failure(), "mend the disk and start this program again")
	other.await("aware of it", func(st Status) bool {
		return st.Role == mirror.RoleNone && strings.Contains(st.Trouble, "partner-a has stopped") && strings.Contains(st.Trouble, "mend the disk")
	})
}

// TestAskedOfAPartnerThatDoesNotRun: whoever waits for an answer of a partner whose program could not begin is told so.
func TestAskedOfAPartnerThatDoesNotRun(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.edit = func(c *Config) {
		c.redirect(t, "postgres://nobody@127.0.0.1:1/app", "")
	}
	a := begin(t, p.config(mirror.PartnerA))
	answers := make(chan error, 2)
	go func() { answers <- a.Failover(context.Background()) }()
	go func() {
		_, err := a.Explain(context.Background())
		answers <- err
	}()
	require.Error(t, a.failure())
	require.ErrorIs(t, <-answers, host.ErrStopped)
	require.ErrorIs(t, <-answers, host.ErrStopped)
}
