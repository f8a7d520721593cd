package conformance

import (
	"context"
	"fmt"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// Pair is two databases that no session has had yet. A holds the mirrored table, which clients call "entry" here, with
// a row of key 1; B holds nothing.
type Pair struct{ A, B Side }

// Side is one database of a pair.
type Side struct {
	// Backend makes a new backend of this database, as a program does that starts. Its other side is the pair's other.
	Backend func() backend.Backend
	// Client uses the database as users do, whom the gate holds off.
	Client Client
	// Tamper changes a database behind everybody's back, wherever its gate is and whomever its commits wait for.
	Tamper func(ctx context.Context, changes ...Change) error
	// Restart ends the database without order, if it can end at all, and begins it anew. The backend that was open has been
	// closed.
	Restart func()
}

// Client is a user of the database. Each call may be a connection of its own.
type Client interface {
	// Do makes the changes in one transaction, and returns nil when the commit is acknowledged. When ctx ends before, it
	// returns an error, and the commit may come true or not.
	Do(ctx context.Context, changes ...Change) error
	// Rows reads all rows of the table: texts by their key.
	Rows(ctx context.Context) (map[int]string, error)
}

// Op is what a Change does to a row.
type Op int

const (
	Insert Op = iota + 1 // the row, which must not be there
	Append               // the text to that of the row, which must be there
	Delete               // the row, which must be there
)

// Change is a change of one row. Each of them fails, or shows, when it is made twice or not at all.
type Change struct {
	Op   Op
	Key  int
	Text string
}

// SQL writes the change for a table entry (id integer PRIMARY KEY, body text NOT NULL), if the database speaks SQL.
func (c Change) SQL() string {
	switch c.Op {
	case Insert:
		return fmt.Sprintf("INSERT INTO entry (id, body) VALUES (%d, '%s')", c.Key, c.Text)
	case Append:
		return fmt.Sprintf("UPDATE entry SET body = body || '%s' WHERE id = %d", c.Text, c.Key)
	}
	return fmt.Sprintf("DELETE FROM entry WHERE id = %d", c.Key)
}

// apply makes the change in a model of the table.
func (c Change) apply(rows map[int]string) {
	if c.Op == Delete {
		delete(rows, c.Key)
		return
	}
	rows[c.Key] += c.Text
}
