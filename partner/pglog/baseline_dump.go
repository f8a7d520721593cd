package pglog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// dumpSchema reads the definitions at the snapshot: what must exist before the rows, and what must come after them.
func (b *baseline) dumpSchema(ctx context.Context) (before, after []string, err error) {
	program, err := b.findPgDump(ctx)
	if err != nil {
		return nil, nil, err
	}
	sections := [2]string{"pre-data", "post-data"}
	var statements [2][]string
	err = b.work(ctx, len(sections), func(ctx context.Context, next <-chan int) (err error) {
		for i := range next {
			if statements[i], err = b.dumpSection(ctx, program, sections[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return statements[0], statements[1], err
}

// dumpSection runs pg_dump for one section. Not --schema-only: that would leave out filling the materialized views.
func (b *baseline) dumpSection(ctx context.Context, program, section string) ([]string, error) {
	cmd := exec.CommandContext(ctx, program, "--section="+section, "--snapshot="+b.cfg.Snapshot, "--no-password",
		"--exclude-schema=dbmirror", "--no-publications", "--no-subscriptions", "--no-tablespaces", "-B")
	env, err := libpqEnv(os.Environ(), b.cfg.Principal)
	if err != nil {
		return nil, err
	}
	cmd.Env = env
	var script, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &script, &complaint
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("pg_dump of section %s: %w: %s", section, err, b.scrub(complaint.String()))
	}
	statements, err := splitScript(script.Bytes())
	if err != nil {
		return nil, fmt.Errorf("read pg_dump's section %s: %w", section, err)
	}
	return statements, nil
}

// scrub takes the password out of what pg_dump said, and keeps its last lines.
func (b *baseline) scrub(said string) string {
	if cfg, err := parseDSN(b.cfg.Principal); err == nil && cfg.Password != "" {
		said = strings.ReplaceAll(said, cfg.Password, secretMask)
	}
	said = strings.ReplaceAll(strings.TrimSpace(said), string(b.cfg.Principal), secretMask)
	const limit = 1000
	if runes := []rune(said); len(runes) > limit {
		said = "..." + string(runes[len(runes)-limit:])
	}
	return said
}

// findPgDump returns the pg_dump to use: the configured one, or the oldest among those on PATH and in the directories of
// distributions that is as new as the principal. An older one cannot read the principal; a newer one writes for its own
// version.
func (b *baseline) findPgDump(ctx context.Context) (string, error) {
	var number int
	if err := b.source.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&number); err != nil {
		return "", fmt.Errorf("ask the principal for its version: %w", err)
	}
	need := number / 10000
	candidates := []string{b.cfg.PgDump}
	if b.cfg.PgDump == "" {
		candidates = pgDumpPlaces()
	}
	best, bestMajor := "", 0
	var seen []string
	for _, program := range candidates {
		major, err := pgDumpMajor(ctx, program)
		if err != nil {
			seen = append(seen, err.Error())
			continue
		}
		seen = append(seen, fmt.Sprintf("%s is version %d", program, major))
		if major >= need && (best == "" || major < bestMajor) {
			best, bestMajor = program, major
		}
	}
	if best == "" {
		return "", fmt.Errorf("no pg_dump of version %d or newer (%s): install the package postgresql-client-%d, "+
			"or name the program in PgDump", need, strings.Join(seen, "; "), need)
	}
	return best, nil
}

func pgDumpPlaces() []string {
	var places []string
	if program, err := exec.LookPath("pg_dump"); err == nil {
		places = append(places, program)
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/lib/postgresql*/bin",
		"/usr/local/pgsql*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/*/*/*/bin"} {
		// Glob's only error is a bad pattern, and these are good.
		found, _ := filepath.Glob(filepath.Join(pattern, "pg_dump"))
		places = append(places, found...)
	}
	return places
}

func pgDumpMajor(ctx context.Context, program string) (int, error) {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("%s does not run: %w", program, err)
	}
	match := regexp.MustCompile(`^pg_dump \(PostgreSQL\) (\d+)`).FindSubmatch(out)
	if match == nil {
		return 0, fmt.Errorf("%s is not PostgreSQL's pg_dump", program)
	}
	return strconv.Atoi(string(match[1]))
}
