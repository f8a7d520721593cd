package pglog

import (
	"fmt"

	"github.com/f19126b3/dbmirror/mirror"
)

// GapReason says why the log of the principal cannot be continued where the mirror's hardened log ends, or the hardened
// log where the mirror's database ends.
type GapReason uint8

// The reasons. In each, streaming or redo would lose log without an error from anybody, so the session must be suspended and
// the database copied anew, unless the mend says otherwise.
const (
	GapIdentity        GapReason = iota + 1 // another server answers, or this one was restored to an earlier state
	GapDatabase                             // the database was dropped and made anew
	GapSequence                             // the hardened log ends in another role sequence
	GapSlotMissing                          // the slot does not exist
	GapSlotForeign                          // a slot of that name is not ours: other plugin, kind or database
	GapSlotInvalidated                      // the server has given up the slot's log
	GapSlotAhead                            // the slot was advanced beyond the hardened log
	GapSlotPoisoned                         // the slot stands beyond the server's own log
	GapLogAhead                             // the hardened log goes beyond the server's
	GapPublication                          // the publication does not exist
	GapTrimmed                              // the hardened log begins beyond the redone position
)

// String returns the reason in lower case.
func (r GapReason) String() string {
	names := [...]string{"none", "identity changed", "database changed", "role sequence changed", "slot missing",
		"slot foreign", "slot invalidated", "slot ahead", "slot poisoned", "log ahead of server", "publication missing", "log begins after the redone position"}
	if int(r) < len(names) {
		return names[r]
	}
	return "invalid"
}

// GapError is returned before anything was read when log would be missing: trying again does not help.
type GapError struct {
	Why    GapReason
	Detail string // what was found
	Mend   string // what an operator can do
}

func (e *GapError) Error() string {
	what := "read the principal's log"
	if e.Why == GapTrimmed {
		what = "redo the hardened log"
	}
	return fmt.Sprintf("%s: %s: %s; %s", what, e.Why, e.Detail, e.Mend)
}

// Reason says whether another database answers, or log is missing.
func (e *GapError) Reason() mirror.Reason {
	if e.Why == GapIdentity || e.Why == GapDatabase {
		return mirror.ReasonIdentity
	}
	return mirror.ReasonLogGap
}

const mendCopy = "copy the database to the mirror anew"

func gap(why GapReason, mend, detail string, args ...any) error {
	return &GapError{Why: why, Detail: fmt.Sprintf(detail, args...), Mend: mend}
}
