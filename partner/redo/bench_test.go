package redo

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/f19126b3/dbmirror/mirror"
)

// memoryDir is a directory in memory, where what the processor does shows without the disk; on disk where there is none.
func memoryDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dbmirror-")
	if err != nil {
		b.Logf("on disk: %v", err)
		return b.TempDir()
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	return dir
}

func benchmarkQueue(b *testing.B, dir string) *Queue {
	b.Helper()
	q, err := Open(Config{Dir: filepath.Join(dir, "redo"), MaxBytes: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := q.Close(); err != nil {
			b.Error(err)
		}
	})
	if err := q.Append(Record{Kind: KindAttach, Seq: 1}); err != nil {
		b.Fatal(err)
	}
	return q
}

// fill appends commits and hardens each group of them.
func fill(b *testing.B, q *Queue, data []byte, count, group int) {
	for n := 1; n <= count; n++ {
		if err := q.Append(Record{Kind: KindCommit, Seq: 1, LSN: mirror.LSN(n), Data: data}); err != nil {
			b.Fatal(err)
		}
		if n%group == 0 || n == count {
			if _, err := q.Harden(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkHarden appends records and hardens every group of them: one at a time as a single session commits, and many
// as they come under load. In memory it shows what framing and writing cost.
func BenchmarkHarden(b *testing.B) {
	for _, where := range []string{"disk", "memory"} {
		for _, size := range []int{100, 8 << 10} {
			for _, group := range []int{1, 64, 1024} {
				b.Run(fmt.Sprintf("%s/size=%d/group=%d", where, size, group), func(b *testing.B) {
					dir := b.TempDir()
					if where == "memory" {
						dir = memoryDir(b)
					}
					q := benchmarkQueue(b, dir)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					b.ResetTimer()
					fill(b, q, make([]byte, size), b.N, group)
				})
			}
		}
	}
}

func BenchmarkNext(b *testing.B) {
	for _, size := range []int{100, 8 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			const count = 10_000
			q := benchmarkQueue(b, memoryDir(b))
			fill(b, q, make([]byte, size), count, count)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			r := q.NewReader(0)
			for n := 0; b.Loop(); n++ {
				if n%count == 0 {
					if err := r.Close(); err != nil {
						b.Fatal(err)
					}
					r = q.NewReader(0)
				}
				if _, _, err := r.Next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkOpen verifies a log of 64 MiB.
func BenchmarkOpen(b *testing.B) {
	cfg := Config{Dir: filepath.Join(memoryDir(b), "redo")}
	q, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	if err := q.Append(Record{Kind: KindAttach, Seq: 1}); err != nil {
		b.Fatal(err)
	}
	fill(b, q, make([]byte, 1000), 64<<10, 1024)
	if err := q.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		q, err := Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		if err := q.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
