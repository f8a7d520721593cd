package redo

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReadFailure lets the disk refuse each read of a log in turn. Hardened log that cannot be read is damaged: it is
// not waited for, and what stands before it was given out.
func TestReadFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "redo")
	q, d := openFaulty(t, dir)
	s := newScript(q)
	require.NoError(t, s.attach())
	for range 6 {
		require.NoError(t, s.transaction(1500))
	}
	failures := 0
	for n := 0; ; n++ {
		d.before = failNth("read", n, errIO)
		r := q.NewReader(0)
		var err error
		read := 0
		for err == nil && r.Ready() {
			if _, _, err = r.Next(t.Context()); err == nil {
				read++
			}
		}
		d.before = nil
		require.NoError(t, r.Close())
		if err == nil {
			require.Equal(t, len(s.m.entries), read)
			break
		}
		failures++
		var corrupt *CorruptError
		require.ErrorAs(t, err, &corrupt)
		require.Contains(t, corrupt.Why, errIO.Error())
		require.Less(t, read, len(s.m.entries))
		require.NoError(t, s.transaction(100), "appending goes on")
	}
	require.Greater(t, failures, 2)
}

// TestDamageFoundByRedo damages log that is hardened and not read yet, under a queue that is open: a bit, bytes of
// another place of the same file, and zeros. The reader finds it there, gives out nothing of it, and nothing behind it.
func TestDamageFoundByRedo(t *testing.T) {
	for name, harm := range map[string]func(b []byte){
		"bit":               func(b []byte) { b[40] ^= 4 },
		"misdirected write": func(b []byte) { copy(b[:512], b[700:]) },
		"zeros":             func(b []byte) { clear(b[:512]) },
		"header":            func(b []byte) { b[8] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
			cfg.SegmentBytes = 1 << 18
			q, err := Open(cfg)
			require.NoError(t, err)
			s := newScript(q)
			require.NoError(t, s.attach())
			for range 8 {
				require.NoError(t, s.transaction(600))
			}
			const spoiled = 7 // the entry at which the damage begins
			b := make([]byte, 2000)
			at := filePos(q.start, s.m.end(spoiled))
			_, err = q.file.ReadAt(b, at)
			require.NoError(t, err)
			harm(b)
			_, err = q.file.WriteAt(b, at)
			require.NoError(t, err)

			r := q.NewReader(0)
			for _, e := range s.m.entries[:spoiled] {
				got, _, err := r.Next(t.Context())
				require.NoError(t, err)
				require.Equal(t, e.position(), got.position())
				require.True(t, bytes.Equal(e.Data, got.Data))
			}
			for range 2 {
				_, _, err = r.Next(t.Context())
				var corrupt *CorruptError
				require.ErrorAs(t, err, &corrupt)
				require.Equal(t, at, corrupt.Offset)
			}
			require.NoError(t, r.Close())
			require.NoError(t, q.Close())
			_, err = Open(cfg)
			var corrupt *CorruptError
			require.ErrorAs(t, err, &corrupt, "nor is it opened again")
		})
	}
}
