package facts

import (
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// Asked to begin below what was confirmed, the server begins at what was confirmed, without an error.
func startIsMovedForward(b *bench) {
	slot, start := b.slot("s")
	r := b.receive(slot, "mir", start)
	b.exec(insert, insert, insert)
	ends := r.transactions(3)
	r.reportAll(ends[1])
	r.leave()
	again := b.receive(slot, "mir", start)
	again.drained()
	require.Equal(b.t, ends[2:], again.transactions(1), "two transactions are passed over")
}

// Asked to begin beyond the end of its log, the server agrees, and passes over what is written until then.
func startBeyondTheEnd(b *bench) {
	slot, _ := b.slot("s")
	confirmed := func() mirror.LSN {
		return b.lsn("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1", slot)
	}
	before := confirmed()
	r := b.receive(slot, "mir", b.lsn("SELECT pg_current_wal_flush_lsn()")+100<<20)
	b.exec(insert)
	r.drained()
	require.Empty(b.t, r.letters())
	require.Equal(b.t, before, confirmed())
}

// A publication that is younger than the log which is decoded does not exist for it.
func publicationMustBeOlder(b *bench) {
	slot, _ := b.slot("s")
	b.exec(insert, "CREATE PUBLICATION young FOR ALL TABLES", insert)
	count := func() (n int, err error) {
		err = b.admin.QueryRow(b.t.Context(), `SELECT count(*) FILTER (WHERE get_byte(data, 0) = ascii('I')) FROM
			pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', 'young')`, slot).Scan(&n)
		return n, err
	}
	n, err := count()
	if b.major() >= 18 {
		require.NoError(b.t, err)
		require.Equal(b.t, 1, n, "the row from before is passed over, with a warning in the server's log only")
		return
	}
	require.Equal(b.t, "42704", pgError(err))
	require.ErrorContains(b.t, err, `publication "young" does not exist`)
}

// Who only reads holds up no slot, however long.
func readersDoNotHoldUpASlot(b *bench) {
	reader := b.connect(b.name)
	run(b.t, reader, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM t")
	b.slot("s")
	run(b.t, reader, "COMMIT")
}
