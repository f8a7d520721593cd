package backend

import "fmt"

// CodeSpace is what every backend has whose databases lie on a disk of the partner's machine: there is too little room.
const CodeSpace Code = "space"

// ReceivingSpace compares what is free in a directory, in bytes, with the size of the database whose copy will lie there.
// A copy may be smaller than what it is of, so only a disk that holds less than the database is refused; the log of the
// copy itself comes on top.
func ReceivingSpace(server, directory string, free, need int64) []Finding {
	text := fmt.Sprintf("%d MB are free and the principal's database has %d MB", free>>20, need>>20)
	switch {
	case free < need:
		return []Finding{{Severity: Fatal, Code: CodeSpace, Server: server, Object: directory, Text: text + "; make room before the baseline"}}
	case free < need+need/4:
		return []Finding{{Severity: Warning, Code: CodeSpace, Server: server, Object: directory, Text: text + ", which leaves little for the log of the copy"}}
	}
	return nil
}

// SendingSpace compares what is free in a principal's directory, in bytes, with the log that it may keep there for a
// mirror that is away.
func SendingSpace(server, directory string, free, logBudget int64) []Finding {
	if free >= logBudget {
		return nil
	}
	return []Finding{{Severity: Warning, Code: CodeSpace, Server: server, Object: directory,
		Text: fmt.Sprintf("%d MB are free and the session's log budget is %d MB: the disk is full before the budget ends the "+
			"wait for a mirror that is away", free>>20, logBudget>>20)}}
}
