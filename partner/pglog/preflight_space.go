package pglog

import (
	"net"
	"os"
	"path/filepath"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// receivingSpace compares the size of the principal's database with what is free where the mirror keeps its own, when
// this program runs on the mirror's machine and can know it.
func (e *examination) receivingSpace(from, to serverFacts, content MirrorContent) {
	directory, free, known := e.localSpace()
	if !known || content == MirrorAdopted {
		return
	}
	if content == MirrorReplaced {
		free += to.bytes
	}
	e.findings = append(e.findings, backend.ReceivingSpace(e.name, directory, free, from.bytes)...)
}

// sendingSpace: a mirror that is away makes the principal keep log up to the budget, on the principal's disk.
func (e *examination) sendingSpace(cfg PreflightConfig) {
	if directory, free, known := e.localSpace(); known {
		e.findings = append(e.findings, backend.SendingSpace(e.name, directory, free, cfg.LogBudget)...)
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
	free, known = backend.FreeBytes(directory)
	return directory, free, known
}
