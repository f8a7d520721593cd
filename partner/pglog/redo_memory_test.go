package pglog

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// benchTable is pgbench_accounts as redo knows it.
func benchTable() *redoTable {
	column := func(name string, oid, array uint32) redoColumn {
		return redoColumn{name: name, ident: `"` + name + `"`, typeOID: oid, arrayOID: array, form: arrayFormOf(oid, array, false), equal: "="}
	}
	return &redoTable{
		name: "public.accounts", ident: `"public"."accounts"`, written: []int{0, 1, 2, 3}, key: []int{0}, anyOrder: true,
		columns: []redoColumn{
			column("aid", pgtype.Int4OID, pgtype.Int4ArrayOID), column("bid", pgtype.Int4OID, pgtype.Int4ArrayOID),
			column("abalance", pgtype.Int4OID, pgtype.Int4ArrayOID), column("filler", pgtype.BPCharOID, pgtype.BPCharArrayOID),
		},
	}
}

const benchRows = 10000

// benchMessages are changes of rows of that table: of a kind, and in an order as clients have it.
func benchMessages(kind byte) [][]byte {
	var messages [][]byte
	for i := range benchRows {
		aid := 1 + i*7919%500000
		var values []string
		switch kind {
		case TypeDelete:
			values = []string{fmt.Sprint(aid)}
		default:
			values = []string{fmt.Sprint(aid), fmt.Sprint(1 + aid/100000), fmt.Sprint(i), fmt.Sprintf("%-84s", "")}
		}
		m := []byte{kind, 0, 0, 64, 1}
		if kind == TypeDelete {
			m = append(m, 'K', 0, 4)
		} else {
			m = append(m, 'N', 0, 4)
		}
		for _, v := range values {
			m = append(m, 't', 0, 0, 0, byte(len(v)))
			m = append(m, v...)
		}
		for range 4 - len(values) {
			m = append(m, 'n')
		}
		messages = append(messages, m)
	}
	return messages
}

func bytesOf(messages [][]byte) (n int64) {
	for _, m := range messages {
		n += int64(len(m))
	}
	return n
}

// BenchmarkDecode decodes row changes.
func BenchmarkDecode(b *testing.B) {
	messages := benchMessages(TypeUpdate)
	var d Decoder
	b.SetBytes(bytesOf(messages))
	b.ReportAllocs()
	for b.Loop() {
		for _, m := range messages {
			if _, err := d.Decode(m, false); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkSpool assembles transactions of one change from the log.
func BenchmarkSpool(b *testing.B) {
	messages := benchMessages(TypeUpdate)
	begin := append([]byte{TypeBegin}, make([]byte, 20)...)
	commit := append([]byte{TypeCommit}, make([]byte, 25)...)
	s := newSpool(32 << 20)
	b.SetBytes(bytesOf(messages))
	b.ReportAllocs()
	at := redo.Offset(1)
	for b.Loop() {
		for _, m := range messages {
			for _, record := range [...]redo.Record{{Kind: redo.KindData, Data: begin}, {Kind: redo.KindData, Data: m}, {Kind: redo.KindCommit, Seq: 1, LSN: mirror.LSN(at), Data: commit}} {
				txn, err := s.take(record, at, at+1)
				if err != nil {
					b.Fatal(err)
				}
				at++
				if txn != nil {
					s.recycle(txn)
				}
			}
		}
	}
}

// BenchmarkNetChange combines row changes of each kind and writes them as the parameters of a set, or as a COPY: all that
// redo does beside the server.
func BenchmarkNetChange(b *testing.B) {
	table := benchTable()
	for _, c := range []struct {
		name string
		kind byte
		rows int
	}{{"insert set", TypeInsert, copyRows - 1}, {"copy", TypeInsert, benchRows}, {"update set", TypeUpdate, benchRows}, {"delete set", TypeDelete, benchRows}} {
		b.Run(c.name, func(b *testing.B) {
			messages := benchMessages(c.kind)[:c.rows]
			table.prepared = map[string]string{"insert": "i", "delete": "d", "update\x00": "u"}
			s := &redoSession{pipe: &redoPipe{}}
			b.SetBytes(bytesOf(messages))
			b.ReportAllocs()
			for b.Loop() {
				for _, m := range messages {
					msg, err := s.decoder.Decode(m, false)
					if err != nil || !s.batch.net.add(rowChange{table: table, kind: msg.Type, old: msg.Old, new: msg.New}) {
						b.Fatal(err)
					}
				}
				if ok, err := s.queueNet(b.Context(), &s.batch.net); !ok || err != nil {
					b.Fatal(ok, err)
				}
				s.pipe.clear()
				s.clearBatch()
			}
			b.ReportMetric(float64(b.N)*float64(c.rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
