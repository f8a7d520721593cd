package pglog

import "golang.org/x/sys/unix"

// setLowWater sets how many bytes make a socket readable to whoever polls it. A read still gets what there is.
func setLowWater(fd uintptr, bytes int) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes)
}
