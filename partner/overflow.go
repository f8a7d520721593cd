package partner

import (
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// A transaction that is larger than the redo queue can never be hardened: redo gives its log back when it has ended, and
// its end is not appended to a queue that is full. Waiting does not help then, so people are told. A queue that is full of
// what redo has yet to do is no trouble.

// overflow is what is known of a redo queue that is full of transactions that have not ended.
type overflow struct {
	since time.Time       // it is seen; zero: it is not
	said  bool            // people were told
	at    mirror.Position // where the hardened log ended then: the trouble is over when it goes on
}

// overflowPatience is how long it is looked at before anything is said: log that was just given back may make room.
const overflowPatience = time.Second

// lookForOverflow tells people of a transaction that is too large, and when its end was hardened all the same. stalled:
// the stream waits for room in the redo queue. A stream that breaks meanwhile, and comes to the same place again, is no
// news.
func (f *follow) lookForOverflow(stalled bool) {
	queue, now := f.d.p.queue, time.Now()
	end := queue.Hardened()
	f.mu.Lock()
	o, r := f.mu.overflow, f.mu.redoer
	f.mu.Unlock()
	if o.said {
		if end != o.at {
			f.forgetOverflow()
		}
		return
	}
	bytes := int64(0)
	if stalled && r != nil && r.Progress().Flushed == end {
		bytes = queue.Unfinished()
	}
	switch {
	case bytes == 0:
		o = overflow{}
	case o.since.IsZero():
		o.since = now
	case now.Sub(o.since) >= overflowPatience:
		o.said, o.at = true, end
		f.d.trouble(tryHarden, f.d.p.tooLarge(bytes))
	}
	f.mu.Lock()
	f.mu.overflow = o
	f.mu.Unlock()
}

func (f *follow) forgetOverflow() {
	f.mu.Lock()
	f.mu.overflow = overflow{}
	f.mu.Unlock()
	f.d.trouble(tryHarden, nil)
}

// tooLarge says what is too large, and for what. Space in the redo queue comes back by whole files of it, one of which may
// hold the beginning of the transaction and log before it.
func (p *Partner) tooLarge(bytes int64) error {
	const mega = 1 << 20
	least := bytes + min(segmentBytes, bytes/3)
	return fmt.Errorf("the redo queue is full of a transaction that has not ended: %d bytes of it have come, and Limits.RedoQueue is %d, "+
		"so that it can never be hardened: start this partner again with Limits.RedoQueue of at least %d, and more by what is still to come of it",
		bytes, p.cfg.Limits.RedoQueue, (least+mega-1)/mega*mega)
}
