package redo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/mirrortest/memory"
)

// FuzzFrames reads arbitrary bytes as frames: what is accepted must be exactly what a writer would have written there.
func FuzzFrames(f *testing.F) {
	whole := appendFrame(nil, 1, frameOf(Record{Kind: KindAttach, Seq: 1, LSN: 2}, nil, true))
	data := Record{Kind: KindData, Seq: 1, LSN: 3, Data: []byte("data")}
	whole = append(appendFrame(whole, 1+Offset(len(whole)), frameOf(data, nil, false)), data.Data...)
	chain := make([]byte, chainSize)
	whole = append(appendFrame(whole, 1+Offset(len(whole)), frameOf(Record{Kind: KindCommit, Seq: 1, LSN: 4}, chain, false)), chain...)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole), 0, 0, 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		segment := append(make([]byte, segmentHeaderSize), b...)
		memory.Bound(t, len(segment), func() { eachFrame(t, segment, func(Offset, frame, []byte, Record) {}) })
		var again []byte
		eachFrame(t, segment, func(at Offset, fr frame, chain []byte, r Record) {
			again = appendFrame(again, at, frameOf(r, chain, fr.first))
			again = append(append(again, chain...), r.Data...)
		})
		require.True(t, bytes.HasPrefix(b, again))
	})
}

// eachFrame calls for each frame of a segment, up to the first that is not whole.
func eachFrame(t *testing.T, segment []byte, call func(Offset, frame, []byte, Record)) {
	limit := 1 + Offset(len(segment)-segmentHeaderSize)
	w := &window{file: memoryFile{Reader: bytes.NewReader(segment)}, start: 1}
	for at := Offset(1); at < limit; {
		fr, payload, err := w.next(at, limit)
		var r Record
		var chain []byte
		if err == nil {
			r, chain, err = fr.record(payload)
		}
		if err != nil {
			require.True(t, isDamage(err), "%v", err)
			_, _, err = w.firstOfHardenAfter(at+1, limit)
			require.NoError(t, err)
			return
		}
		call(at, fr, chain, r)
		at += Offset(fr.size())
	}
}

// FuzzSegmentHeader mends the checksum of what it is given, so that the fields behind it are reached. What is accepted
// must be exactly what a writer would have written.
func FuzzSegmentHeader(f *testing.F) {
	h := newHistory(mirror.Position{Seq: 2, LSN: 3})
	for _, attached := range []bool{false, true} {
		h.attached = attached
		header, err := headerOf([32]byte{1, 2, 3}, 1, 1, h)
		require.NoError(f, err)
		f.Add(header.encode())
	}
	f.Add([]byte(segmentMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == segmentHeaderSize {
			b = bytes.Clone(b)
			last := segmentHeaderSize - 4
			binary.LittleEndian.PutUint32(b[last:], crc32.Checksum(b[:last], castagnoli()))
		}
		var h segmentHeader
		var err error
		memory.Bound(t, len(b), func() {
			if h, err = decodeSegmentHeader(b); err == nil {
				_, err = h.history()
			}
		})
		if err == nil {
			require.Equal(t, b, h.encode())
		}
		if len(b) == segmentHeaderSize {
			_, err = decodeSegmentHeader(append(b, 0))
			require.Error(t, err, "trailing bytes")
		}
	})
}

// FuzzDamagedLog opens a log that was closed in order, after bytes of one of its files were overwritten, moved or cut
// off. It must be refused as damaged, or have lost nothing at all.
func FuzzDamagedLog(f *testing.F) {
	cfg := testConfig(filepath.Join(f.TempDir(), "redo"))
	m := buildLog(f, cfg, true, 6, 1000)
	whole := map[string][]byte{}
	var segments []string
	entries, err := os.ReadDir(cfg.Dir)
	require.NoError(f, err)
	for _, e := range entries {
		path := filepath.Join(cfg.Dir, e.Name())
		whole[path], err = os.ReadFile(path)
		require.NoError(f, err)
		if _, ok := parseSegmentName(e.Name()); ok {
			segments = append(segments, path)
		}
	}
	require.Greater(f, len(segments), 1)
	f.Add(uint8(0), uint16(600), uint16(0), uint16(0), []byte{1})
	f.Add(uint8(1), uint16(700), uint16(200), uint16(900), []byte(nil)) // a sector written to another place
	f.Add(uint8(1), uint16(520), uint16(300), uint16(2000), []byte(nil))
	f.Add(uint8(0), uint16(4000), uint16(65535), uint16(0), []byte(nil)) // cut off
	f.Add(uint8(1), uint16(0), uint16(512), uint16(0), []byte("dbmredo\n\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, file uint8, at, size, from uint16, over []byte) {
		for path, b := range whole {
			require.NoError(t, os.WriteFile(path, b, 0o600))
		}
		path := segments[int(file)%len(segments)]
		require.NoError(t, os.WriteFile(path, damaged(whole[path], int(at), int(size), int(from), over), 0o600))
		q, err := open(cfg, quietDisk{})
		var corrupt *CorruptError
		if errors.As(err, &corrupt) || errors.Is(err, ErrIdentity) {
			return
		}
		require.NoError(t, err)
		require.NoError(t, m.compare(q, len(m.entries)))
		require.NoError(t, errors.Join(q.file.Close(), q.lock.Close()))
	})
}

// damaged is a file with bytes put over a place of it, or size bytes of it copied from another place, or cut off there.
func damaged(whole []byte, at, size, from int, over []byte) []byte {
	b := bytes.Clone(whole)
	at = min(at, len(b))
	switch {
	case len(over) > 0:
		copy(b[at:], over)
	case size == 65535:
		b = b[:at]
	default:
		from = min(from, len(b))
		copy(b[at:], whole[from:min(from+size, len(b))])
	}
	return b
}
