package partner

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// TestTransactionLargerThanTheQueue: it can never be hardened, though others end while it is open. Both partners say so,
// and what to set; with that set it is mirrored.
func TestTransactionLargerThanTheQueue(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	queue, log := int64(6<<20), new(logBook)
	p.edit = func(c *Config) {
		if c.Self == mirror.PartnerB {
			c.Limits.RedoQueue, c.Logger = queue, log.logger()
		}
	}
	p.exec(mirror.PartnerA, "CREATE TABLE item(id bigserial PRIMARY KEY, filling text)")
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)

	// What fills the queue and ends is no trouble: redo makes room.
	for range 10 {
		p.exec(mirror.PartnerA, "INSERT INTO item(filling) SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
	}
	p.awaitEqual()
	p.awaitSynchronized(mirror.PartnerA)
	require.NotContains(t, log.String(), tryHarden)

	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.pg[mirror.PartnerA].DSN("app"))
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.Begin(ctx)
	require.NoError(t, err)
	for range 8 { // 16 MB, and a small transaction after every two of them
		_, err := tx.Exec(ctx, "INSERT INTO item(filling) SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
		require.NoError(t, err)
		p.exec(mirror.PartnerA, "INSERT INTO item(filling) VALUES ('small')")
	}

	told := func(st Status) bool { return strings.Contains(st.Trouble, tryHarden) }
	st := p.await(mirror.PartnerB, "in trouble with the transaction", told)
	found := regexp.MustCompile(`full of a transaction that has not ended: (\d+) bytes of it have come, and Limits.RedoQueue is (\d+), ` +
		`so that it can never be hardened: start this partner again with Limits.RedoQueue of at least (\d+), and more`).FindStringSubmatch(st.Trouble)
	require.NotNil(t, found, st.Trouble)
	bytes, least := number(t, found[1]), number(t, found[3])
	require.Equal(t, fmt.Sprint(queue), found[2])
	require.InDelta(t, queue*3/4, bytes, float64(queue/4+1<<20), "up to one file of four holds what is not of it")
	require.GreaterOrEqual(t, least*3/4, bytes)
	require.Regexp(t, "^partner-b: .*"+tryHarden+".*"+found[0], p.await(mirror.PartnerA, "told of it", told).Trouble)
	require.Equal(t, 1, strings.Count(log.String(), tryHarden), "it is logged once")

	p.halt(mirror.PartnerB)
	queue = 64 << 20
	p.start(mirror.PartnerB)
	require.NoError(t, tx.Commit(ctx))
	p.awaitSynchronized(mirror.PartnerA)
	p.awaitEqual()
	p.await(mirror.PartnerB, "out of trouble", func(st Status) bool { return st.Trouble == "" })
}

func number(t *testing.T, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	require.NoError(t, err)
	return n
}
