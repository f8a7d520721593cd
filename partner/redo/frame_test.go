package redo

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f19126b3/dbmirror/mirror"
)

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Record{
			Kind: rapid.SampledFrom([]Kind{KindAttach, KindData, KindCommit, KindMark}).Draw(t, "kind"),
			Seq:  mirror.RoleSeq(rapid.Uint64().Draw(t, "seq")),
			LSN:  mirror.LSN(rapid.Uint64().Draw(t, "lsn")),
			Data: rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "data"),
		}
		var chain []byte
		if r.Kind == KindCommit {
			chain = rapid.SliceOfN(rapid.Byte(), chainSize, chainSize).Draw(t, "chain")
		}
		at := Offset(rapid.Uint64().Draw(t, "at"))
		first := rapid.Bool().Draw(t, "first")
		b := appendFrame(nil, at, frameOf(r, chain, first))
		f, err := decodeFrame(b, at)
		require.NoError(t, err)
		require.Equal(t, first, f.first)
		payload := append(bytes.Clone(chain), r.Data...)
		got, gotChain, err := f.record(payload)
		require.NoError(t, err)
		require.Equal(t, r.Kind, got.Kind)
		require.Equal(t, r.position(), got.position())
		require.True(t, bytes.Equal(r.Data, got.Data) && bytes.Equal(chain, gotChain))

		other := at ^ Offset(rapid.Uint32Min(1).Draw(t, "other place"))
		_, err = decodeFrame(b, other)
		require.ErrorIs(t, err, errHeaderSum)
	})
}

// TestImpossibleFrames gives headers a valid checksum over contents that no writer makes.
func TestImpossibleFrames(t *testing.T) {
	for name, f := range map[string]frame{
		"no kind":               {},
		"unknown kind":          {kind: kindSeal + 1},
		"too long":              {kind: KindData, length: MaxData + 1},
		"commit without chain":  {kind: KindCommit, length: chainSize - 1},
		"commit too long":       {kind: KindCommit, length: MaxData + chainSize + 1},
		"seal with a payload":   {kind: kindSeal, length: 1},
		"longest length of all": {kind: KindAttach, length: 1<<32 - 1},
	} {
		_, err := decodeFrame(appendFrame(nil, 1, f), 1)
		require.ErrorIs(t, err, errHeader, name)
	}
}
