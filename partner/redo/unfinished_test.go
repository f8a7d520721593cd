package redo

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestUnfinished: a queue is full of what has not ended when its reader has read all and Trim makes no room, and not
// before.
func TestUnfinished(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "redo")
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(dir)
		cfg.SegmentBytes, cfg.MaxBytes = 4096, 16384
		q, err := Open(cfg)
		require.NoError(t, err)
		defer q.Close()
		data := Record{Kind: KindData, Seq: 1, LSN: 20, Data: make([]byte, 1000)}
		require.NoError(t, q.Append(Record{Kind: KindAttach, Seq: 1, LSN: 10}))
		for range 2 {
			require.NoError(t, q.Append(data))
		}
		require.NoError(t, q.Append(Record{Kind: KindCommit, Seq: 1, LSN: 20}))
		_, err = q.Harden()
		require.NoError(t, err)
		redone := Offset(q.hardenedEnd.Load())
		for err = q.Append(data); err == nil; err = q.Append(data) {
		}
		require.ErrorIs(t, err, ErrFull)
		_, err = q.Harden()
		require.NoError(t, err)
		require.Zero(t, q.Unfinished(), "nobody has read it")

		ctx, cancel := context.WithCancel(t.Context())
		reader := q.NewReader(0)
		defer reader.Close()
		read := func() (err error) {
			for err == nil {
				_, _, err = reader.Next(ctx)
			}
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- read() }()
		synctest.Wait() // the reader waits at the end

		size := int64(frameHeaderSize + len(data.Data))
		require.Equal(t, q.Bytes()+size, q.Unfinished(), "nothing is given back")
		require.NoError(t, q.Trim(redone))
		require.Equal(t, q.Bytes()+size, q.Unfinished(), "what was given back is a part of a file")
		require.Greater(t, q.Bytes(), int64(12000))

		require.NoError(t, q.Trim(redone+2*4096))
		require.Zero(t, q.Unfinished(), "there is room")
		require.NoError(t, q.Append(data))
		require.Zero(t, q.Unfinished(), "it was appended")
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}
