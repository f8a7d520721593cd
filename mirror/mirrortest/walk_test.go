package mirrortest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f19126b3/dbmirror/mirror"
)

// steps of a walk: everything that servers, networks and operators may do, but for forced service, which may make two
// principals, and a program that dies beside a living database, which nobody can fence.
var walkSteps = []string{
	"tick", "tick", "tick", "run 1", "run 1", "run 3", "deliver", "drop", "work", "cut a", "cut b", "cut w", "cut a b", "cut a w", "cut b w",
	"mend a", "mend b", "mend w", "command a failover", "command b failover", "command a suspend", "command b suspend",
	"command a resume", "command b resume", "command a safety off", "command b safety off", "command a safety full",
	"command b safety full", "command a witness none", "command b witness none", "command a witness w", "command b witness w",
	"failed a log budget", "failed b redo error", "seeding a", "seeding b", "unlink a b", "unlink b w", "stream a lost", "stream b lost",
	"command a admit b", "command b admit a", "kill a", "kill b", "kill w", "wipe w", "up",
}

// walk plays one random story. Words that make no sense at the moment are passed over.
func walk(t *rapid.T, s *stage) {
	var story []string
	play := func(line string) {
		story = append(story, "> "+line)
		err := s.command(strings.Fields(line))
		if !errors.Is(err, ErrScript) {
			require.NoError(t, err, strings.Join(story, "\n"))
		}
		require.NotContains(t, s.taken(), "both databases are open", strings.Join(story, "\n"))
	}
	up := func() {
		for _, line := range []string{"database a up", "database b up", "start a", "start b", "start w"} {
			play(line)
		}
	}
	up()
	for _, line := range []string{"run 5", "command a establish witness", "run 4"} {
		play(line)
	}
	written := mirror.LSN(0x9000)
	for range rapid.IntRange(5, 60).Draw(t, "length") {
		switch step := rapid.SampledFrom(walkSteps).Draw(t, "step"); step {
		case "up":
			up()
		case "work":
			written += 0x10
			play(fmt.Sprintf("wrote a %s", written))
			play(fmt.Sprintf("wrote b %s", written))
			play(step)
		default:
			play(step)
		}
	}
	heal(t, s, play, up, &story)
}

// heal: when everything is up and connected again, one principal serves, and nothing was broken on the way (L3).
func heal(t *rapid.T, s *stage, play func(string), up func(), story *[]string) {
	for _, line := range []string{"mend a", "mend b", "mend w"} {
		play(line)
	}
	up()
	play("run 30")
	serving := 0
	for i := range s.players[1:3] {
		p := &s.players[i+1]
		if st := p.session.Status(); st.Serving {
			serving++
		}
	}
	require.Equal(t, 1, serving, "after\n%s", strings.Join(*story, "\n"))
}

// TestWalk: no order of events breaks an invariant, opens both databases, or leaves nobody who could serve.
func TestWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStage()
		s.timing = mirror.Timing{Ping: 1, Timeout: 4, Lease: 2, Campaign: 4, Drain: 6}
		walk(t, s)
	})
}
