package partner

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// journal keeps what the session decided and refused: the latest entries in memory, all of them in a file with one JSON
// object a line.
type journal struct {
	mu   sync.Mutex
	file *os.File
	torn bool // the file ends in the middle of a line
	last []host.Line
}

// journalLimit bounds the entries in memory.
const journalLimit = 200

const journalTime = "2006-01-02T15:04:05.000Z"

func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	torn, err := endsTorn(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), f.Close())
	}
	return &journal{file: f, torn: torn}, nil
}

// endsTorn says whether the last line has no end: the program died, or the disk was full, while it was written.
func endsTorn(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, info.Size()-1)
	return last[0] != '\n', err
}

// line is an entry as it stands in the file.
type line struct {
	Time    string `json:"time"`
	Kind    string `json:"kind"`
	Role    string `json:"role"`
	RoleSeq uint64 `json:"role_seq"`
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Peer    string `json:"peer,omitempty"`
	Reason  string `json:"reason"`
	Record  string `json:"record"`
	LSN     string `json:"lsn,omitempty"`
	Note    string `json:"note,omitempty"`
}

// write adds an entry. A journal that cannot be written does not stop mirroring: the entry is also in the log.
func (j *journal) write(l host.Line) {
	e := l.Entry
	out := line{Time: l.At.UTC().Format(journalTime), Kind: e.Kind.String(), Role: e.Role.String(),
		RoleSeq: uint64(e.Seq), Reason: e.Reason.String(), Record: e.Version.String(), Note: l.Note}
	if e.From != e.To {
		out.From, out.To = e.From.String(), e.To.String()
	}
	if e.Peer != 0 {
		out.Peer = e.Peer.String()
	}
	if e.LSN != 0 {
		out.LSN = e.LSN.String()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last = append(j.last, l)
	if len(j.last) > journalLimit {
		j.last = slices.Delete(j.last, 0, len(j.last)-journalLimit)
	}
	j.appendLocked(out)
}

func (j *journal) appendLocked(out line) {
	b, err := json.Marshal(out)
	if err != nil {
		return
	}
	if j.torn {
		b = append([]byte{'\n'}, b...)
	}
	crashpoint.Hit(crashpoint.JournalUnwritten)
	_, err = j.file.Write(append(b, '\n'))
	crashpoint.Hit(crashpoint.JournalWritten)
	j.torn = err != nil
}

// note adds what the data path did, such as lost transactions that were saved.
func (j *journal) note(l line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l.Time = time.Now().UTC().Format(journalTime)
	j.appendLocked(l)
}

func (j *journal) latest() []host.Line {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.last)
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.file.Close()
}
