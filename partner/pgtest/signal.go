package pgtest

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// stopPatience bounds the wait of Stop: long enough for a slow machine's shutdown checkpoint.
const stopPatience = time.Minute

// signalPatience bounds the wait for the effect of SIGSTOP and SIGKILL; only a process within an uninterruptible disk
// request needs more than an instant.
const signalPatience = 20 * time.Second

// signalPoll is how often the processes are looked at meanwhile.
const signalPoll = time.Millisecond

// Kill ends the server like a power cut: SIGKILL to the postmaster and to every process below it. It returns when all
// are gone, so that the data directory is at rest. It is no error when the server does not run.
//
// A signal to the process group would miss them: each of the postmaster's children makes a session of its own. So the
// postmaster is stopped first; then it can neither start new children nor restart the killed ones.
func (s *Server) Kill() error {
	r := s.current()
	below, err := r.freeze()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	for _, pid := range below {
		if err := signalPid(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill PostgreSQL: %w", err)
		}
	}
	if err := r.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	<-r.done
	if err := await(below, gone); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	fmt.Fprintf(s.cfg.Log, "pgtest: PostgreSQL on port %d is killed, %d processes\n", s.port, len(below)+1)
	return nil
}

// Stop ends the server in one of PostgreSQL's ways and waits for the end, a minute at most: "smart" waits for all
// clients to leave, "fast" ends them and writes a checkpoint, after the connected receivers have got all log,
// "immediate" does neither, and a crash recovery follows at the next start. A paused server is continued first. It is
// no error when the server does not run.
func (s *Server) Stop(mode string) error {
	signals := map[string]syscall.Signal{"smart": syscall.SIGTERM, "fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}
	sig, ok := signals[mode]
	if !ok {
		return fmt.Errorf("stop PostgreSQL: mode %q is none of smart, fast, immediate", mode)
	}
	if err := s.Continue(); err != nil {
		return err
	}
	r := s.current()
	if err := r.signal(sig); errors.Is(err, os.ErrProcessDone) {
		return nil
	} else if err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	select {
	case <-r.done:
	case <-time.After(stopPatience):
		return fmt.Errorf("stop PostgreSQL: mode %s: it still runs after %v; see %s", mode, stopPatience, s.LogFile())
	}
	fmt.Fprintf(s.cfg.Log, "pgtest: PostgreSQL on port %d is stopped (%s)\n", s.port, mode)
	return nil
}

// Pause freezes every process of the server (SIGSTOP), as a hung machine would: its connections stay, new ones are
// taken by the kernel, nothing answers. It returns when all are frozen. It is an error when the server does not run.
func (s *Server) Pause() error {
	below, err := s.current().freeze()
	if err != nil {
		return fmt.Errorf("pause PostgreSQL: %w", err)
	}
	for _, pid := range below {
		if err := signalPid(pid, syscall.SIGSTOP); err != nil {
			return fmt.Errorf("pause PostgreSQL: %w", err)
		}
	}
	if err := await(below, frozen); err != nil {
		return fmt.Errorf("pause PostgreSQL: %w", err)
	}
	return nil
}

// Continue lets a paused server run on. It changes nothing for one that is not paused, or does not run.
func (s *Server) Continue() error {
	r := s.current()
	if !s.Running() {
		return nil
	}
	below, err := r.below()
	if err != nil {
		return fmt.Errorf("continue PostgreSQL: %w", err)
	}
	for _, pid := range below {
		if err := signalPid(pid, syscall.SIGCONT); err != nil {
			return fmt.Errorf("continue PostgreSQL: %w", err)
		}
	}
	if err := r.signal(syscall.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("continue PostgreSQL: %w", err)
	}
	return nil
}

// signal sends a signal to the postmaster. It returns [os.ErrProcessDone] when that has ended.
func (r *run) signal(sig syscall.Signal) error {
	if err := r.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("send %v to the postmaster: %w", sig, err)
	}
	return nil
}

// freeze stops the postmaster and returns all processes below it. As long as the postmaster is stopped it starts none
// and collects none, so the numbers stay valid.
func (r *run) freeze() ([]int, error) {
	if err := r.signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	if err := await([]int{r.cmd.Process.Pid}, frozen); err != nil {
		return nil, err
	}
	return r.below()
}

// below returns the processes that the postmaster started, and those that they started.
func (r *run) below() ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p.pid)
	}
	found := children[r.cmd.Process.Pid]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found, nil
}

// signalPid sends a signal to a process below the postmaster; one that has ended meanwhile needs none.
func signalPid(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", sig, pid, err)
	}
	return nil
}

// process is one entry of the system's process table. State is the letter that ps shows: T stopped, Z ended and not
// yet collected by its parent.
type process struct {
	pid, parent int
	state       byte
}

// gone holds for a process that runs no more.
func gone(p process) bool { return p.state == 'Z' || p.state == 'X' }

// frozen holds for a process that runs no more for now.
func frozen(p process) bool { return p.state == 'T' || gone(p) }

// await waits until each of the processes is as wanted or has left the process table.
func await(pids []int, wanted func(process) bool) error {
	tick := time.NewTicker(signalPoll)
	defer tick.Stop()
	limit := time.After(signalPatience)
	for {
		late, err := unlike(pids, wanted)
		if err != nil || len(late) == 0 {
			return err
		}
		pids = late
		select {
		case <-tick.C:
		case <-limit:
			return fmt.Errorf("processes %v do not obey the signal within %v", late, signalPatience)
		}
	}
}

// unlike returns those of the processes that live and are not as wanted.
func unlike(pids []int, wanted func(process) bool) ([]int, error) {
	var late []int
	for _, pid := range pids {
		p, found, err := lookUp(pid)
		if err != nil {
			return nil, err
		}
		if found && !wanted(p) {
			late = append(late, pid)
		}
	}
	return late, nil
}
