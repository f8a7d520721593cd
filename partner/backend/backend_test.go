package backend_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

func TestErrorsTellWhyTheySuspend(t *testing.T) {
	full := backend.Because(mirror.ReasonDiskFull, io.ErrShortWrite)
	refused := backend.Refuse([]backend.Finding{{Severity: backend.Warning, Text: "harmless"}, {Severity: backend.Fatal, Text: "cause"}})
	for _, c := range []struct {
		err  error
		want mirror.Reason
	}{
		{nil, mirror.ReasonNone},
		{io.EOF, mirror.ReasonNone},
		{full, mirror.ReasonDiskFull},
		{fmt.Errorf("copy: %w", full), mirror.ReasonDiskFull},
		{errors.Join(io.EOF, full), mirror.ReasonDiskFull},
		{backend.Because(mirror.ReasonRedoError, full), mirror.ReasonRedoError},
		{fmt.Errorf("redo: %w", backend.ErrNoProgress), mirror.ReasonIdentity},
		{refused, mirror.ReasonPreflight},
	} {
		require.Equal(t, c.want, backend.ReasonOf(c.err), "%v", c.err)
	}
	require.Equal(t, io.ErrShortWrite.Error(), full.Error())
	require.ErrorIs(t, full, io.ErrShortWrite)
	require.ErrorContains(t, refused, "cause")
	require.NotContains(t, refused.Error(), "harmless")
}

func TestCompareNamesWhatDiffers(t *testing.T) {
	one, other := backend.TableSum{Rows: 2, Sum: "12345678901"}, backend.TableSum{Rows: 3, Sum: "2"}
	require.True(t, backend.Compare(nil, nil).Equal())
	same := backend.Compare(map[string]backend.TableSum{"a": one}, map[string]backend.TableSum{"a": one})
	require.True(t, same.Equal())
	require.Equal(t, "1 tables with 2 rows are equal", same.String())
	c := backend.Compare(map[string]backend.TableSum{"a": one, "b": one}, map[string]backend.TableSum{"b": other, "c": other})
	require.False(t, c.Equal())
	require.Equal(t, "3 of 3 tables differ: a: 2 rows (12345678) and missing; b: 2 rows (12345678) and 3 rows (2); c: missing and 3 rows (2)", c.String())
}

func TestIdentityIsItsID(t *testing.T) {
	a := backend.Identity{ID: "1/2", Name: "database app"}
	require.True(t, a.Same(backend.Identity{ID: "1/2", Name: "database renamed"}))
	require.False(t, a.Same(backend.Identity{ID: "1/3", Name: "database app"}))
	require.Equal(t, "database app", a.String())
	require.Equal(t, "01234567", backend.Env{Session: "0123456789abcdef"}.Short())
}
