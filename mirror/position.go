package mirror

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the log of one PostgreSQL server, in bytes. The LSNs of two servers are unrelated numbers:
// compare only positions of the same server. Zero means unknown.
type LSN uint64

// String writes the LSN as PostgreSQL does: two hexadecimal halves.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads what String writes. It is strict: two halves of one to eight hexadecimal digits and nothing else.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse LSN %q: no slash", s)
	}
	h, err := parseHalf(high)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: %w", s, err)
	}
	l, err := parseHalf(low)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

func parseHalf(s string) (uint64, error) {
	if len(s) == 0 || len(s) > 8 || s[0] == '+' || s[0] == '-' {
		return 0, fmt.Errorf("half %q is not one to eight hexadecimal digits", s)
	}
	v, err := strconv.ParseUint(s, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("half %q is not hexadecimal", s)
	}
	return v, nil
}

// RoleSeq is the role sequence: it rises by each role change, belongs to exactly one principal, and the higher one
// wins. Zero means that no session has been established.
type RoleSeq uint64

// Position is a place in the history of a session: an LSN of the server that is principal in that role sequence.
type Position struct {
	Seq RoleSeq
	LSN LSN
}

// Compare orders positions by role sequence first. Across role sequences the LSNs are of different servers, so the
// order says only which history is the newer one.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Seq, q.Seq), cmp.Compare(p.LSN, q.LSN))
}

// String writes the position as role sequence and LSN.
func (p Position) String() string {
	return fmt.Sprintf("%d:%s", p.Seq, p.LSN)
}
