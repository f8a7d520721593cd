package pglog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/pgtest"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// TestTextOfNoEncoding: a database of encoding SQL_ASCII holds bytes that are no UTF-8, in values and in keys. They come
// through as they are, by stream and by redo; the server would end a stream that asks for UTF8 at the first of them.
func TestTextOfNoEncoding(t *testing.T) {
	t.Parallel()
	s := &source{t: t, server: pgtest.New(t, map[string]string{"wal_level": "logical"})}
	s.admin = s.connect("app", "local")
	for _, database := range []string{"here", "there"} {
		s.exec("CREATE DATABASE " + database + " TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
	}
	target := s.connect("there", "local")
	s.admin = s.connect("here", "local")
	const tables = "CREATE TABLE t (k text PRIMARY KEY, v text, list text[])"
	s.exec(tables)
	_, err := target.Exec(t.Context(), tables)
	require.NoError(t, err)
	s.exec("CREATE PUBLICATION p FOR ALL TABLES")
	start := s.createSlot()
	s.log = newLog(t, start, redo.Config{})
	beginRedo(t, target, start)

	cfg := s.config()
	cfg.DSN = Secret(s.server.DSN("here"))
	r := s.run(cfg)
	s.exec(`INSERT INTO t SELECT E'k\xff' || i, E'\xc3\x28 \xe4' || i, ARRAY[E'\xfe', NULL, 'a"b'] FROM generate_series(1, 200) i`)
	s.exec(`UPDATE t SET v = E'\x80\x81' || k WHERE k LIKE '%7'`)
	s.exec(`UPDATE t SET k = E'\xf0' || k WHERE k LIKE '%3'`)
	s.exec(`DELETE FROM t WHERE k LIKE '%5'`)
	s.exec(`INSERT INTO t VALUES (E'alone\xff', 'plain', '{}')`)
	s.reach(r)

	s.redo("there")
	r.end(t)

	const all = "SELECT count(*) || md5(string_agg(encode(textsend(t::text), 'hex'), ',' ORDER BY k)) FROM t"
	var got string
	require.NoError(t, target.QueryRow(t.Context(), all).Scan(&got))
	require.Equal(t, s.text(all), got)
}
