package redo

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/f19126b3/dbmirror/mirror"
)

func benchmarkQueue(b *testing.B) *Queue {
	b.Helper()
	q, err := Open(Config{Dir: filepath.Join(b.TempDir(), "redo"), MaxBytes: 1 << 40})
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
// as they come under load.
func BenchmarkHarden(b *testing.B) {
	for _, size := range []int{100, 8 << 10} {
		for _, group := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("size=%d/group=%d", size, group), func(b *testing.B) {
				q := benchmarkQueue(b)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				fill(b, q, make([]byte, size), b.N, group)
			})
		}
	}
}

func BenchmarkNext(b *testing.B) {
	for _, size := range []int{100, 8 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			const count = 10_000
			q := benchmarkQueue(b)
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
	cfg := Config{Dir: filepath.Join(b.TempDir(), "redo")}
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
