package partner

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// TestBreakOff: another wish breaks off what is under way at once. A promotion goes on for a moment where nothing but
// whom commits wait for has changed: the database is closed, so that nobody commits.
func TestBreakOff(t *testing.T) {
	promote := mirror.Duty{Role: mirror.RolePrincipal, Seq: 4, Gate: mirror.GateClosed, Wait: mirror.WaitMirror, Prove: true,
		Ship: true, Work: mirror.WorkPromote, Fork: mirror.Position{Seq: 3, LSN: 100}}
	edited := func(wish mirror.Duty, edit func(*mirror.Duty)) mirror.Duty { edit(&wish); return wish }
	alone := edited(promote, func(d *mirror.Duty) { d.Wait, d.Prove = mirror.WaitNone, false })
	open := edited(promote, func(d *mirror.Duty) { d.Gate = mirror.GateOpen })
	for name, c := range map[string]struct {
		wish, next mirror.Duty
		after      time.Duration
	}{
		"commits go on alone": {promote, alone, sparedFor},
		"no log is kept":      {promote, edited(alone, func(d *mirror.Duty) { d.Ship = false }), sparedFor},
		"another role":        {promote, mirror.Duty{Role: mirror.RoleMirror, Seq: 5, Gate: mirror.GateReadOnly}, 0},
		"another role sequence, the same otherwise": {promote, edited(alone, func(d *mirror.Duty) { d.Seq++ }), 0},
		"another fork":                  {promote, edited(alone, func(d *mirror.Duty) { d.Fork.LSN++ }), 0},
		"another gate":                  {promote, edited(alone, func(d *mirror.Duty) { d.Gate = mirror.GateKeep }), 0},
		"no promotion":                  {edited(promote, func(d *mirror.Duty) { d.Work = mirror.WorkNone }), edited(alone, func(d *mirror.Duty) { d.Work = mirror.WorkNone }), 0},
		"a promotion of what is served": {open, edited(open, func(d *mirror.Duty) { d.Wait = mirror.WaitNone }), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newBreaking(c.wish)
				go w.breakOff(c.wish, w.mu.changed, w.done, w.cancel)
				w.want(c.next, 2)
				require.Equal(t, c.after, w.after())
			})
		})
	}
	t.Run("what is spared may be broken off by the wish after that", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newBreaking(promote)
			go w.breakOff(promote, w.mu.changed, w.done, w.cancel)
			w.want(alone, 2)
			synctest.Wait()
			w.want(promote, 3) // as it was: it has had its time all the same
			<-time.After(sparedFor / 2)
			w.want(mirror.Duty{Role: mirror.RoleMirror, Seq: 5}, 4)
			require.Equal(t, sparedFor/2, w.after())
		})
	})
	t.Run("what is done is not broken off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newBreaking(promote)
			go w.breakOff(promote, w.mu.changed, w.done, w.cancel)
			w.want(alone, 2)
			close(w.done)
			<-time.After(2 * sparedFor)
			require.Empty(t, w.broken)
		})
	})
}

// breaking is a data path with something under way.
type breaking struct {
	*dataPath
	done   chan struct{}
	broken chan time.Duration
	begun  time.Time
}

func newBreaking(wish mirror.Duty) breaking {
	b := breaking{&dataPath{}, make(chan struct{}), make(chan time.Duration, 1), time.Now()}
	b.mu.wish, b.mu.number, b.mu.changed = wish, 1, make(chan struct{})
	return b
}

func (b breaking) cancel() { b.broken <- time.Since(b.begun) }

// after is when it was broken off.
func (b breaking) after() time.Duration { return <-b.broken }
