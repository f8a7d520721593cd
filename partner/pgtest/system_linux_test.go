package pgtest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The variable makes this test binary play the process that owns a server and is killed.
const envOwnerDir = "PGTEST_OWNER_DIR"

func TestServerEndsWithItsProcess(t *testing.T) {
	if dir := os.Getenv(envOwnerDir); dir != "" {
		ownServer(t, dir)
	}
	owner := exec.Command(os.Args[0], "-test.run=^TestServerEndsWithItsProcess$")
	owner.Env = append(os.Environ(), envOwnerDir+"="+filepath.Join(tempDir(t), "server"))
	out, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	p, found, err := lookUp(pid)
	require.NoError(t, err)
	require.True(t, found)
	require.False(t, gone(p), "the server runs")

	require.NoError(t, owner.Process.Kill())
	require.Error(t, owner.Wait())
	require.NoError(t, await([]int{pid}, gone), "the server follows")
}

// ownServer starts a server, says its process number, and waits to be killed.
func ownServer(t *testing.T, dir string) {
	in, err := Find(t.Context(), nil)
	require.NoError(t, err)
	s, err := Start(t.Context(), in, Config{Dir: dir})
	require.NoError(t, err)
	fmt.Println(s.current().cmd.Process.Pid)
	<-s.Done()
	t.Fatal("the server ended before its owner")
}

func TestPortIsKeptForTheServer(t *testing.T) {
	port, release, err := freePort()
	require.NoError(t, err)
	require.ErrorIs(t, bindAlone(t, port), syscall.EADDRINUSE, "whoever wants a port of his own does not get it")
	server, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	require.NoError(t, err, "who shares, as the server does, gets it")
	require.NoError(t, server.Close())
	release()
	require.NoError(t, bindAlone(t, port), "released, it is free")
}

// bindAlone binds a port as the kernel does when it looks for a free one.
func bindAlone(t *testing.T, port int) error {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, syscall.Close(fd)) }()
	return syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
}

func TestKilledServerLeavesNoSharedMemory(t *testing.T) {
	s := New(t, nil)
	require.NoError(t, s.Kill())
	lines, err := pidFile(s.dataDir())
	require.NoError(t, err)
	segment := strings.Fields(lines[memoryLine])[1]
	require.Contains(t, segments(t), segment, "a kill leaves the segment, as a real one would")
	require.NoError(t, s.Remove())
	require.NotContains(t, segments(t), segment)
}

// segments returns the identifiers of the system's shared memory segments.
func segments(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/sysvipc/shm")
	require.NoError(t, err)
	var ids []string
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 {
			ids = append(ids, words[1])
		}
	}
	return ids
}
