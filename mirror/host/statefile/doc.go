// Package statefile keeps the hard state of one session on disk: one small record, replaced as a whole, so that a
// server never acts on a vote or a role it could forget.
//
// # The file
//
// The file has 16 KiB: two slots of 8 KiB, each with two equal copies of 4 KiB. A copy carries magic, format version,
// a write counter, the identity of the session, the record, and a CRC-32C over all 4 KiB. [File.Save] writes the slot
// that holds the older record with one write and one fsync; the counter says which slot is the newer one, and its
// parity says which slot it belongs to.
//
// The two copies are there because two slots alone cannot tell a write that was torn by a crash (nobody was told of
// it, the older record is right) from a newest record that went bad later (falling back would break a promise). With
// two copies written in order, a torn write leaves one of them whole, and a record that went bad in one place is
// still there in the other. A slot with no whole copy is therefore damage, and Load refuses with [CorruptError]. CRC-32C finds
// every change of up to three bits in a copy.
//
// What no file can tell by itself: that all of it was put back to yesterday's copy, that it was deleted, or that the
// disk never wrote the last record though it said so. The session finds that out from the other servers.
//
// # Use
//
//	f, err := statefile.Open("/var/lib/dbmirror/orders.state", id)
//	record, ok, err := f.Load() // ok is false: nothing was ever saved
//	err = f.Save(next)          // returns after fsync; then, and only then, tell others
//
// The file is locked against a second process (flock), must be a regular file that the rest of the world cannot
// access, and must not lie in a directory where everybody may write. It needs a Unix file system with hard links.
package statefile
