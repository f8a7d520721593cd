package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// syncsArgument lets the tests' binary be a process that times syncs in a directory.
const syncsArgument = "time-syncs"

// TestMain lets the tests' binary be started again in the places of the program.
func TestMain(m *testing.M) {
	if settings, ok := trio.Child(os.Args); ok {
		os.Exit(trio.RunProgram(settings, inserts))
	}
	if status, ok := slowChild(os.Args); ok {
		os.Exit(status)
	}
	if status, ok := witnessChild(os.Args); ok {
		os.Exit(status)
	}
	if status, ok := plainChild(os.Args); ok {
		os.Exit(status)
	}
	if len(os.Args) == 3 && os.Args[1] == syncsArgument {
		took, err := syncMicroseconds(os.Args[2])
		fmt.Print(took)
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []struct {
		says string
		args []string
	}{
		{`there is no metric "speed"; there are full,`, []string{"-only", "speed"}},
		{"-rounds 0: want 1 to 100", []string{"-rounds", "0"}},
		{"-rounds -3: want 1 to 100", []string{"-rounds", "-3"}},
		{`"full" is not a flag`, []string{"full"}},
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 2, start(c.args, &stdout, &stderr))
		require.Contains(t, stderr.String(), c.says)
		require.Empty(t, stdout.String())
	}
	require.Zero(t, start([]string{"-h"}, io.Discard, io.Discard), "help is no failure")
}

// Goal: the ratio is that of the rounds, not of the medians, and the verdict follows from it.
func TestRatioWithinRounds(t *testing.T) {
	r := beside("x", "tx/s", []float64{10, 200, 30}, "peer", []float64{5, 100, 60}, atLeast(2))
	require.Equal(t, row{Name: "x", Unit: "tx/s", Ours: 30, Peer: 60, PeerName: "peer", Ratio: 2, Low: 0.5, High: 2, Goal: ">= 2x", Met: true, Rounds: 3}, r)
	require.False(t, beside("x", "s", []float64{3}, "peer", []float64{4}, atMost(0.7)).Met)
	require.True(t, alone("x", "s", []float64{3, 5}, atMostOf(5, "s")).Met)
	require.False(t, alone("x", "s", []float64{3, 5.1}, atMostOf(5, "s")).Met, "the worst round counts")
	require.InDelta(t, 2.5, median([]float64{4, 1, 2, 3}), 1e-9)
}

// A metric that needs no server, from the flags to what is printed.
func TestPrintsWhatItMeasured(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Zero(t, start([]string{"-only", "step", "-json"}, &stdout, &stderr), stderr.String())
	var rows []row
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &rows))
	require.Len(t, rows, 2)
	var objects []map[string]any
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &objects))
	require.ElementsMatch(t, []string{"name", "unit", "ours", "peer", "peer_name", "ratio", "ratio_low", "ratio_high", "goal", "met", "limit", "rounds", "fsync_us"},
		slices.Collect(maps.Keys(objects[0])))
	require.Regexp(t, `(?m)^took step \d+ s, all [\d.]+ min$`, stderr.String())
	require.Equal(t, "control step", rows[0].Name)
	require.Positive(t, rows[0].Ours)
	require.Positive(t, rows[0].FsyncUS)

	stdout.Reset()
	writeTable(&stdout, rows)
	require.Regexp(t, `control step +us +[\d.]+ .*<= 2 us +(NOT )?met|MET`, stdout.String())
}

// Goal: what is missing is told once, with what wants it and what to do.
func TestTellsOnceWhatIsMissing(t *testing.T) {
	t.Setenv(pgtest.EnvBin, t.TempDir())
	var stdout, stderr bytes.Buffer
	require.Equal(t, 1, start([]string{"-only", "verify,redo,step,large", "-rounds", "1"}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "bench: verify, redo, large: "+pgtest.EnvBin+"=")
	require.Equal(t, 1, strings.Count(stderr.String(), "set it to the directory that holds postgres and initdb"))
	require.Contains(t, stdout.String(), "control step", "what can be measured is")
}

// Goal: every sync of a process and of its children takes as much longer as is said, and nothing else does.
func TestSlowDisk(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a slow disk is made by Linux's filter of system calls")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	slow, err := newSlowed(socket)
	require.NoError(t, err)
	defer slow.close()
	self, err := os.Executable()
	require.NoError(t, err)
	// A shell in between: the filter is the children's too.
	out, err := exec.Command(self, slowArgument, socket, "/bin/sh", "-c", strings.Join([]string{self, syncsArgument, dir}, " ")).CombinedOutput()
	require.NoError(t, err, string(out))
	var took float64
	_, err = fmt.Sscan(string(out), &took)
	require.NoError(t, err, string(out))
	require.Greater(t, took, float64(slowSync/time.Microsecond))
}
