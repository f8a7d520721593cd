package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// console prints what happens, with the seconds since the beginning. It may be used from any goroutine.
type console struct {
	begun time.Time

	mu struct {
		sync.Mutex
		w io.Writer
	}
}

func newConsole(w io.Writer) *console {
	c := &console{begun: time.Now()}
	c.mu.w = w
	return c
}

// step prints the heading of what is done next.
func (c *console) step(format string, args ...any) {
	c.print("\n%6.2f  "+format+"\n", args)
}

// note prints a line below the heading.
func (c *console) note(format string, args ...any) {
	c.print("%6.2f    "+format+"\n", args)
}

// say prints a line as it is.
func (c *console) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.mu.w, format+"\n", args...)
}

// Write prints what somebody else says, line by line.
func (c *console) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		c.note("%s", strings.TrimSpace(line))
	}
	return len(b), nil
}

func (c *console) print(format string, args []any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.mu.w, format, append([]any{time.Since(c.begun).Seconds()}, args...)...)
}
