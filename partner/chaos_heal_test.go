package partner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
)

// supervise starts programs again that ended by themselves, as a machine's supervisor does, and watches the partners
// close their databases, until it is stopped.
func (c *chaos) supervise() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		done.Go(func() { c.watchGate(ctx, s) })
	}
	done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			for s := mirror.PartnerA; s <= mirror.Witness; s++ {
				c.revive(s)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

// watchGate notes from when to when a partner is closing its database. That it takes no longer than the fence time is
// what the guarantees assume of the machine, and not what is tested here: see excused.
func (c *chaos) watchGate(ctx context.Context, s mirror.Server) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		asked := time.Now()
		if st, err := c.ask(s); err == nil {
			c.closing(s, st.Duty.Gate == mirror.GateClosed && st.Gate != mirror.GateClosed, asked)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (c *chaos) closing(s mirror.Server, closing bool, asked time.Time) {
	c.guard.Lock()
	defer c.guard.Unlock()
	all := c.closings[s]
	open := len(all) > 0 && all[len(all)-1].to.IsZero()
	switch {
	case closing && !open:
		c.closings[s] = append(all, interval{from: asked})
	case !closing && open:
		last := &all[len(all)-1]
		last.to = time.Now()
		if last.to.Sub(last.from) > host.Fast().Fence {
			c.total.slowToClose++
		}
	}
}

// revive starts a program that has ended, unless a fault keeps it down.
func (c *chaos) revive(s mirror.Server) {
	c.guard.Lock()
	held := c.held[s]
	c.guard.Unlock()
	if held || !c.ended(s) {
		return
	}
	c.away(s) // since a moment ago; it closed its database before it ended
	c.total.restarts++
	err := c.spawn(s)
	c.history.add("ended by itself, started", s.String(), err)
	c.back(s)
}

// withhold keeps a program from being started.
func (c *chaos) withhold(s mirror.Server) {
	c.guard.Lock()
	c.held[s] = true
	c.guard.Unlock()
	c.away(s)
}

// release starts a program again.
func (c *chaos) release(s mirror.Server) {
	err := c.spawn(s)
	c.history.add("started", s.String(), err)
	c.guard.Lock()
	c.held[s] = false
	c.guard.Unlock()
	c.back(s)
}

// healing is how long a session may take, when nothing disturbs it any more, copies included.
const healing = 90 * time.Second

// heal waits until the session is SYNCHRONIZED again. It does what an operator is told to do by the reasons shown, and
// nothing else.
func (c *chaos) heal() error {
	deadline := time.Now().Add(healing)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var asked time.Time
	for {
		st := [3]Status{}
		for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
			st[s], _ = c.ask(s)
		}
		w, err := c.ask(mirror.Witness)
		for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
			if err == nil && w.Quorum == mirror.QuorumFull && settled(st[s], st[s.Other()]) {
				c.principal = s
				c.history.add("healed", s.String(), nil)
				return nil
			}
		}
		if time.Since(asked) > time.Second && c.operate(st) {
			asked = time.Now()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not healed after %s:\n%s\n%s\nwitness: %s %v", healing, brief(st[1]), brief(st[2]), w.Quorum, err)
		}
		<-tick.C
	}
}

// operate gives the commands that the operator's page names for a suspension, and says whether it did.
func (c *chaos) operate(st [3]Status) bool {
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		m := st[s]
		if m.Role != mirror.RoleMirror || m.State != mirror.StateSuspended {
			continue
		}
		var commands []string
		switch m.Record.Why {
		case mirror.ReasonLogGap, mirror.ReasonLogBudget:
			commands = []string{"reseed", "resume"}
		case mirror.ReasonDiskFull:
			commands = []string{"resume"}
		default:
			c.history.add("no mend is named for", m.Record.Why.String(), nil)
			return false
		}
		var errs error
		for _, command := range commands {
			errs = errors.Join(errs, c.give(s, "/"+command))
			c.total.commands[fmt.Sprintf("%s (%s)", command, m.Record.Why)]++
		}
		c.history.add("commands", fmt.Sprint(s, m.Record.Why, commands), errs)
		return true
	}
	return false
}

// differ waits until both databases hold the same, and returns what does not after that time.
func (c *chaos) differ(limit time.Duration) string {
	ctx, cancel := context.WithTimeout(context.Background(), limit+10*time.Second)
	defer cancel()
	for deadline := time.Now().Add(limit); ; c.pause(50 * time.Millisecond) {
		different := c.compare(ctx)
		if different == "" || time.Now().After(deadline) {
			return different
		}
	}
}

// readRegisters ends the registers' history with what is there at last.
func (w *work) readRegisters() {
	s := w.session(0)
	defer s.close()
	for key := 0; key < registers; {
		o := operation{client: 4, kind: read, key: key}
		if s.connected() {
			if w.run(s, &o); o.outcome == sure {
				key++
				continue
			}
		}
		if !w.next(20 * time.Millisecond) {
			return
		}
	}
}
