package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
)

const sessionID = "0123456789abcdef0123456789abcdef"

func free(t *testing.T) string {
	t.Helper()
	port, err := trio.FreePort()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func TestFlagErrorsNameCauseAndMend(t *testing.T) {
	good := map[string]string{"session": sessionID, "dir": t.TempDir(), "listen": "127.0.0.1:1", "partner-a": "127.0.0.1:2",
		"partner-b": "127.0.0.1:3", "plaintext": "true"}
	for _, c := range []struct{ name, value, want string }{
		{"listen", "", "name an address that the partners reach"},
		{"session", "orders", "openssl rand -hex 16"},
		{"dir", "", "name a directory"},
		{"partner-b", "", "name PartnerA and PartnerB"},
		{"plaintext", "false", "give -cert, -key and -ca together, or -plaintext alone"},
		{"profile", "slow", "want default or fast"},
		{"http", ":8081", "nobody logs in there"},
		{"self", "witness", "flag provided but not defined"},
	} {
		args := []string{"-" + c.name + "=" + c.value}
		for name, value := range good {
			if name != c.name {
				args = append([]string{"-" + name + "=" + value}, args...)
			}
		}
		require.ErrorContains(t, run(t.Context(), args, io.Discard, io.Discard), c.want, "-%s=%s", c.name, c.value)
	}
	require.ErrorContains(t, run(t.Context(), []string{"status"}, io.Discard, io.Discard), `"status" is not a flag`)
}

func TestStatusOfAWitness(t *testing.T) {
	page := free(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-session", sessionID, "-dir", t.TempDir(), "-listen", free(t), "-partner-a", free(t),
			"-partner-b", free(t), "-plaintext", "-http", page}, io.Discard, io.Discard)
	}()
	require.Contains(t, get(t, "http://"+page+"/status"), `"self": "witness"`)
	require.Contains(t, get(t, "http://"+page+"/metrics"), `dbmirror_session_info{mode="none",server="witness",session="`+sessionID+`"} 1`)
	cancel()
	require.NoError(t, <-done)
}

// get asks until somebody answers: the program has just been started.
func get(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := http.Get(url)
		if err == nil {
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			require.NoError(t, err)
			return string(body)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			require.NoError(t, err)
		}
	}
}
