package pglog

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// waitList is synchronous_standby_names taken apart: the names of this library and those of the operator. The setting is
// the server's, so several sessions and the operator share it. Every listed name must confirm, which is the only way in
// which their wishes can be joined: "any one of two" would let the operator's standby confirm for the mirror.
type waitList struct {
	ours, others []string
}

const (
	ourPrefix = "dbmirror_"
	// suffixClosed ends the name that no walsender bears: while it is listed no commit returns.
	suffixClosed = "closed"
	// suffixRestart ends the name that stands in the file and must not be in force: a server that restarts comes up
	// waiting, whatever it was before.
	suffixRestart = "restart"
)

// WaitListError is returned when synchronous_standby_names holds a composition that cannot be joined with the mirror's
// name.
type WaitListError struct {
	Value string // the setting as it was found
	Why   string
	Mend  string // what the operator can do
}

func (e *WaitListError) Error() string {
	return fmt.Sprintf("synchronous_standby_names = %s: %s: %s", quoteLiteral(e.Value), e.Why, e.Mend)
}

// parseWaitList reads the setting as PostgreSQL does: a list, FIRST n (list), n (list) or ANY n (list), of names that
// may be quoted. It returns a *WaitListError for one that does not demand every listed name.
func parseWaitList(value string) (waitList, error) {
	tokens, err := waitTokens(value)
	if err != nil {
		return waitList{}, err
	}
	if len(tokens) == 0 {
		return waitList{}, nil
	}
	count, names, ok := waitNames(tokens)
	if !ok {
		return waitList{}, &WaitListError{value, "it is not understood", "correct it, or reset it"}
	}
	var list waitList
	for _, name := range names {
		if strings.HasPrefix(strings.ToLower(name), ourPrefix) {
			list.ours = append(list.ours, name)
		} else {
			list.others = append(list.others, name)
		}
	}
	if slices.Contains(names, "*") {
		return waitList{}, &WaitListError{value, "* lets any standby confirm in the mirror's place", "name the standbys"}
	}
	if count != len(names) {
		mend := "demand each: SET TO " + quoteLiteral(waitList{others: list.others}.String())
		return waitList{}, &WaitListError{value, fmt.Sprintf("it asks for %d of %d standbys", count, len(names)), mend}
	}
	return list, nil
}

// waitTokens splits the setting into ( ) , and names. A name that was quoted keeps its quote in front, so that a quoted
// "any" is a name.
func waitTokens(value string) ([]string, error) {
	token := regexp.MustCompile(`^(?:[(),]|"(?:[^"]|"")*"|[^\s(),"]+)`)
	var tokens []string
	for rest := strings.TrimSpace(value); rest != ""; rest = strings.TrimSpace(rest) {
		t := token.FindString(rest)
		if t == "" {
			return nil, &WaitListError{value, "a quote is not closed", "correct it, or reset it"}
		}
		rest = rest[len(t):]
		if t[0] == '"' {
			t = `"` + strings.ReplaceAll(t[1:len(t)-1], `""`, `"`)
		}
		tokens = append(tokens, t)
	}
	return tokens, nil
}

// waitNames yields how many of which names must confirm. A plain list asks for one of them.
func waitNames(tokens []string) (count int, names []string, ok bool) {
	count = 1
	if open := slices.Index(tokens, "("); open >= 0 {
		head := tokens[:open]
		if len(head) == 2 && (strings.EqualFold(head[0], "any") || strings.EqualFold(head[0], "first")) {
			head = head[1:]
		}
		if len(head) != 1 || tokens[len(tokens)-1] != ")" {
			return 0, nil, false
		}
		n, err := strconv.Atoi(head[0])
		if err != nil {
			return 0, nil, false
		}
		count, tokens = n, tokens[open+1:len(tokens)-1]
	}
	for i, t := range tokens {
		if i%2 == 1 {
			if t != "," {
				return 0, nil, false
			}
			continue
		}
		if t == "," || t == "(" || t == ")" {
			return 0, nil, false
		}
		names = append(names, strings.TrimPrefix(t, `"`))
	}
	return count, names, len(tokens)%2 == 1
}

// String composes the setting, or "" when nobody is waited for. Our names stand first: with several standbys of one name
// PostgreSQL counts each, in the order of the list.
func (l waitList) String() string {
	names := slices.Concat(l.ours, l.others)
	if len(names) == 0 {
		return ""
	}
	for i, name := range names {
		names[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	return fmt.Sprintf("FIRST %d (%s)", len(names), strings.Join(names, ", "))
}

// with returns the list in which name is the only one that begins with prefix; an empty name removes them all.
func (l waitList) with(prefix, name string) waitList {
	ours := slices.DeleteFunc(slices.Clone(l.ours), func(n string) bool { return hasPrefixFold(n, prefix) })
	if name != "" {
		ours = append(ours, name)
	}
	return waitList{ours: ours, others: l.others}
}

// inForce returns the list without the names that are for the next restart only.
func (l waitList) inForce() waitList {
	return waitList{ours: slices.DeleteFunc(slices.Clone(l.ours), forRestart), others: l.others}
}

func forRestart(name string) bool { return strings.HasSuffix(name, "_"+suffixRestart) }

// withRestarts returns the list with the names of an earlier one that are for the next restart only, but for those of
// sessions that have a name in it.
func (l waitList) withRestarts(earlier waitList) waitList {
	ours := slices.Clone(l.ours)
	for _, name := range earlier.ours {
		if forRestart(name) && l.own(strings.TrimSuffix(name, suffixRestart)) == "" {
			ours = append(ours, name)
		}
	}
	return waitList{ours: ours, others: l.others}
}

// own returns the first name that begins with prefix, or "".
func (l waitList) own(prefix string) string {
	for _, n := range l.ours {
		if hasPrefixFold(n, prefix) {
			return n
		}
	}
	return ""
}

// strangers returns the names that do not begin with prefix, in lower case.
func (l waitList) strangers(prefix string) []string {
	rest := l.with(prefix, "")
	names := slices.Concat(rest.ours, rest.others)
	for i := range names {
		names[i] = strings.ToLower(names[i])
	}
	return names
}

// hasPrefixFold compares as PostgreSQL compares these names: without regard to case.
func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
