package pglog

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// receivingSpace compares the size of the principal's database with what is free where the mirror keeps its own, when
// this program runs on the mirror's machine and can know it. Indexes may be smaller after the copy than before, so only
// a disk that holds less than the database is refused; the log of the copy itself comes on top.
func (e *examination) receivingSpace(from, to serverFacts, content MirrorContent) {
	directory, free, known := e.localSpace()
	if !known || content == MirrorAdopted {
		return
	}
	if content == MirrorReplaced {
		free += to.bytes
	}
	e.compareSpace(directory, free, from.bytes)
}

func (e *examination) compareSpace(directory string, free, need int64) {
	text := fmt.Sprintf("%d MB are free and the principal's database has %d MB", free>>20, need>>20)
	switch {
	case free < need:
		e.add(Fatal, CodeSpace, directory, text+"; make room before the baseline", "")
	case free < need+need/4:
		e.add(Warning, CodeSpace, directory, text+", which leaves little for the log of the copy", "")
	}
}

// sendingSpace: a mirror that is away makes the principal keep log up to the budget, on the principal's disk.
func (e *examination) sendingSpace(cfg PreflightConfig) {
	directory, free, known := e.localSpace()
	if known && free < cfg.LogBudget {
		e.add(Warning, CodeSpace, directory, fmt.Sprintf("%d MB are free and the session's log budget is %d MB: the disk is full "+
			"before the budget ends the wait for a mirror that is away", free>>20, cfg.LogBudget>>20), "")
	}
}

// localSpace returns the server's data directory and the bytes free there. known is false when the server is on another
// machine, does not tell its directory to this role, or the directory cannot be seen from here (another container).
func (e *examination) localSpace() (directory string, free int64, known bool) {
	host := e.tx.Conn().Config().Host
	ip := net.ParseIP(host)
	if !filepath.IsAbs(host) && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, false
	}
	for _, row := range queryRows[struct{ Setting string }](e, `SELECT current_setting('data_directory')
		WHERE pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')`) {
		directory = row.Setting
	}
	if info, err := os.Stat(directory); directory == "" || err != nil || !info.IsDir() {
		return "", 0, false
	}
	free, known = freeBytes(directory)
	return directory, free, known
}
