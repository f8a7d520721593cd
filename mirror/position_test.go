package mirror

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseLSN(t *testing.T) {
	for text, want := range map[string]LSN{
		"0/0": 0, "0/1": 1, "1/0": 1 << 32, "16/B374D848": 0x16B374D848, "ffffffff/FFFFFFFF": 1<<64 - 1, "00000001/0000000a": 1<<32 + 10,
	} {
		got, err := ParseLSN(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"", "/", "0", "0/", "/0", "0/0/0", "000000001/0", "0/000000001", "+1/0", "0/-1", "g/0", "0/ 1", " 0/1", "0/1 ", "0x1/0", "1_0/0", "٠/0",
	} {
		got, err := ParseLSN(text)
		require.ErrorContains(t, err, "parse LSN", "%q", text)
		require.Zero(t, got)
	}
}

func TestLSNRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := LSN(rapid.Uint64().Draw(t, "lsn"))
		got, err := ParseLSN(l.String())
		require.NoError(t, err)
		require.Equal(t, l, got)
	})
}

func TestPositionOrder(t *testing.T) {
	ordered := []Position{{}, {0, 1}, {1, 0}, {1, 9}, {2, 0}, {2, 1}}
	for i, p := range ordered {
		for k, q := range ordered {
			require.Equal(t, sign(i-k), p.Compare(q), "%s and %s", p, q)
		}
	}
	require.Equal(t, "3:1/A", Position{3, 1<<32 + 10}.String())
}

func sign(d int) int {
	switch {
	case d < 0:
		return -1
	case d > 0:
		return 1
	}
	return 0
}
