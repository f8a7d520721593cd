package partner

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// history is a file of everything that was done and acknowledged, one JSON object a line. Its methods may be called from
// any goroutine.
type history struct {
	start time.Time
	mu    sync.Mutex
	file  *os.File
	text  *bufio.Writer
}

// event is one line of it.
type event struct {
	At    string // since the start
	What  string
	Which string `json:",omitempty"`
	Error string `json:",omitempty"`
	ID    int64  `json:",omitempty"`
	Seq   int64  `json:",omitempty"`
}

func newHistory(t *testing.T, dir string) *history {
	f, err := os.Create(filepath.Join(dir, "history.jsonl"))
	require.NoError(t, err)
	return &history{start: time.Now(), file: f, text: bufio.NewWriter(f)}
}

func (h *history) add(what, which string, err error) {
	ev := event{What: what, Which: which}
	if err != nil {
		ev.Error = err.Error()
	}
	h.line(ev)
}

func (h *history) ack(id, seq int64, at mirror.Server) {
	h.line(event{What: "acknowledged", Which: at.String(), ID: id, Seq: seq})
}

func (h *history) line(ev event) {
	now := time.Now()
	ev.At = now.Sub(h.start).String() + " " + now.UTC().Format("15:04:05.000")
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = json.NewEncoder(h.text).Encode(ev) // what cannot be kept is no fault of the session
}

// keep puts everything that may explain a failure where it stays, and says where: the history with the seeds, what the
// programs and servers have said, the programs' directories.
func (c *chaos) keep() {
	c.history.mu.Lock()
	defer c.history.mu.Unlock()
	_ = c.history.text.Flush()
	_ = c.history.file.Close()
	if !c.t.Failed() {
		return
	}
	kept, err := os.MkdirTemp("", "dbmirror-chaos-")
	if err != nil {
		c.t.Error(err)
		return
	}
	if err := copyTree(kept, c.dir); err != nil {
		c.t.Error(err)
	}
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		text, err := os.ReadFile(c.pg[s].LogFile())
		if err == nil {
			err = os.WriteFile(filepath.Join(kept, s.String()+"-server.log"), text, 0o600)
		}
		if err != nil {
			c.t.Error(err)
		}
	}
	c.t.Logf("what happened is kept in %s", kept)
}

// copyTree copies what can be read, but for what only fills a disk.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, below), 0o700)
		}
		if entry.Name() == ballast || !entry.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, below), text, 0o600)
	})
}
