package host

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseSessionID(f *testing.F) {
	for _, s := range []string{"", "0123456789abcdef0123456789ABCDEF", "0123456789abcdef0123456789abcdef0", "0x23456789abcdef0123456789abcdef"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseSessionID(s)
		if err == nil {
			require.Equal(t, strings.ToLower(s), id.String())
			return
		}
		require.ErrorContains(t, err, "openssl rand")
	})
}
