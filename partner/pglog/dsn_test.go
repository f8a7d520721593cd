package pglog

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestLibpqEnv(t *testing.T) {
	for dsn, want := range map[string][]string{
		"postgres://u:p%20w@h:99/d%20b?sslmode=disable&options=-c%20a%3Db+c&pool_max_conns=3": {
			"PGHOST=h", "PGPORT=99", "PGUSER=u", "PGDATABASE=d b", "PGPASSWORD=p w", "PGSSLMODE=disable", "PGOPTIONS=-c a=b+c",
			"PGCHANNELBINDING=prefer"},
		`host=h user=u password='p\'w' dbname = d sslmode=disable channel_binding=disable require_auth=scram-sha-256`: {
			"PGHOST=h", "PGPORT=5432", "PGUSER=u", "PGDATABASE=d", "PGPASSWORD=p'w", "PGSSLMODE=disable",
			"PGCHANNELBINDING=disable", "PGREQUIREAUTH=scram-sha-256"},
		"postgres://u:a#b@h/?ssl=true": { // url.Parse takes what follows # for no part of it
			"PGHOST=h", "PGPORT=5432", "PGUSER=u", "PGDATABASE=u", "PGPASSWORD=a#b", "PGSSLMODE=require", "PGCHANNELBINDING=prefer"},
	} {
		env, err := libpqEnv([]string{"HOME=/", "PGSERVICE=x", "PGHOSTADDR=1.2.3.4", "PGOPTIONS=-c x=y"}, Secret(dsn))
		require.NoError(t, err)
		require.ElementsMatch(t, append(want, "HOME=/", "PGAPPNAME=dbmirror baseline", "LC_ALL=C"), env)
	}
}

// pg_dump must not connect with less than the rest does, wherever the sslmode was written.
func TestSSLMode(t *testing.T) {
	for _, mode := range []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"} {
		for _, dsn := range []string{"postgres://u:a#b@h/d?x=y&sslmode=" + mode, "host=h user=u sslmode = '" + mode + "'"} {
			cfg, err := parseDSN(Secret(dsn))
			require.NoError(t, err)
			require.Equal(t, mode, sslMode(cfg), dsn)
		}
		t.Setenv("PGSSLMODE", mode)
		cfg, err := pgx.ParseConfig("host=h user=u")
		require.NoError(t, err)
		require.Equal(t, mode, sslMode(cfg))
	}
}

func TestDSNWithoutRole(t *testing.T) {
	require.ErrorContains(t, Secret("postgres://h/d?user=").CheckDSN(), "names no role")
	require.NoError(t, Secret("host=h user=").CheckDSN(), "as libpq has it: who runs this program")
}

// FuzzDSN: whatever is wrong with a connection string, no part of its password is shown; of one that is good, dsnWords
// reads what pgx reads.
func FuzzDSN(f *testing.F) {
	for _, dsn := range []string{"postgres://u:%s@h:1/d", "host=h password=%s", "host=h password='%s' port=x", "postgres://u:%s@h:1:2/d",
		"postgres://u:%s@[::1/d", "%s", "host=a,b password=%s", "postgres://u@h/d?password=%s&sslmode=x", "service=none password=%s",
		"postgres://?=0&", `host=h application_name = 'it\'s ' x.sslmode=a\ b options=c\`, "postgres://u:a#?b@[::1]:1/d?options=%%20+&x= %%41 "} {
		f.Add(dsn)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		const canary = "CANARY-9f3c"
		dsn = strings.ReplaceAll(dsn, "%s", canary)
		if strings.Count(dsn, canary) > 1 || strings.Contains(dsn, "service") || strings.Contains(dsn, "file") || strings.Contains(dsn, "ssl") {
			return // these name files, which may be there or not
		}
		cfg, err := parseDSN(Secret(dsn))
		if err != nil {
			require.NotContains(t, err.Error(), canary)
			return
		}
		words := dsnWords(dsn)
		for name, value := range cfg.RuntimeParams {
			require.Equal(t, value, words[name], "%q in %q", name, dsn)
		}
	})
}
