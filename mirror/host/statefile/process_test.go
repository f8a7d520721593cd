package statefile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const childVariable = "STATEFILE_TEST_CHILD"

// TestMain lets the test binary be its own second process.
func TestMain(m *testing.M) {
	mode, path, ok := strings.Cut(os.Getenv(childVariable), ":")
	if !ok {
		os.Exit(m.Run())
	}
	if err := child(mode, path); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func child(mode, path string) error {
	if mode == "small" {
		// Less than one state file may be written: the disk is full while the file is made.
		limit := syscall.Rlimit{Cur: copySize, Max: copySize}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
	}
	f, err := Open(path, testID)
	if err != nil {
		return err
	}
	record, _, err := f.Load()
	if err != nil {
		return err
	}
	fmt.Println("open")
	if mode == "hold" {
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	}
	n := uint64(0)
	if len(record) > 0 {
		n = binary.LittleEndian.Uint64(record)
	}
	for {
		n++
		if err := f.Save(binary.LittleEndian.AppendUint64(nil, n)); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func start(t *testing.T, mode, path string) (*exec.Cmd, *bufio.Scanner, io.Closer) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"="+mode+":"+path)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, bufio.NewScanner(out), in
}

func TestSecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	cmd, lines, stop := start(t, "hold", path)
	require.True(t, lines.Scan())
	require.Equal(t, "open", lines.Text())
	_, err := Open(path, testID)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, stop.Close())
	require.NoError(t, cmd.Wait())
	open(t, path)
}

// A process that saves as fast as it can is killed again and again: no saved record is lost, no record is invented.
func TestKilledWhileSaving(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	last := uint64(0)
	for round := range 8 {
		cmd, lines, _ := start(t, "save", path)
		for range 5 + 7*round {
			require.True(t, lines.Scan())
			if lines.Text() != "open" {
				n, err := strconv.ParseUint(lines.Text(), 10, 64)
				require.NoError(t, err)
				require.Greater(t, n, last)
				last = n
			}
		}
		require.NoError(t, cmd.Process.Kill())
		for lines.Scan() {
			n, err := strconv.ParseUint(lines.Text(), 10, 64)
			require.NoError(t, err)
			last = n
		}
		_ = cmd.Wait()
		f := open(t, path)
		got := binary.LittleEndian.Uint64(load(t, f))
		require.Contains(t, []uint64{last, last + 1}, got)
		require.NoError(t, f.Close())
	}
}

// A disk that is full while the file is made: Open says so, leaves nothing behind, and works when there is room.
func TestNoRoomToMake(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	cmd, lines, _ := start(t, "small", path)
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "make state file")
	require.Contains(t, lines.Text(), syscall.EFBIG.Error())
	require.Error(t, cmd.Wait())
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names)
	open(t, path)
}
