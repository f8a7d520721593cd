package trio

import (
	"encoding/json"
	"fmt"
)

// Transition puts a line of a process's log into words that tells of another role or state. It is empty for any other.
func Transition(line []byte) string {
	var l struct {
		Msg, Role, From, To, Reason string
		Seq                         uint64 `json:"role_seq"`
	}
	if json.Unmarshal(line, &l) != nil {
		return ""
	}
	switch l.Msg {
	case "role":
		return fmt.Sprintf("%-9s  role sequence %d (%s)", l.Role, l.Seq, l.Reason)
	case "state":
		return fmt.Sprintf("%-9s  %s -> %s (%s)", l.Role, l.From, l.To, l.Reason)
	}
	return ""
}
