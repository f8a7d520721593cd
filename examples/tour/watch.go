package main

import (
	"encoding/json"
	"strings"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
)

// logged is what the tour reads of a line in a process's log.
type logged struct {
	Level, Msg, Reason   string
	Tables, Bytes, Count int64
	Exact                bool
	Error                string
}

// heard prints the lines that a visitor wants to see: transitions, and what else changes the database.
func (s *stage) heard(p mirror.Server, line []byte) {
	if text := trio.Transition(line); text != "" {
		s.out.note("%-9s  %s", p, text)
		return
	}
	var l logged
	if json.Unmarshal(line, &l) != nil {
		return // a crash; the file has it
	}
	switch l.Msg {
	case "database copied":
		s.out.note("%-9s  copied %d tables with %.1f MB", p, l.Tables, float64(l.Bytes)/1e6)
	case "transactions that the principal never had were saved":
		s.out.note("%-9s  saved %d transactions that the principal never had", p, l.Count)
	case "the transactions that the principal never had were undone":
		s.out.note("%-9s  undid them, and follows from the fork on", p)
	case "sequences moved on":
		s.out.note("%-9s  sequences moved past what the former principal handed out: %d (exact: %t)", p, l.Count, l.Exact)
	default:
		if l.Level == "ERROR" {
			s.out.note("%-9s  %s", p, strings.TrimSpace(l.Msg+" "+l.Reason+" "+l.Error))
		}
	}
}
