package partner

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// site is a session whose programs are ended at crash points, one after the other.
type site struct {
	*pair
	made      bool          // the session exists
	principal mirror.Server // before the scene
	at        crash         // what the scene is to come to
	hit       mirror.Server // the server whose program has come to it
}

var everyServer = []mirror.Server{mirror.PartnerA, mirror.PartnerB, mirror.Witness}

// mirrorSide is the partner that was the mirror before the scene.
func (s *site) mirrorSide() mirror.Server { return s.principal.Other() }

// arm has every program end at the point, if it is in the role then.
func (s *site) arm() {
	for _, server := range everyServer {
		s.armOne(server)
	}
}

// armOne waits until the program listens, when it has just been started.
func (s *site) armOne(server mirror.Server) {
	text, err := json.Marshal(s.at)
	require.NoError(s.t, err)
	s.until("armed", func() bool {
		_, err := s.ask(server) // answers when what is on disk has been opened
		return err == nil && s.give(server, "/crash?at="+url.QueryEscape(string(text))) == nil
	})
}

// disarm lets those go on that have not come to it. One that has ended meanwhile is found by mend.
func (s *site) disarm() {
	for _, server := range everyServer {
		if !s.ended(server) {
			_ = s.give(server, "/crash?at="+url.QueryEscape(`{}`))
		}
	}
}

// launchToEnd starts a program that is to end at the point.
func (s *site) launchToEnd(server mirror.Server) {
	s.order = func(o *orders) { s.limit(o); o.Crash = s.at }
	s.launch(server)
	s.order = s.limit
}

// limit makes segments of the hardened log so small that new ones are made and old ones removed.
func (s *site) limit(o *orders) { o.Limits.RedoQueue = 8 << 20 }

// crashed says whether a program has come to the point and is gone.
func (s *site) crashed() bool {
	for _, server := range everyServer {
		if s.ended(server) && s.mark(server) {
			s.hit = server
			return true
		}
	}
	return false
}

// mark says whether a program has said that it ends itself, and takes that back.
func (s *site) mark(server mirror.Server) bool {
	path := filepath.Join(s.dir, server.String(), crashFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	require.NoError(s.t, err)
	require.NoError(s.t, os.Remove(path))
	var at crash
	require.NoError(s.t, json.Unmarshal(text, &at))
	require.Equal(s.t, s.at, at)
	return true
}

// until waits for something to become so; false: a program has come to the point before.
func (s *site) until(what string, so func() bool) bool {
	s.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.hit == mirror.Nobody && !s.crashed() {
		if so() {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			s.t.Fatalf("%s: not %s\n%s", s.at, what, s.brief())
		}
	}
	return false
}

// ordered gives a command until it is accepted; false: a program has come to the point before.
func (s *site) ordered(server mirror.Server, path string) bool {
	return s.until("accepted: "+path, func() bool { return s.give(server, path) == nil })
}

// shows waits until a server's status is as wanted; false: a program has come to the point before.
func (s *site) shows(server mirror.Server, what string, so func(Status) bool) bool {
	return s.until(what, func() bool {
		st, err := s.ask(server)
		return err == nil && so(st)
	})
}

func (s *site) brief() string {
	text := ""
	for _, server := range everyServer {
		if st, err := s.ask(server); err != nil {
			text += server.String() + ": " + err.Error() + "\n"
		} else {
			text += brief(st) + "\n"
		}
	}
	return text
}

// heal starts what has ended and does what an operator would, until the session is SYNCHRONIZED with everybody in it. It
// fails the test when the session is not in a state that the scene has brought about.
func (s *site) heal() {
	s.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s.restart()
		a, errA := s.ask(mirror.PartnerA)
		b, errB := s.ask(mirror.PartnerB)
		w, errW := s.ask(mirror.Witness)
		switch {
		case errors.Join(errA, errB, errW) != nil || w.Quorum != mirror.QuorumFull:
		case settled(a, b):
			s.principal = mirror.PartnerA
			return
		case settled(b, a):
			s.principal = mirror.PartnerB
			return
		}
		s.operate(a, w)
		s.operate(b, w)
		select {
		case <-tick.C:
		case <-deadline.C:
			s.t.Fatalf("%s: not healed\n%s", s.at, s.brief())
		}
	}
}

// restart does what a supervisor does: it starts the servers and programs that do not run. A program that has not been
// ended by the test must not have ended.
func (s *site) restart() {
	s.t.Helper()
	for side := mirror.PartnerA; side <= mirror.PartnerB; side++ {
		if !s.pg[side].Running() {
			require.NoError(s.t, s.pg[side].Restart(s.t.Context()))
		}
	}
	for _, server := range everyServer {
		if !s.ended(server) {
			continue
		}
		s.mu.Lock()
		found := s.process[server]
		s.mu.Unlock()
		if found != nil {
			require.True(s.t, found.cmd.ProcessState.ExitCode() == -1, "%s: %s has ended: %s", s.at, server, found.cmd.ProcessState)
		}
		s.mark(server)
		s.launch(server)
	}
}

// operate takes back what the scene has ordered, or what it leads to, where st is the principal.
func (s *site) operate(st, witness Status) {
	if st.Role != mirror.RolePrincipal {
		return
	}
	// What cannot be accepted yet is ordered again at the next look.
	if r := st.Record; r.Suspended {
		require.True(s.t, slices.Contains([]mirror.Reason{mirror.ReasonCommand, mirror.ReasonForcedService}, r.Why),
			"%s: suspended for a reason that the scene did not give: %s\n%s", s.at, r.Why, s.brief())
		_ = s.give(st.Self, "/resume")
	} else if r.Safety == mirror.SafetyOff {
		_ = s.give(st.Self, "/safety/full")
	} else if !r.HasWitness() || witness.Self == mirror.Witness && witness.Role == mirror.RoleNone {
		_ = s.give(st.Self, "/witness/set")
	}
}
