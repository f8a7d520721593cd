package partner

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
)

// What a partner tries over and over, and so can be in trouble with. Each has its own place in the status, so that one
// that works does not hide another that does not.
const (
	tryDuty      = "" // of the database: the error says what
	tryMirroring = "mirroring cannot go on"
	tryFollow    = "follow the principal"
	tryHarden    = "harden the principal's log"
	tryRedo      = "redo"
	tryRedoing   = "redo waits"
	trySample    = "sample the principal's database"
	tryEstablish = "establish the session"
	trySurvey    = "look at both servers"
	tryBelong    = "remember the database"
	trySettings  = "agree on settings"
	tryPeer      = "reach the other side's database"
	tryAdmit     = "find the mirror"
)

// trouble is what was last said of something that does not work.
type trouble struct {
	text    string
	waiting bool
}

// errWaiting is wrapped by what is no trouble of this partner: it waits for the other one.
var errWaiting = errors.New("waiting")

// trouble notes that something did not work; nil ends it. It is logged once as long as it stays the same, and returns
// whether it does not.
func (d *dataPath) trouble(what string, err error) (changed bool) {
	if errors.Is(err, context.Canceled) {
		return false // it was broken off, which says nothing
	}
	now := trouble{waiting: errors.Is(err, errWaiting)}
	if err != nil {
		now.text = strings.ReplaceAll(err.Error(), "\n", "; ")
		if what != tryDuty {
			now.text = what + ": " + now.text
		}
	}
	d.mu.Lock()
	changed = d.mu.shown.trouble[what] != now
	if err == nil {
		delete(d.mu.shown.trouble, what)
	} else {
		d.mu.shown.trouble[what] = now
	}
	d.mu.Unlock()
	switch {
	case !changed || err == nil:
	case now.waiting:
		d.p.cfg.Logger.Info("waiting", "for", now.text)
	default:
		d.p.cfg.Logger.Warn("in trouble", "trouble", now.text)
	}
	return changed
}

// troubles is all that does not work, on one line, with or without what only waits for the other partner.
func (d *dataPath) troubles(waiting bool) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]string, 0, len(d.mu.shown.trouble))
	for _, what := range slices.Sorted(maps.Keys(d.mu.shown.trouble)) {
		if t := d.mu.shown.trouble[what]; waiting || !t.waiting {
			all = append(all, t.text)
		}
	}
	return strings.Join(all, "; ")
}
