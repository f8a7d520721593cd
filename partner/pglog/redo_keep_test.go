package pglog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/redo"
)

// TestRedoKeepsLogOfWhatWaits: what stands behind a batch that is redone one by one is not redone yet, so its log is kept.
func TestRedoKeepsLogOfWhatWaits(t *testing.T) {
	s := &redoSession{spool: newSpool(1 << 20)}
	require.EqualValues(t, 50, s.keepFrom(50))
	s.batch.txns = []*openTxn{{first: 40}, {first: 30}}
	require.Equal(t, redo.Offset(30), s.keepFrom(50))
	s.current = &openTxn{first: 20}
	require.Equal(t, redo.Offset(20), s.keepFrom(50))
}
