package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// row is one line of the table: ours beside one peer, or ours alone beside a goal.
type row struct {
	Name     string  `json:"name"`
	Unit     string  `json:"unit"`
	Ours     float64 `json:"ours"`
	Peer     float64 `json:"peer"`
	PeerName string  `json:"peer_name"`
	Ratio    float64 `json:"ratio"` // the median of ours divided by the peer's within a round; 0 without a peer
	Low      float64 `json:"ratio_low"`
	High     float64 `json:"ratio_high"`
	Goal     string  `json:"goal"`
	Met      bool    `json:"met"`
	Limit    string  `json:"limit"` // what bounds it, where that is known
	Rounds   int     `json:"rounds"`
	FsyncUS  float64 `json:"fsync_us"`
}

// goal is what a ratio, or a figure of ours, is to be.
type goal struct {
	atLeast bool
	value   float64
	of      string // unit; empty for a ratio
}

func atLeast(ratio float64) goal               { return goal{true, ratio, ""} }
func atMost(ratio float64) goal                { return goal{false, ratio, ""} }
func atMostOf(value float64, unit string) goal { return goal{false, value, unit} }
func (g goal) met(v float64) bool              { return g.atLeast == (v >= g.value) || v == g.value }
func (g goal) none() bool                      { return g == goal{} }
func (g goal) String() string {
	sign := "<="
	if g.atLeast {
		sign = ">="
	}
	switch {
	case g.none():
		return ""
	case g.of == "":
		return fmt.Sprintf("%s %gx", sign, g.value)
	}
	return fmt.Sprintf("%s %g %s", sign, g.value, g.of)
}

// beside makes the row of two series that were measured in the same rounds.
func beside(name, unit string, ours []float64, peerName string, peer []float64, g goal) row {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / peer[i]
	}
	ratio := median(ratios)
	return row{
		Name: name, Unit: unit, Ours: median(ours), Peer: median(peer), PeerName: peerName, Ratio: ratio,
		Low: slices.Min(ratios), High: slices.Max(ratios), Goal: g.String(), Met: g.none() || g.met(ratio), Rounds: len(ours),
	}
}

// within says what bounds a row.
func (r row) within(limit string) row {
	r.Limit = limit
	return r
}

// alone makes the row of a series that has a goal of its own. The worst round counts.
func alone(name, unit string, ours []float64, g goal) row {
	return row{
		Name: name, Unit: unit, Ours: median(ours), Goal: g.String(), Met: g.none() || g.met(slices.Max(ours)), Rounds: len(ours),
		Low: slices.Min(ours), High: slices.Max(ours),
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return math.NaN()
	}
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

func writeJSON(w io.Writer, rows []row) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(slices.Concat([]row{}, rows))
}

func writeTable(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "metric\tunit\tours\tpeer\t\tratio\tspread\tgoal\t\trounds\tfsync us\tlimit")
	for _, r := range rows {
		ratio, peer, verdict := "", "", ""
		if r.PeerName != "" {
			ratio, peer = fmt.Sprintf("%.2f", r.Ratio), short(r.Peer)
		}
		switch {
		case r.Goal == "":
		case r.Met:
			verdict = "met"
		default:
			verdict = "NOT MET"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s-%s\t%s\t%s\t%d\t%.0f\t%s\n",
			r.Name, r.Unit, short(r.Ours), peer, r.PeerName, ratio, short(r.Low), short(r.High), r.Goal, verdict, r.Rounds, r.FsyncUS, r.Limit)
	}
}

// short writes a figure with three digits that count.
func short(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
