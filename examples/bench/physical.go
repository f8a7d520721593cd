package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// standby makes server to, which holds nothing yet, a physical copy of from that streams, and makes commits wait for it.
func (l *lab) standby(ctx context.Context, from, to *pgtest.Server) error {
	if err := to.Stop("immediate"); err != nil {
		return err
	}
	data := filepath.Join(filepath.Dir(to.LogFile()), "data")
	owner, err := os.Stat(data)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	if _, err := l.command(ctx, "pg_basebackup", "-R", "-c", "fast", "-D", data, "-d", from.DSN("app")+"&application_name=phys"); err != nil {
		return err
	}
	if err := own(data, owner); err != nil {
		return err
	}
	if err := to.Restart(ctx); err != nil {
		return err
	}
	return waitFor(ctx, from, "phys")
}

// own gives everything below a directory to whom the directory belonged before.
func own(dir string, owner fs.FileInfo) error {
	who, ok := owner.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("copy a server: this system does not tell whose a file is")
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("copy a server: %w", err)
		}
		return os.Lchown(path, int(who.Uid), int(who.Gid))
	})
}
