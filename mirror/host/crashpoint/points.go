package crashpoint

// The points, by the file or server that the steps around them change. Two steps that follow each other have one point
// between them: after the one, before the other.
const (
	// The state file.
	StateFileUnmade Point = iota + 1
	StateFileFilled
	StateFileNamed
	StateFileSettled
	StateUnwritten
	StateWritten
	StateSynced

	// The session: what it stops, says and shows.
	Unhalted
	Halted
	ProposeUnsent
	ProposeSent
	AcceptUnsent
	AcceptSent
	VoteUnsent
	VoteSent
	GrantUnsent
	GrantSent
	TransferUnsent
	TransferSent
	ReportUnsent
	ReportSent
	Unconfirmed
	Confirmed

	// The hardened log.
	LogUnwritten
	LogWritten
	LogSynced
	SegmentUnmade
	SegmentFilled
	SegmentNamed
	SegmentMade
	SegmentKept
	SegmentRemoved
	SegmentGone
	TornTailFound
	TornTailCut
	TornTailGone

	// The stream.
	StatusUnsent
	StatusSent

	// Redo.
	RedoUnbegun
	RedoBegun
	RedoPiece
	RedoRows
	RedoCommitted
	RedoFlushed
	RedoTrimmed

	// Whom commits wait for.
	WaitUnwritten
	WaitWritten
	WaitReloaded
	WaitUnproven
	WaitProven
	ReleaseUnproven
	ReleaseProven

	// The gate.
	GateUnwritten
	GateWritten
	SessionsUnended
	SessionsEnded
	Unopened
	Opened

	// Handing over.
	BarrierUnwritten
	BarrierWritten
	BarrierKept
	DrainedTold

	// Becoming principal.
	RedoUndrained
	RedoDrained
	SlotUnmade
	SlotMade
	SequencesUnmoved
	SequenceMoved
	SequencesMoved
	ReignUnwritten
	ReignWritten
	WholeTold

	// Following another principal.
	ForkUnread
	ForkRead
	TailUnread
	TailRead
	LostUnsynced
	LostSynced
	LostNamed
	SlotKept
	SlotDropped
	ProgressUnset
	ProgressSet
	LogBegun
	AlignedTold
	SampleUnstored
	SampleStored

	// The copy.
	SeedingUntold
	SeedingTold
	SnapshotUnmade
	SnapshotMade
	CopyMarked
	CopyCleared
	CopyDefined
	TableCopied
	RowsCopied
	CopyIndexed
	CopyFinished

	// What lies beside.
	JournalUnwritten
	JournalWritten
	PlaceUnnamed
	PlaceNamed
	LossUnwritten
	LossWritten
	LogSetAside

	numPoints
)

var names = [numPoints]string{
	StateFileUnmade:  "state file: there is none yet",
	StateFileFilled:  "state file: filled and synced, without its name",
	StateFileNamed:   "state file: named, its directory not synced",
	StateFileSettled: "state file: its directory synced",
	StateUnwritten:   "state: not written",
	StateWritten:     "state: written, not synced",
	StateSynced:      "state: synced, nobody told",

	Unhalted:       "session: to halt, still hardening",
	Halted:         "session: halted, nothing saved",
	ProposeUnsent:  "session: propose not sent",
	ProposeSent:    "session: propose delivered",
	AcceptUnsent:   "session: accept not sent",
	AcceptSent:     "session: accept delivered",
	VoteUnsent:     "session: vote not sent",
	VoteSent:       "session: vote delivered",
	GrantUnsent:    "session: grant not sent",
	GrantSent:      "session: grant delivered",
	TransferUnsent: "session: transfer not sent",
	TransferSent:   "session: transfer delivered",
	ReportUnsent:   "session: report not sent",
	ReportSent:     "session: report delivered",
	Unconfirmed:    "session: confirmed, not shown, no duty told",
	Confirmed:      "session: confirmed, shown, duty told",

	LogUnwritten:   "log: frames not written",
	LogWritten:     "log: frames written, not synced",
	LogSynced:      "log: frames synced, not reported",
	SegmentUnmade:  "log: next segment not made",
	SegmentFilled:  "log: segment filled and synced, without its name",
	SegmentNamed:   "log: segment named, directory not synced",
	SegmentMade:    "log: segment made, not yet used",
	SegmentKept:    "log: segment to be removed",
	SegmentRemoved: "log: segment removed, directory not synced",
	SegmentGone:    "log: segment gone for good",
	TornTailFound:  "log: torn tail found",
	TornTailCut:    "log: torn tail cut, not synced",
	TornTailGone:   "log: torn tail gone for good",

	StatusUnsent: "stream: hardened position not reported",
	StatusSent:   "stream: hardened position reported",

	RedoUnbegun:   "redo: transaction not begun",
	RedoBegun:     "redo: begun and position moved, no row changed",
	RedoPiece:     "redo: a piece of the rows changed",
	RedoRows:      "redo: all rows changed and position moved, not committed",
	RedoCommitted: "redo: committed, not noted",
	RedoFlushed:   "redo: on the disk of the database, log still there",
	RedoTrimmed:   "redo: redone log given back",

	WaitUnwritten:   "wait: setting not written",
	WaitWritten:     "wait: setting written, not reloaded",
	WaitReloaded:    "wait: setting reloaded",
	WaitUnproven:    "wait: no commit seen to wait",
	WaitProven:      "wait: a commit seen to wait",
	ReleaseUnproven: "wait: no commit seen to return",
	ReleaseProven:   "wait: a commit seen to return",

	GateUnwritten:   "gate: settings not written",
	GateWritten:     "gate: settings written, sessions as before",
	SessionsUnended: "gate: sessions not told to end",
	SessionsEnded:   "gate: sessions told to end",
	Unopened:        "gate: everything ready, not open",
	Opened:          "gate: open",

	BarrierUnwritten: "hand-over: barrier not written",
	BarrierWritten:   "hand-over: barrier written, not kept",
	BarrierKept:      "hand-over: barrier kept, not told",
	DrainedTold:      "hand-over: told that everybody has ended",

	RedoUndrained:    "promotion: hardened log not redone",
	RedoDrained:      "promotion: hardened log redone and on disk",
	SlotUnmade:       "promotion: slot not made",
	SlotMade:         "promotion: slot made, no record of it",
	SequencesUnmoved: "promotion: sequences not moved",
	SequenceMoved:    "promotion: one sequence moved",
	SequencesMoved:   "promotion: all sequences moved",
	ReignUnwritten:   "promotion: beginning of the reign not written",
	ReignWritten:     "promotion: beginning of the reign written",
	WholeTold:        "promotion: told that the database is whole",

	ForkUnread:     "alignment: fork not read",
	ForkRead:       "alignment: fork read",
	TailUnread:     "alignment: own tail not decoded",
	TailRead:       "alignment: own tail decoded",
	LostUnsynced:   "alignment: lost transactions written, not synced",
	LostSynced:     "alignment: lost transactions synced, without their name",
	LostNamed:      "alignment: lost transactions in a file for good",
	SlotKept:       "alignment: old slot still there",
	SlotDropped:    "alignment: old slot dropped",
	ProgressUnset:  "alignment: redone position not set",
	ProgressSet:    "alignment: redone position set, old log there",
	LogBegun:       "alignment: log begun anew, session not told",
	AlignedTold:    "alignment: session told, state saved",
	SampleUnstored: "sequences: sample not stored",
	SampleStored:   "sequences: sample stored",

	SeedingUntold:  "copy: state does not say that the database is of no use",
	SeedingTold:    "copy: state says that the database is of no use",
	SnapshotUnmade: "copy: slot and snapshot not made",
	SnapshotMade:   "copy: slot and snapshot made",
	CopyMarked:     "copy: database marked incomplete, content still there",
	CopyCleared:    "copy: database empty",
	CopyDefined:    "copy: tables defined, no rows",
	TableCopied:    "copy: a table copied",
	RowsCopied:     "copy: all tables copied",
	CopyIndexed:    "copy: indexes and constraints made, still marked incomplete",
	CopyFinished:   "copy: verified and on disk, not marked any more",

	JournalUnwritten: "journal: entry not written",
	JournalWritten:   "journal: entry written",
	PlaceUnnamed:     "place: written beside, not in place",
	PlaceNamed:       "place: in place",
	LossUnwritten:    "lost log: state does not say so",
	LossWritten:      "lost log: state says so",
	LogSetAside:      "lost log: damaged log set aside",
}
