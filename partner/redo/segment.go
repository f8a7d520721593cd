package redo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
)

const (
	segmentMagic      = "dbmredo\n"
	segmentVersion    = 1
	segmentHeaderSize = 512
	segmentSuffix     = ".log"
	unfinishedSuffix  = ".new"
	sealedSuffix      = ".end" // of an empty file named by the offset at which the log was closed
	sumStateMax       = 255
)

// segmentHeader begins every file of the log: whose it is, where it stands, and the history up to it.
type segmentHeader struct {
	identity [32]byte
	start    Offset // of the first frame
	logStart Offset // of the first frame since the last Reset
	end      mirror.Position
	chain    [chainSize]byte
	stream   mirror.RoleSeq
	attached bool
	sum      []byte // state of the sum over the open transaction
}

func segmentPath(dir string, start Offset) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", uint64(start), segmentSuffix))
}

func sealedPath(dir string, end Offset) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", uint64(end), sealedSuffix))
}

// parseSegmentName reads what segmentPath writes; ok is false for any other file.
func parseSegmentName(name string) (start Offset, ok bool) { return parseName(name, segmentSuffix) }

func parseName(name, suffix string) (at Offset, ok bool) {
	digits, found := strings.CutSuffix(name, suffix)
	if !found || len(digits) != 16 || digits != strings.ToLower(digits) {
		return 0, false
	}
	v, err := strconv.ParseUint(digits, 16, 64)
	return Offset(v), err == nil
}

// filePos is where the offset stands in the segment that begins at start.
func filePos(start, at Offset) int64 { return segmentHeaderSize + int64(at-start) }

func (h segmentHeader) encode() []byte {
	b := make([]byte, 0, segmentHeaderSize)
	b = append(b, segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, segmentVersion)
	b = append(b, h.identity[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.start))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.logStart))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.end.Seq))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.end.LSN))
	b = append(b, h.chain[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.stream))
	if h.attached {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = append(b, byte(len(h.sum)))
	b = append(b, h.sum...)
	b = append(b, make([]byte, segmentHeaderSize-4-len(b))...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

// decodeSegmentHeader reads exactly segmentHeaderSize bytes.
func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	if len(b) != segmentHeaderSize || string(b[:8]) != segmentMagic {
		return segmentHeader{}, errors.New("file is not a segment of a redo log")
	}
	// The version comes before the checksum: another version may compute it otherwise.
	if v := binary.LittleEndian.Uint32(b[8:]); v != segmentVersion {
		return segmentHeader{}, fmt.Errorf("segment has format version %d, this program reads %d", v, segmentVersion)
	}
	last := segmentHeaderSize - 4
	if binary.LittleEndian.Uint32(b[last:]) != crc32.Checksum(b[:last], castagnoli()) {
		return segmentHeader{}, errors.New("segment header does not match its checksum")
	}
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	h := segmentHeader{
		identity: [32]byte(b[12:44]),
		start:    Offset(u64(44)), logStart: Offset(u64(52)),
		end:    mirror.Position{Seq: mirror.RoleSeq(u64(60)), LSN: mirror.LSN(u64(68))},
		chain:  [chainSize]byte(b[76:108]),
		stream: mirror.RoleSeq(u64(108)), attached: b[116] == 1,
	}
	h.sum = append([]byte(nil), b[118:118+int(b[117])]...)
	if !bytes.Equal(b, h.encode()) {
		return segmentHeader{}, errors.New("segment header holds what no writer puts there")
	}
	return h, nil
}

// headerOf describes a segment that begins where the history stands.
func headerOf(identity [32]byte, start, logStart Offset, h *history) (segmentHeader, error) {
	sum, err := h.appendSum(nil)
	if err != nil {
		return segmentHeader{}, fmt.Errorf("save state of the chain: %w", err)
	}
	if len(sum) > sumStateMax {
		return segmentHeader{}, fmt.Errorf("save state of the chain: %d bytes do not fit", len(sum))
	}
	return segmentHeader{
		identity: identity, start: start, logStart: logStart,
		end: h.end, chain: h.chain, stream: h.stream, attached: h.attached, sum: sum,
	}, nil
}

// history is where the log stood when the segment was begun.
func (h segmentHeader) history() (*history, error) {
	s := newHistory(h.end)
	s.chain, s.stream, s.attached = h.chain, h.stream, h.attached
	if err := s.setSum(h.sum); err != nil {
		return nil, fmt.Errorf("restore state of the chain: %w", err)
	}
	return s, nil
}
