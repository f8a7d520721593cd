package trio

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// process is one run of a partner's or the witness's program.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read it after done
}

// errEnded is how a process ends in order.
var errEnded = errors.New("exit status 0")

// startProcess starts this binary again. What it prints is added to a file, and told to heard line by line. It ends
// with this process.
func startProcess(name string, via []string, settings, logFile string, heard func(line []byte)) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	words := append(slices.Clone(via), self, hidden, settings)
	p := &process{name: name, cmd: exec.Command(words[0], words[1:]...), done: make(chan struct{})}
	p.cmd.SysProcAttr = childAttr()
	p.cmd.Stdout = &lines{file: log, heard: heard}
	p.cmd.Stderr = p.cmd.Stdout
	p.cmd.WaitDelay = 2 * time.Second
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		defer log.Close()
		// The system ties the child's life to the thread that made it: keep that until the end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			if p.err = p.cmd.Wait(); p.err == nil {
				p.err = errEnded
			}
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// kill ends the process as a power cut does.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// stop asks the process to end in order.
func (p *process) stop(limit time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		return errors.Join(fmt.Errorf("stop %s: it still runs after %s", p.name, limit), p.kill())
	}
	if !errors.Is(p.err, errEnded) {
		return fmt.Errorf("stop %s: it ended with %w", p.name, p.err)
	}
	return nil
}

// lines writes everything to a file and tells each whole line.
type lines struct {
	file  *os.File
	heard func(line []byte)
	rest  []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return l.file.Write(b)
		}
		l.heard(line)
		l.rest = rest
	}
}
