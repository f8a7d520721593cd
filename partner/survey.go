package partner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// surveyEvery is how often both servers are looked at while something may be against mirroring.
const surveyEvery = 2 * time.Second

// survey looks at both servers for as long as there is no session, or a requirement of it is not met: so each partner
// shows by itself what is wrong at either side, also where the other partner's program has ended for it.
func (p *Partner) survey(ctx context.Context) {
	tick := time.NewTicker(surveyEvery)
	defer tick.Stop()
	unsound, verified := false, false
	for {
		st := p.host.Status()
		wanted := st.Role == mirror.RoleNone && !st.Removed || st.Record.Suspended && st.Record.Why == mirror.ReasonPreflight
		if wanted || unsound { // also when it is over, until a look has found nothing: what the last one found stays in the status
			unsound = !p.look(ctx, st) || wanted
		}
		if !verified && st.Role != mirror.RoleNone {
			verified = p.verifyPeer(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.notes.news:
		}
	}
}

// look takes one look at both servers, and says whether nothing is against mirroring.
func (p *Partner) look(ctx context.Context, st mirror.Status) (sound bool) {
	principal := st.Record.Principal
	if st.Role == mirror.RoleNone {
		principal = p.cfg.Self
		if !p.cfg.Establish {
			principal = p.cfg.Self.Other()
		}
	}
	findings, err := p.data.examine(ctx, principal, st)
	if ctx.Err() != nil {
		return false
	}
	if err == nil && st.Role == mirror.RoleNone {
		if err = backend.Refuse(findings); err == nil {
			err = p.contradiction()
		}
	}
	p.data.trouble(trySurvey, err)
	p.data.mu.Lock()
	defer p.data.mu.Unlock()
	p.data.mu.findings, p.data.mu.ready = findings, err == nil
	return err == nil && backend.Refuse(findings) == nil
}

// contradiction says where the two partners are set up for different sessions.
func (p *Partner) contradiction() error {
	theirs, fresh := p.peerNote()
	p.data.mu.Lock()
	reached, own := p.data.mu.reached, p.data.mu.place
	p.data.mu.Unlock()
	other := p.cfg.Self.Other()
	here, there := p.cfg.Backend.Settings()
	switch {
	case !fresh || theirs.Stopped || theirs.Database == backend.Identity{}:
		return fmt.Errorf("%w: %s has not said which database it has: start it, and see that it can be reached", errWaiting, other)
	case theirs.Establish && p.cfg.Establish:
		return errors.New("both partners are told to make the session: set Establish on the one that is to be principal only")
	case reached != backend.Identity{} && !reached.Same(theirs.Database):
		return fmt.Errorf("%s leads to %s, %s has %s: correct %[1]s here, or %[5]s there", there, reached, other, theirs.Database, here)
	case own.Same(theirs.Database):
		return fmt.Errorf("both partners have the same database, %s: correct %s here or there", own, here)
	}
	return p.disagreement()
}

// verifyPeer compares the database that is reached on the other side with the one that the other partner says it has. It returns
// whether that is settled: a mistake would come to light at a change of roles only, when it is too late.
func (p *Partner) verifyPeer(ctx context.Context) bool {
	theirs, fresh := p.peerNote()
	if !fresh || theirs.Stopped || theirs.Database == (backend.Identity{}) {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	reached, err := p.data.database.Peer().Identity(limited)
	if err != nil {
		return false // an outage there is for others to tell
	}
	if !reached.Same(theirs.Database) {
		_, there := p.cfg.Backend.Settings()
		err = fmt.Errorf("%s leads to %s, %s has %s: correct %[1]s", there, reached, p.cfg.Self.Other(), theirs.Database)
	}
	p.data.trouble(tryPeer, err)
	return err == nil
}

const verifyTimeout = 3 * time.Second

// mayEstablish says what is against making the session; nil: nothing, at either partner.
func (p *Partner) mayEstablish() error {
	p.data.mu.Lock()
	ready := p.data.mu.ready
	p.data.mu.Unlock()
	if err := p.contradiction(); err != nil {
		return err
	}
	if !ready {
		return fmt.Errorf("%w: this partner has not yet found both servers in order", errWaiting)
	}
	if theirs, _ := p.peerNote(); !theirs.Ready {
		return fmt.Errorf("%w: %s has not yet found both servers in order", errWaiting, p.cfg.Self.Other())
	}
	return nil
}
