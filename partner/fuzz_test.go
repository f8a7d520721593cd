package partner

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/mirrortest/memory"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// FuzzNote reads what the other partner says of itself: within bounds, and nothing behind it.
func FuzzNote(f *testing.F) {
	f.Add(note{Ready: true, Trouble: "cause; mend", Findings: []backend.Finding{{Severity: backend.Fatal, Code: backend.CodeConnect, Text: "x"}}}.encode())
	f.Add([]byte(`{"Findings":[` + strings.Repeat("{},", noteLimit) + `{}]}`))
	f.Add([]byte(`{"Trouble":"` + strings.Repeat("x", endpoint.MaxBody) + `"}`))
	f.Add([]byte(`{}{}`))
	f.Add([]byte(`{"Trouble":"` + strings.Repeat("\xff", 40000) + `"}`))
	f.Add([]byte(`{"Findings":[{"Text":"\n` + strings.Repeat("x", endpoint.MaxBody-40) + `"}]}`))
	f.Add([]byte(`{` + strings.Repeat(`"Ready":1,`, 6000) + `"Ready":1}`))
	f.Add([]byte(`{` + strings.Repeat(`"Findings":[`+strings.Repeat("{},", noteLimit-1)+`{}],`, 600) + `"Ready":true}`))
	f.Add([]byte(`{"Timing":{"Ping":` + strings.Repeat("9", 60000) + `}}`))
	f.Add([]byte(`{"Findings":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > endpoint.MaxBody {
			return // the endpoint refuses it
		}
		var n note
		var err error
		memory.Bound(t, len(b), func() { n, err = decodeNote(b) })
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(n.Findings), noteLimit)
		again, err := decodeNote(n.encode())
		require.NoError(t, err)
		if len(n.Trouble) <= troubleLimit && len(n.Findings) == len(again.Findings) {
			require.Equal(t, n, again)
		}
		_, err = decodeNote(append(slices.Clip(bytes.TrimSpace(b)), '0'))
		require.Error(t, err, "trailing bytes")
	})
}

// FuzzNoteFits: whatever troubles a partner, the note about it fits into a message and can be read.
func FuzzNoteFits(f *testing.F) {
	f.Add("trouble", "text", "SQL", uint8(3))
	f.Add(strings.Repeat("x", endpoint.MaxBody), "", "", uint8(1))
	f.Add(strings.Repeat("\x01", 20000), "\xff", "<&>", uint8(200))
	f.Fuzz(func(t *testing.T, trouble, text, sql string, findings uint8) {
		n := note{Trouble: trouble}
		for range min(int(findings), noteLimit) {
			n.Findings = append(n.Findings, backend.Finding{Text: text, SQL: sql})
		}
		b := n.encode()
		require.LessOrEqual(t, len(b), endpoint.MaxBody)
		got, err := decodeNote(b)
		require.NoError(t, err)
		if utf8.ValidString(trouble) {
			require.True(t, got.Trouble == trouble || len(trouble) > troubleLimit && strings.HasPrefix(trouble, strings.TrimSuffix(got.Trouble, "...")))
		}
	})
}

// FuzzPlace reads the file that says which database a partner belongs to.
func FuzzPlace(f *testing.F) {
	b, err := json.Marshal(backend.Identity{ID: "7/5", Name: "database app"})
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte{})
	f.Add([]byte(`{"id":7}`))
	path := filepath.Join(f.TempDir(), placeFile)
	f.Fuzz(func(t *testing.T, b []byte) {
		require.NoError(t, os.WriteFile(path, b, 0o600))
		p, err := readPlace(path)
		if err != nil {
			require.ErrorContains(t, err, "remove it if the database is the right one")
			require.NotErrorIs(t, err, fs.ErrNotExist)
			return
		}
		require.NoError(t, writePlace(path, p))
		again, err := readPlace(path)
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}
