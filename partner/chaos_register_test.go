package partner

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// operation is one on a register. Each value is written once at most, so a value that is read tells who wrote it.
type operation struct {
	client    int
	kind      operationKind
	key       int
	expect    int64 // cas: writes if this is found
	value     int64 // write, cas: what is written
	found     int64 // read, cas: what was there
	call, end time.Duration
	outcome   outcome
}

type operationKind int

const (
	read operationKind = iota
	write
	cas
	numOperations
)

func (o operation) String() string {
	return fmt.Sprintf("%d: %s..%s key %d %s expect %d write %d found %d %s", o.client, o.call, o.end, o.key,
		[...]string{"read", "write", "cas"}[o.kind], o.expect, o.value, o.found, [...]string{"undone", "unknown", "sure"}[o.outcome])
}

// register is a client that reads, writes and compares-and-sets registers.
func (w *work) register(i int) {
	s := w.session(i)
	defer s.close()
	seen := [registers]int64{}
	for w.next(60 * time.Millisecond) {
		if !s.connected() {
			continue
		}
		o := operation{client: i, kind: operationKind(rand.IntN(int(numOperations))), key: rand.IntN(registers)}
		o.expect, o.value = seen[o.key], w.fresh()
		w.run(s, &o)
		if o.outcome == sure && o.kind != write {
			seen[o.key] = o.found
		} else if o.outcome == sure {
			seen[o.key] = o.value
		}
	}
}

// fresh is a value that nobody has written.
func (w *work) fresh() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written++
	return w.written
}

// run carries an operation out and notes it.
func (w *work) run(s *session, o *operation) {
	o.call = time.Since(w.start)
	o.outcome = s.do(func(ctx context.Context, conn *pgx.Conn) error { return o.carryOut(ctx, conn) })
	o.end = time.Since(w.start)
	w.count("registers", o.outcome)
	w.c.history.add("register", o.String(), nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ops = append(w.ops, *o)
}

// carryOut is the operation in SQL. A read writes too: what it has seen is then acknowledged before it is. A plain read
// may see a commit whose wait was ended early, and which is gone after a failover (guarantees, unknown outcomes).
func (o *operation) carryOut(ctx context.Context, conn *pgx.Conn) error {
	switch o.kind {
	case read:
		return conn.QueryRow(ctx, "UPDATE register SET looks = looks + 1 WHERE key = $1 RETURNING value", o.key).Scan(&o.found)
	case write:
		_, err := conn.Exec(ctx, "UPDATE register SET value = $2 WHERE key = $1", o.key, o.value)
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "SELECT value FROM register WHERE key = $1 FOR UPDATE", o.key).Scan(&o.found); err != nil {
			return err
		}
		next := o.found
		if o.found == o.expect {
			next = o.value
		}
		_, err := tx.Exec(ctx, "UPDATE register SET value = $2, looks = looks + 1 WHERE key = $1", o.key, next)
		return err
	})
}

// registerModel is one register that holds zero at first. An operation of unknown outcome has no output.
func registerModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, registers)
			for _, o := range history {
				key := o.Input.(operation).key
				parts[key] = append(parts[key], o)
			}
			return parts
		},
		Init: func() any { return int64(0) },
		Step: func(state, input, output any) (bool, any) {
			holds, o, known := state.(int64), input.(operation), output.(bool)
			switch {
			case o.kind == write:
				return true, o.value
			case known && o.found != holds:
				return false, holds
			case o.kind == cas && holds == o.expect:
				return true, o.value
			}
			return true, holds
		},
	}
}

// linearizable says whether the operations can have happened one after the other, each at a moment between its call and
// its end. One of unknown outcome may have happened at any time after its call, or never, which is the same as at the
// very end. One whose value nobody has found is therefore left out: it changes nothing for the others.
func linearizable(ops []operation, limit time.Duration) porcupine.CheckResult {
	found := map[int64]bool{}
	for _, o := range ops {
		if o.outcome == sure && o.kind != write {
			found[o.found] = true
		}
	}
	var history []porcupine.Operation
	for _, o := range ops {
		end := o.end.Nanoseconds()
		switch {
		case o.outcome == undone, o.outcome == unknown && (o.kind == read || !found[o.value]):
			continue
		case o.outcome == unknown:
			end = math.MaxInt64
		}
		history = append(history, porcupine.Operation{ClientId: o.client, Input: o, Call: o.call.Nanoseconds(), Output: o.outcome == sure, Return: end})
	}
	return porcupine.CheckOperationsTimeout(registerModel(), history, limit)
}

// TestChaosRegisters: the checker tells good histories from bad ones.
func TestChaosRegisters(t *testing.T) {
	at := func(call, end int, o operation) operation {
		o.call, o.end = time.Duration(call), time.Duration(end)
		return o
	}
	wrote := func(v int64, o outcome) operation { return operation{kind: write, value: v, outcome: o} }
	saw := func(v int64) operation { return operation{kind: read, found: v, outcome: sure} }
	for name, c := range map[string]struct {
		ops  []operation
		want porcupine.CheckResult
	}{
		"in order":                 {[]operation{at(0, 1, wrote(1, sure)), at(2, 3, saw(1))}, porcupine.Ok},
		"lost":                     {[]operation{at(0, 1, wrote(1, sure)), at(2, 3, saw(0))}, porcupine.Illegal},
		"at the same time":         {[]operation{at(0, 9, wrote(1, sure)), at(2, 3, saw(0)), at(4, 5, saw(1))}, porcupine.Ok},
		"seen and gone":            {[]operation{at(0, 9, wrote(1, sure)), at(2, 3, saw(1)), at(4, 5, saw(0))}, porcupine.Illegal},
		"unknown and seen late":    {[]operation{at(0, 1, wrote(1, unknown)), at(2, 3, saw(0)), at(8, 9, saw(1))}, porcupine.Ok},
		"unknown, seen and gone":   {[]operation{at(0, 1, wrote(1, unknown)), at(2, 3, saw(1)), at(8, 9, saw(0))}, porcupine.Illegal},
		"unknown and never seen":   {[]operation{at(0, 1, wrote(1, unknown)), at(2, 3, saw(0))}, porcupine.Ok},
		"undone and seen":          {[]operation{at(0, 1, wrote(1, undone)), at(2, 3, saw(1))}, porcupine.Illegal},
		"set on what is not there": {[]operation{at(0, 1, wrote(1, sure)), at(2, 3, operation{kind: cas, expect: 0, value: 2, found: 0, outcome: sure})}, porcupine.Illegal},
		"set":                      {[]operation{at(0, 1, wrote(1, sure)), at(2, 3, operation{kind: cas, expect: 1, value: 2, found: 1, outcome: sure}), at(4, 5, saw(2))}, porcupine.Ok},
		"not set":                  {[]operation{at(0, 1, wrote(1, sure)), at(2, 3, operation{kind: cas, expect: 7, value: 2, found: 1, outcome: sure}), at(4, 5, saw(2))}, porcupine.Illegal},
		"unknown set, seen":        {[]operation{at(0, 1, operation{kind: cas, expect: 0, value: 2, outcome: unknown}), at(4, 5, saw(2))}, porcupine.Ok},
	} {
		require.Equal(t, c.want, linearizable(c.ops, time.Minute), name)
	}
}
