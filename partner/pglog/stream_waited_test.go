package pglog

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// TestStreamGathersWhereNoCommitWaits: small pieces of log gather for a pause where no commit waits for them. Where
// commits wait each is hardened and reported at once, and a large piece is never kept from the next.
func TestStreamGathersWhereNoCommitWaits(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, log *watchedLog, _ *Stream) {
		commit := mirror.LSN(0x2000)
		took := func(messages ...[]byte) time.Duration {
			t.Helper()
			commit += 0x100
			sent := time.Now()
			f.send(slices.Concat(transaction(commit), messages)...)
			at := f.next(commit + 0x30).at
			synctest.Wait() // it reads again, or pauses before that
			return at.Sub(sent)
		}
		require.Zero(t, took())
		require.Zero(t, took())

		f.unwaited.Store(true)
		require.Zero(t, took(), "it was listened for when commits waited")
		hardens := log.count()
		for range 5 {
			require.Equal(t, chunkPause, took())
		}
		require.Equal(t, hardens+5, log.count())

		f.unwaited.Store(false)
		require.Equal(t, chunkPause, took(), "the pause had begun")
		require.Zero(t, took())

		f.unwaited.Store(true)
		require.Zero(t, took())
		require.Equal(t, chunkPause, took(logData(commit, append([]byte{TypeMessage, 0}, make([]byte, gatherBytes)...))))
		require.Zero(t, took(), "more is behind a large piece")
		require.Equal(t, chunkPause, took())
	})
	require.ErrorIs(t, err, errTestOver)
}
