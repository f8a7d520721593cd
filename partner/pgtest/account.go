package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the user that a server runs as. The zero account is the user of this process.
type account struct {
	name     string
	uid, gid uint32
}

// serverAccount picks the user: postgres, else nobody, when this process is root, which PostgreSQL refuses to run as.
// The user must be a known one: initdb looks up its own name.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if _, unknown := errors.AsType[user.UnknownUserError](err); unknown {
			continue
		}
		if err != nil {
			return account{}, fmt.Errorf("look up user %s: %w", name, err)
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("look up user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("look up user %s: %w", name, err)
		}
		return account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return account{}, errors.New("PostgreSQL does not run as root, and neither postgres nor nobody is a user here: " +
		"add one of them, or run as another user")
}

func (a account) other() bool { return a.name != "" }

// prepare makes dir for the account: owned by it, closed to others, and reachable from the root directory.
func (a account) prepare(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make server directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make server directory: %w", err)
	}
	if !a.other() {
		return nil // whoever could make it can reach it
	}
	if err := os.Chown(dir, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("give server directory to %s: %w", a.name, err)
	}
	return a.open(dir)
}

// open lets the account pass through the directories above dir. It widens the one just above and those below
// [os.TempDir], which are ours or a test's; any other that is closed is not ours to open.
func (a account) open(dir string) error {
	parent := filepath.Dir(dir)
	temp := filepath.Clean(os.TempDir()) + string(filepath.Separator)
	for {
		at, err := a.barrier(parent)
		if err != nil || at == "" {
			return err
		}
		if at != parent && !strings.HasPrefix(at, temp) {
			return fmt.Errorf("the server runs as user %s, who may not pass through %s: "+
				"choose a directory elsewhere, or chmod o+x %s", a.name, at, at)
		}
		if err := a.widen(at); err != nil {
			return err
		}
	}
}

// barrier returns the lowest directory, dir or one above it, that the account may not pass through; none is "".
func (a account) barrier(dir string) (string, error) {
	if !a.other() {
		return "", nil
	}
	for at := dir; ; at = filepath.Dir(at) {
		ok, err := a.mayPass(at)
		if err != nil {
			return "", err
		}
		if !ok {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", nil
		}
	}
}

// widen gives the search permission of dir to everybody, the account included.
func (a account) widen(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("open directory for %s: %w", a.name, err)
	}
	if err := os.Chmod(dir, info.Mode().Perm()|info.Mode()&fs.ModeSticky|0o111); err != nil {
		return fmt.Errorf("open directory for %s: %w", a.name, err)
	}
	return nil
}

// mayPass says whether the account has the search permission of dir.
func (a account) mayPass(dir string) (bool, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return false, fmt.Errorf("look at directory: %w", err)
	}
	search := fs.FileMode(0o001)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		switch {
		case stat.Uid == a.uid:
			search = 0o100
		case stat.Gid == a.gid:
			search = 0o010
		}
	}
	return info.Mode()&search != 0, nil
}
