package pglog

import (
	"flag"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/redo"
)

var abuseSubtransactions = flag.Int("abuse.subtransactions", 20_000, "how many subtransactions TestAbuseS14Subtransactions rolls back")

// heap is what the program holds after a collection, in bytes.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// S14: a transaction that describes one table over and over, as a principal might that wants the mirror's memory, takes no
// more than the bound of the spool.
func TestAbuseS14Relations(t *testing.T) {
	const limit, count = 1 << 20, 200_000
	relation := encode(Msg{Type: TypeRelation, Relation: Relation{OID: 1, Namespace: "public", Name: "t", Identity: 'f',
		Columns: []RelColumn{{Key: true, Name: "a column of some length, to be larger than the memory of it", TypeOID: 25, TypeMod: -1}}}}, false)
	s := newSpool(limit)
	take := func(message []byte, at redo.Offset) *openTxn {
		txn, err := s.take(redo.Record{Kind: redo.KindData, Seq: 1, LSN: 1, Data: message}, at, at+1)
		require.NoError(t, err)
		return txn
	}
	before := heap()
	take(encode(Msg{Type: TypeBegin, Xid: 7}, false), 1)
	for n := range redo.Offset(count) {
		take(relation, n+2)
	}
	held := heap()
	t.Logf("%d descriptions of %d bytes: %d KiB held", count, len(relation), (held-min(held, before))>>10)
	require.Less(t, held, before+4*limit)
	txn := take(encode(Msg{Type: TypeCommit, EndLSN: 9}, false), count+2)
	require.Equal(t, mirror.LSN(1), txn.end.LSN)
	require.True(t, txn.spilled)
	require.Equal(t, count, txn.count)
}

// S14: a transaction of very many subtransactions that are rolled back, on a real server, is redone in bounded memory.
func TestAbuseS14Subtransactions(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v text)")
	before := heap()
	p.run(p.source, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
		BEGIN INSERT INTO t VALUES (i, repeat('x', 100)); IF i %% 100 <> 0 THEN RAISE EXCEPTION 'undone'; END IF; EXCEPTION WHEN raise_exception THEN END;
		END LOOP; END $$`, *abuseSubtransactions))
	cfg := p.smallRedo()
	end := p.ship()
	r := p.begin(cfg)
	require.NoError(t, r.Drain(t.Context(), end))
	held := heap()
	require.NoError(t, r.stop())
	p.equal()
	t.Logf("%d subtransactions: %d KiB held after redo", *abuseSubtransactions, (held-min(held, before))>>10)
	require.Less(t, held, before+64<<20)
}
