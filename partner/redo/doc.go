// Package redo keeps the hardened log: the mirror's redo queue on disk.
//
// One goroutine appends the records of the principal's stream and hardens them; what is hardened survives a crash and
// may be reported to the principal. Readers follow the hardened records on their own, from any Offset they kept, also
// after a restart. What is redone is given back with Trim.
//
//	q, err := redo.Open(redo.Config{Dir: dir, Identity: identity})
//	q.Append(redo.Record{Kind: redo.KindAttach, Seq: seq, LSN: q.Hardened().LSN})
//	q.Append(redo.Record{Kind: redo.KindData, Seq: seq, LSN: lsn, Data: message})
//	q.Append(redo.Record{Kind: redo.KindCommit, Seq: seq, LSN: end, Data: message})
//	position, err := q.Harden() // one write, one fdatasync; only now may position be reported
//
// # Order
//
// A log is a history without holes or repeats, and Append refuses whatever would break that. After Open, Reset, Rebase
// and after records were dropped for want of space, the next record must be a KindAttach, at or before the end of the
// log and in its role sequence; the role sequence changes by Reset or Rebase only. A log that has no position yet
// (fresh, base zero) accepts an attach anywhere. Commits strictly rise; marks never go down.
//
// # Files
//
// A log is a row of segment files named by the Offset of their first frame. A segment begins with a header of 512
// bytes: identity, offsets, and the state of the history at its start. Then come frames:
//
//	crc32c of the header, seeded with the frame's offset   4 bytes
//	length of the payload                                  4
//	kind; the top bit marks the first frame of a harden    1
//	role sequence                                          8
//	LSN                                                    8
//	crc32c of the payload                                  4
//	payload: the data; before it, in a commit, the chain   0 to 1 GiB + 32
//
// A new segment is written under another name, synced, renamed, and its directory synced; before that, the segment
// before it was synced. So only the last segment can have a torn tail. There a bad frame is torn unless a later frame
// carries the top bit: the first frame of a harden is written only after everything before it was on disk, so it proves
// that the damage is to hardened log. A torn tail is cut; anything else is a *CorruptError and the log stays untouched.
// Close seals the log with one more frame, and with an empty file named by its end, so that after an orderly stop no
// damage can pass as a torn tail. After a crash, damage to the very last harden looks like a torn tail, as it does in
// every log; a caller who knows a position that was reported or redone must compare Hardened with it after Open.
//
// Behind the last frame of a segment zeros may stand: they are laid ahead so that a sync has no new size of the file to
// write. They are no log, whatever a crash makes of them.
//
// Records of a transaction that never ended stay in the log: they were hardened, readers may have passed them, and the
// next KindAttach makes them void.
//
// # Chain
//
// Chain is SHA-256 over the chain before and every data and commit record since the last commit or attach. Each commit
// frame stores it and Open computes it anew, so that a frame that is whole but stale or missing is found. Attaches and
// marks do not count: the same stream gives the same chain however often it was interrupted between transactions.
//
// # Failures
//
// A failed sync is never tried again: which pages are on disk is unknown from then on. The queue is finished with a
// *SyncError; opening it anew discards cached pages, reads what the disk holds, and goes on from there. A full disk is
// not a failure: ErrNoSpace says that what was appended since the last Harden is dropped; what was hardened stays, and
// the stream can begin again at Hardened when there is room.
//
// Files are 0600 in a directory of 0700, because they hold row data. One process at a time has the directory (flock).
// Systems without flock are refused by Open.
package redo
