package backend_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/backend"
)

func TestSpace(t *testing.T) {
	for _, c := range []struct {
		found []backend.Finding
		want  string
	}{
		{backend.ReceivingSpace("mirror", "/d", 10<<20, 11<<20), "[fatal: mirror: space (/d): 10 MB are free and the principal's database has 11 MB; make room before the baseline]"},
		{backend.ReceivingSpace("mirror", "/d", 10<<20, 10<<20), "[warning: mirror: space (/d): 10 MB are free and the principal's database has 10 MB, which leaves little for the log of the copy]"},
		{backend.ReceivingSpace("mirror", "/d", 10<<20, 8<<20), "[]"},
		{backend.SendingSpace("principal", "/d", 10<<20, 10<<20+1), "[warning: principal: space (/d): 10 MB are free and the session's log budget is 10 MB: the disk is full before the budget ends the wait for a mirror that is away]"},
		{backend.SendingSpace("principal", "/d", 10<<20, 10<<20), "[]"},
	} {
		require.Equal(t, c.want, fmt.Sprint(c.found))
	}
	for free, want := range map[int64]backend.Severity{99: backend.Fatal, 100: backend.Warning, 124: backend.Warning} {
		require.Equal(t, want, backend.ReceivingSpace("mirror", "/d", free<<20, 100<<20)[0].Severity)
	}
	require.Empty(t, backend.ReceivingSpace("mirror", "/d", 125<<20, 100<<20))
	free, known := backend.FreeBytes(t.TempDir())
	require.True(t, known)
	require.Positive(t, free)
	_, known = backend.FreeBytes("/no such directory")
	require.False(t, known)
}
