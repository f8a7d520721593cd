package operator

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/partner"
)

// What is shown is written out in words: the numbers behind them may change.

// sessionView is what every server shows of a session.
type sessionView struct {
	Session      string     `json:"session"`
	Self         string     `json:"self"`
	Role         string     `json:"role"`
	State        string     `json:"state"`
	Reason       string     `json:"reason"`
	Mode         string     `json:"mode"`
	Safety       string     `json:"safety"`
	Principal    string     `json:"principal"`
	RoleSequence uint64     `json:"role_sequence"`
	Record       string     `json:"record"`
	InSync       bool       `json:"in_sync"`
	Suspended    bool       `json:"suspended"`
	Quorum       string     `json:"quorum"`
	Peers        []peerView `json:"peers"`
}

type peerView struct {
	id            mirror.Server
	Server        string  `json:"server"`
	Connected     bool    `json:"connected"`
	Stopped       bool    `json:"stopped"`
	SilentSeconds float64 `json:"silent_seconds"`
	Newcomer      bool    `json:"newcomer"`
	Undelivered   string  `json:"undelivered,omitempty"` // why the latest message to it did not arrive
}

func session(id string, st mirror.Status, tick time.Duration) sessionView {
	v := sessionView{
		Session: id, Self: st.Self.String(), Role: st.Role.String(), State: st.State.String(), Reason: st.Reason.String(),
		Mode: st.Mode.String(), Safety: st.Record.Safety.String(), Principal: st.Record.Principal.String(),
		RoleSequence: uint64(st.Record.Seq), Record: st.Record.Version().String(), InSync: st.Record.InSync,
		Suspended: st.Record.Suspended, Quorum: st.Quorum.String(),
	}
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		if p := st.Peers[s]; s != st.Self {
			v.Peers = append(v.Peers, peerView{id: s, Server: s.String(), Connected: p.Connected, Stopped: p.Left,
				SilentSeconds: seconds(p.Silent, tick), Newcomer: p.Newcomer != 0})
		}
	}
	return v
}

func seconds(n mirror.Tick, tick time.Duration) float64 { return (time.Duration(n) * tick).Seconds() }

// partnerView is what a partner shows.
type partnerView struct {
	sessionView
	Serving       bool     `json:"serving"`
	Exposed       bool     `json:"exposed"`
	Gate          string   `json:"gate"`
	WaitsFor      string   `json:"commits_wait_for,omitempty"`
	Streaming     bool     `json:"streaming"`
	EndOfLog      string   `json:"end_of_log"`
	Hardened      string   `json:"hardened"`
	Redone        string   `json:"redone"`
	RedoQueue     int64    `json:"redo_queue_bytes"`
	Retained      int64    `json:"retained_log_bytes"`
	Transactions  uint64   `json:"redone_transactions"`
	StoppedAt     string   `json:"redo_stopped_at,omitempty"`
	Skipped       uint64   `json:"skipped_transactions,omitempty"`
	LeaseSeconds  float64  `json:"lease_seconds"`
	PromiseLeft   float64  `json:"promise_seconds"`
	StreamSilence float64  `json:"stream_silent_seconds"`
	Findings      []string `json:"findings,omitempty"`
	Trouble       string   `json:"trouble,omitempty"`
}

func partnerStatus(st partner.Status) partnerView {
	v := partnerView{
		sessionView: session(st.Session, st.Status, st.Tick), Serving: st.Serving, Exposed: st.Exposed, Gate: st.Gate.String(),
		WaitsFor: st.Waiting, Streaming: st.Stream.Streaming, EndOfLog: st.EndOfLog.String(), Hardened: st.Hardened.LSN.String(),
		Redone: st.Status.Redone.String(), RedoQueue: st.Queue, Retained: st.Retained, Transactions: st.Redo.Transactions,
		LeaseSeconds: seconds(st.Lease, st.Tick), PromiseLeft: seconds(st.PromiseLeft, st.Tick),
		StreamSilence: seconds(st.StreamIdle, st.Tick), Trouble: st.Trouble,
	}
	if st.Redo.Poison != (mirror.Position{}) {
		v.StoppedAt = st.Redo.Poison.String()
	}
	v.Skipped = st.Redo.Skipped
	for i := range v.Peers {
		v.Peers[i].Undelivered = st.Links[v.Peers[i].id]
	}
	for _, f := range st.Findings {
		v.Findings = append(v.Findings, f.String())
	}
	return v
}

type planView struct {
	Token     string `json:"token"`
	Hardened  string `json:"hardened"`
	LossBytes uint64 `json:"known_loss_bytes"`
	Follows   bool   `json:"follows"`
	InSync    bool   `json:"in_sync"`
	Note      string `json:"note"`
}

func plan(p partner.ForcePlan) planView {
	v := planView{Token: p.Token, Hardened: p.Hardened.LSN.String(), LossBytes: p.LossBytes, Follows: p.Follows, InSync: p.InSync,
		Note: "commits that the principal acknowledged after it was last heard may be lost too"}
	switch {
	case p.InSync:
		v.Note = "the record says that no acknowledged commit is missing here"
	case !p.Follows:
		v.Note = "this copy does not follow the principal: everything that the principal has acknowledged since it became that would be lost"
	}
	return v
}

type conditionView struct {
	Condition  string  `json:"condition"`
	Met        bool    `json:"met"`
	Value      string  `json:"value"`
	AgeSeconds float64 `json:"age_seconds"`
	Mend       string  `json:"mend,omitempty"`
}

func conditions(found []mirror.Condition, tick time.Duration) []conditionView {
	views := make([]conditionView, len(found))
	for i, c := range found {
		views[i] = conditionView{Condition: c.Name, Met: c.Met, Value: c.Value, AgeSeconds: seconds(c.Age, tick)}
		if !c.Met {
			views[i].Mend = c.Mend
		}
	}
	return views
}

type lineView struct {
	Time  time.Time `json:"time"`
	Kind  string    `json:"kind"`
	Entry string    `json:"entry"`
}

func lines(found []host.Line) []lineView {
	views := make([]lineView, len(found))
	for i, l := range found {
		views[i] = lineView{Time: l.At.UTC(), Kind: l.Entry.Kind.String(), Entry: l.Entry.String()}
	}
	return views
}
