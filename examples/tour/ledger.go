package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/f19126b3/dbmirror/mirror"
)

// payment is the identity of a payment.
type payment struct {
	client int
	number int64
}

// found is what one server holds of a payment.
type found struct {
	rows   int64
	ticket int64
}

// ledger is what all clients were promised, against which the servers are held.
type ledger struct {
	acknowledged, unknown map[payment]bool
	tickets               map[payment]int64
	repeated              int64 // tickets that were given more than once
}

// newLedger collects what the clients noted. They must have ended.
func newLedger(l *load) *ledger {
	b := &ledger{acknowledged: map[payment]bool{}, unknown: map[payment]bool{}, tickets: map[payment]int64{}}
	seen := map[int64]bool{}
	for i, c := range l.clients {
		for _, n := range c.promise.acknowledged {
			b.acknowledged[payment{i, n}] = true
		}
		for _, n := range c.promise.unknown {
			b.unknown[payment{i, n}] = true
		}
		for _, t := range c.promise.tickets {
			if seen[t.value] {
				b.repeated++
			}
			seen[t.value] = true
			b.tickets[payment{i, t.number}] = t.value
		}
	}
	return b
}

// audit is what was found on the servers. Each payment is counted once, on however many servers it is wrong.
type audit struct {
	lost       map[payment]bool // acknowledged and missing
	duplicated map[payment]bool // more than once in a table
	foreign    map[payment]bool // there, though its client never sent COMMIT
	wrong      map[payment]bool // another ticket than the client was given
	decided    int              // of the unknown ones, those that are there
	unbalanced []string
}

func newAudit() *audit {
	return &audit{lost: map[payment]bool{}, duplicated: map[payment]bool{}, foreign: map[payment]bool{}, wrong: map[payment]bool{}}
}

// check looks for every payment on both sides.
func (b *ledger) check(ctx context.Context, db kind) (*audit, error) {
	a := newAudit()
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		there, balanced, err := db.payments(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("look for payments at %s: %w", p, err)
		}
		b.compare(a, there)
		if !balanced {
			a.unbalanced = append(a.unbalanced, p.String())
		}
	}
	return a, nil
}

func (b *ledger) compare(a *audit, there map[payment]found) {
	for p := range b.acknowledged {
		if there[p].rows == 0 {
			a.lost[p] = true
		}
	}
	a.decided = 0
	for p, f := range there {
		if f.rows > 1 {
			a.duplicated[p] = true
		}
		if !b.acknowledged[p] && !b.unknown[p] {
			a.foreign[p] = true
		}
		if value, told := b.tickets[p]; told && f.ticket != value {
			a.wrong[p] = true
		}
		if b.unknown[p] {
			a.decided++
		}
	}
}

// verdict is nil when both servers hold exactly what was promised.
func (b *ledger) verdict(a *audit) error {
	var all error
	complain := func(count int, what string) {
		if count > 0 {
			all = errors.Join(all, fmt.Errorf("%d %s", count, what))
		}
	}
	complain(len(a.lost), "acknowledged payments are missing on a server")
	complain(len(a.duplicated), "payments are there more than once")
	complain(len(a.foreign), "payments are there whose clients never sent COMMIT")
	complain(len(a.wrong), "payments have another ticket than their clients were given")
	complain(int(b.repeated), "tickets were given to two payments")
	for _, name := range a.unbalanced {
		all = errors.Join(all, fmt.Errorf("at %s the balances are not the sum of the payments", name))
	}
	return all
}
