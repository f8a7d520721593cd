package pgtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// EnvBin names the environment variable that says where the server binaries are. When it is set, no other place is
// looked at.
const EnvBin = "DBMIRROR_PG_BIN"

// oldest is the first major version with everything that the module needs of a server.
const oldest = 14

// Install is a place with PostgreSQL server binaries.
type Install struct {
	Bin     string // directory that holds postgres and initdb
	Version int    // major version, 14 or higher
}

// ErrNotFound is returned by Look when no place holds server binaries.
var ErrNotFound = errors.New("find PostgreSQL: no server binaries on PATH or in the usual places")

// Find looks for server binaries as Look does. On Debian and its kin, as root and with none found, it installs the
// package postgresql with apt-get and writes that to log, which may be nil. Otherwise the error says what to install.
func Find(ctx context.Context, log io.Writer) (Install, error) {
	if log == nil {
		log = io.Discard
	}
	in, err := Look(ctx)
	switch {
	case !errors.Is(err, ErrNotFound):
		return in, err
	case !canInstall():
		return Install{}, fmt.Errorf("%w; want version %d or later: install the package postgresql (on macOS: brew install postgresql), "+
			"or set %s to the directory that holds postgres and initdb", err, oldest, EnvBin)
	}
	return install(ctx, log)
}

// Look looks for server binaries: in $DBMIRROR_PG_BIN, on PATH, where pg_config points, and in the directories that
// distributions use, newest version first. It changes nothing on this machine. Where there are none it returns
// ErrNotFound; another error says what is wrong with $DBMIRROR_PG_BIN, which is the only place when it is set.
func Look(ctx context.Context) (Install, error) {
	if bin := os.Getenv(EnvBin); bin != "" {
		in, err := inspect(ctx, bin)
		if err != nil {
			return Install{}, fmt.Errorf("%s=%s: %w; set it to the directory that holds postgres and initdb "+
				"of PostgreSQL %d or later, or unset it", EnvBin, bin, err, oldest)
		}
		return in, nil
	}
	if in, ok := search(ctx); ok {
		return in, nil
	}
	return Install{}, ErrNotFound
}

// search returns the first usable install among the places that need no setting.
func search(ctx context.Context) (Install, bool) {
	for _, bin := range places(ctx) {
		if in, err := inspect(ctx, bin); err == nil {
			return in, true
		}
	}
	return Install{}, false
}

func places(ctx context.Context) []string {
	var bins []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// Distributions put a link on PATH; initdb stands beside what it points to.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			bins = append(bins, filepath.Dir(path))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		bins = append(bins, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",            // Debian, Ubuntu
		"/usr/pgsql-*/bin",                     // PostgreSQL's packages for Red Hat and its kin
		"/usr/lib/postgresql*/bin",             // Alpine, SUSE
		"/opt/homebrew/opt/postgresql@*/bin",   // Homebrew on ARM
		"/usr/local/opt/postgresql@*/bin",      // Homebrew on Intel
		"/Applications/Postgres.app/*/*/*/bin", // Postgres.app
		"/usr/local/pgsql/bin",                 // built from source
		"/usr/local/pgsql-*/bin",               // several built from source
	} {
		bins = append(bins, newestFirst(pattern)...)
	}
	return bins
}

// newestFirst expands a pattern and puts the directory with the highest number in its path first.
func newestFirst(pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	slices.SortFunc(found, func(a, b string) int { return cmp.Compare(numberIn(b), numberIn(a)) })
	return found
}

// numberIn returns the last run of digits in a path, or 0.
func numberIn(path string) int {
	digits := strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, err := strconv.Atoi(digits[len(digits)-1])
	if err != nil {
		return 0
	}
	return n
}

// inspect checks that bin holds a server that can be used, and asks it for its version.
func inspect(ctx context.Context, bin string) (Install, error) {
	for _, name := range []string{"postgres", "initdb"} {
		info, err := os.Stat(filepath.Join(bin, name))
		if err != nil {
			return Install{}, fmt.Errorf("no %s there", name)
		}
		if info.IsDir() || info.Mode()&0o111 == 0 {
			return Install{}, fmt.Errorf("%s there is not a program", name)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return Install{}, fmt.Errorf("ask postgres for its version: %w", err)
	}
	version, err := parseVersion(string(out))
	if err != nil {
		return Install{}, err
	}
	if version < oldest {
		return Install{}, fmt.Errorf("PostgreSQL %d is too old", version)
	}
	return Install{Bin: bin, Version: version}, nil
}

// parseVersion reads the major version from a line such as "postgres (PostgreSQL) 15.18 (Debian ...)" or "... 19devel".
func parseVersion(line string) (int, error) {
	_, rest, ok := strings.Cut(line, "(PostgreSQL) ")
	if !ok {
		return 0, fmt.Errorf("read version: %q is not PostgreSQL's answer", strings.TrimSpace(line))
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	version, err := strconv.Atoi(rest[:end])
	if err != nil {
		return 0, fmt.Errorf("read version: no number in %q", strings.TrimSpace(line))
	}
	return version, nil
}

func canInstall() bool {
	if os.Geteuid() != 0 {
		return false
	}
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		return false
	}
	_, err := exec.LookPath("apt-get")
	return err == nil
}

// install gets the distribution's package. Several test programs may come here at the same time; apt-get would refuse
// all but one, so they take turns, and the later ones find what the first has installed.
func install(ctx context.Context, log io.Writer) (in Install, err error) {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "dbmirror-pgtest-install.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return Install{}, fmt.Errorf("install PostgreSQL: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return Install{}, fmt.Errorf("install PostgreSQL: wait for others: %w", err)
	}
	if in, ok := search(ctx); ok {
		return in, nil
	}
	for _, args := range [][]string{
		{"update"},
		{"install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "postgresql"},
	} {
		fmt.Fprintf(log, "pgtest: no PostgreSQL server here: apt-get %s\n", strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return Install{}, fmt.Errorf("install PostgreSQL: apt-get %s: %w: %s; install the package postgresql by hand, or set %s",
				args[0], err, lastLines(string(out), 3), EnvBin)
		}
	}
	if in, ok := search(ctx); ok {
		return in, nil
	}
	return Install{}, fmt.Errorf("find PostgreSQL: the package postgresql is installed, but brought no server binaries "+
		"of version %d or later; set %s to the directory that holds postgres and initdb", oldest, EnvBin)
}

// lastLines returns the last n lines of text without the newline at its end.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
