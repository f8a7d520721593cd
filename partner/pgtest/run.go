package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Line numbers of postmaster.pid, counted from 0.
const (
	pidLine    = 0
	memoryLine = 6 // key and identifier of the System V shared memory segment
	statusLine = 7
)

// readyPoll is how often a starting server's postmaster.pid is read.
const readyPoll = 5 * time.Millisecond

var errPortTaken = errors.New("the port is taken")

// run is one life of a server, from launch until its postmaster has ended.
type run struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the postmaster has ended
}

// launch starts the postmaster and waits until it accepts connections. A server that does not get there is killed.
func (s *Server) launch(ctx context.Context) error {
	log, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("start PostgreSQL: open its log: %w", err)
	}
	defer log.Close() // the server has its own copy
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("start PostgreSQL: read its log: %w", err)
	}
	begun := time.Now()
	r, err := s.spawn(log)
	if err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := s.awaitReady(ctx, r); err != nil {
		killed := s.Kill()
		said := make([]byte, 64<<10)
		n, _ := log.ReadAt(said, from) // what can be read serves the error; a short read is the usual case
		if strings.Contains(string(said[:n]), "could not bind") {
			err = fmt.Errorf("%w: %w", errPortTaken, err)
		}
		err = fmt.Errorf("start PostgreSQL on port %d: %w; it said:\n%s", s.port, err, lastLines(string(said[:n]), 10))
		return errors.Join(err, killed)
	}
	fmt.Fprintf(s.cfg.Log, "pgtest: PostgreSQL %d on port %d is ready after %d ms\n",
		s.install.Version, s.port, time.Since(begun).Milliseconds())
	return nil
}

// spawn starts the postmaster as a child of ours, not by pg_ctl, so that its end is seen at once.
func (s *Server) spawn(log *os.File) (*run, error) {
	cmd := exec.Command(filepath.Join(s.install.Bin, "postgres"), "-D", s.dataDir(), "-c", "port="+strconv.Itoa(s.port))
	s.dress(cmd)
	cmd.Stdout, cmd.Stderr = log, log
	r := &run{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(r.done)
		// The kernel ties the signal at the parent's death to the thread that made the child: keep it until the end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how the server ended stands in its log
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.run = r
	return r, nil
}

// awaitReady reads postmaster.pid until its status says that connections are accepted. The file may still be that of
// an earlier run, so its pid must be this run's.
func (s *Server) awaitReady(ctx context.Context, r *run) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		lines, err := pidFile(s.dataDir())
		if err != nil {
			return err
		}
		if len(lines) > statusLine && lines[pidLine] == strconv.Itoa(r.cmd.Process.Pid) {
			if status := lines[statusLine]; status == "ready" || status == "standby" {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-r.done:
			return errors.New("it ended before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("wait until it is ready: %w", context.Cause(ctx))
		}
	}
}

// pidFile returns the lines of postmaster.pid without the blanks around them, and none when there is no file.
func pidFile(dataDir string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read postmaster.pid: %w", err)
	}
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines, nil
}

// current returns the newest run. There is one in every server that Start has returned.
func (s *Server) current() *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.run
}

// Done returns a channel that is closed when the server's present run has ended, in whatever way. After Restart there
// is a new channel.
func (s *Server) Done() <-chan struct{} { return s.current().done }

// Running says whether the server's postmaster lives. A paused one does.
func (s *Server) Running() bool {
	select {
	case <-s.Done():
		return false
	default:
		return true
	}
}

// freeSharedMemory removes the segment that a killed server leaves behind: systems have room for few of them (32 on
// macOS), and only a start on the same data directory would reuse it.
func freeSharedMemory(dataDir string) error {
	lines, err := pidFile(dataDir)
	if err != nil || len(lines) <= memoryLine {
		return err // an orderly end removes the file and the segment
	}
	words := strings.Fields(lines[memoryLine])
	if len(words) != 2 {
		return nil // the server ended before it had a segment
	}
	if out, err := exec.Command("ipcrm", "-m", words[1]).CombinedOutput(); err != nil {
		return fmt.Errorf("remove shared memory of the killed server: ipcrm: %w: %s", err, lastLines(string(out), 1))
	}
	return nil
}
