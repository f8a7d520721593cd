package partner

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// way is a direction between two machines: everything that one sends to the other, whoever made the connection.
type way struct{ from, to mirror.Server }

// roads are the cables of the three machines of a session: to every endpoint and to both database servers, as programs
// reach them, their own server included. Clients have ways of their own.
type roads struct {
	endpoints map[way]*cable // by who dials whom
	servers   map[way]*cable
}

func newRoads(p *pair) *roads {
	r := &roads{endpoints: map[way]*cable{}, servers: map[way]*cable{}}
	for from := mirror.PartnerA; from <= mirror.Witness; from++ {
		for to := mirror.PartnerA; to <= mirror.Witness; to++ {
			if from != to {
				r.endpoints[way{from, to}] = newCable(p.t, p.addr[to])
			}
			if from.IsPartner() && to.IsPartner() {
				r.servers[way{from, to}] = newCable(p.t, fmt.Sprintf("127.0.0.1:%d", p.pg[to].Port()))
			}
		}
	}
	return r
}

// lead lets a program reach the others over the cables.
func (r *roads) lead(o *orders) {
	for to := mirror.PartnerA; to <= mirror.Witness; to++ {
		if to != o.Self {
			o.Addr[to] = r.endpoints[way{o.Self, to}].addr()
		}
	}
	if o.Self.IsPartner() {
		o.DSN = through(r.servers[way{o.Self, o.Self}])
		o.Peer = through(r.servers[way{o.Self, o.Self.Other()}])
	}
}

// scope is which cables of a way are meant.
type scope int

const (
	allCables scope = iota
	endpointCables
	serverCables
	numScopes
)

// lane is one direction of a cable.
type lane struct {
	*cable
	direction
}

// lanes are those by which bytes go a way.
func (r *roads) lanes(w way, s scope) (found []lane) {
	back := way{w.to, w.from}
	if s != serverCables {
		found = append(found, lane{r.endpoints[w], outward}, lane{r.endpoints[back], inward})
	}
	if s != endpointCables && w.from.IsPartner() && w.to.IsPartner() {
		found = append(found, lane{r.servers[w], outward}, lane{r.servers[back], inward})
	}
	return found
}

// secluding cuts a partner's program off from its own server, which goes on. What the program should close meanwhile it
// cannot.
func secluding(c *chaos, f *fault) (func() error, error) {
	s := []mirror.Server{c.former(), c.other()}[f.dice.IntN(2)]
	own := c.roads.servers[way{s, s}]
	c.history.add("where", s.String(), nil)
	c.away(s)
	end := weathers([]lane{{own, outward}, {own, inward}}, &weather{cut: true}, f.dice.IntN(2) == 0)
	return func() error { defer c.back(s); return end() }, nil
}

// stretch is a choice of ways, which storms strike together.
type stretch func(c *chaos, dice *rand.Rand) []way

// pairsOfLinks chooses one link, or all links of one machine, in both directions.
func pairsOfLinks(c *chaos, dice *rand.Rand) (ways []way) {
	p, m, w := c.former(), c.other(), mirror.Witness
	choices := [][]way{{{p, m}}, {{p, w}}, {{m, w}}, {{p, m}, {p, w}}, {{p, m}, {m, w}}, {{p, w}, {m, w}}}
	for _, x := range choices[dice.IntN(len(choices))] {
		ways = append(ways, x, way{x.to, x.from})
	}
	return ways
}

// waysOfLinks chooses one direction of a link, or all that go out of a machine, or into one.
func waysOfLinks(c *chaos, dice *rand.Rand) []way {
	p, m, w := c.former(), c.other(), mirror.Witness
	choices := [][]way{
		{{p, m}}, {{m, p}}, {{p, w}}, {{w, p}}, {{m, w}}, {{w, m}},
		{{p, m}, {p, w}}, {{m, p}, {w, p}}, {{m, p}, {m, w}}, {{p, m}, {w, m}},
	}
	return choices[dice.IntN(len(choices))]
}

func anyLinks(c *chaos, dice *rand.Rand) []way {
	if dice.IntN(2) == 0 {
		return pairsOfLinks(c, dice)
	}
	return waysOfLinks(c, dice)
}

// pick draws where a storm strikes.
func (c *chaos) pick(f *fault, where stretch) (lanes []lane) {
	ways, s := where(c, f.dice), scope(f.dice.IntN(int(numScopes)))
	for len(lanes) == 0 { // the cables of servers lie between the partners only
		for _, w := range ways {
			lanes = append(lanes, c.roads.lanes(w, s)...)
		}
		s = allCables
	}
	c.history.add("where", fmt.Sprint(ways), nil)
	return lanes
}

// weathers begins a weather on some lanes. When it ends, what was held up goes on; or the connections are reset first,
// and nothing of it arrives.
func weathers(lanes []lane, w *weather, reset bool) (end func() error) {
	for _, l := range lanes {
		l.storm(l.direction, w)
	}
	return func() error {
		for _, l := range lanes {
			if reset {
				l.reset()
			}
			l.calm(l.direction, w)
		}
		return nil
	}
}

func cutting(where stretch) func(*chaos, *fault) (func() error, error) {
	return func(c *chaos, f *fault) (func() error, error) {
		return weathers(c.pick(f, where), &weather{cut: true}, f.dice.IntN(2) == 0), nil
	}
}

func delaying(c *chaos, f *fault) (func() error, error) {
	late := 20*time.Millisecond + time.Duration(f.dice.Int64N(int64(2500*time.Millisecond)))
	return weathers(c.pick(f, anyLinks), &weather{late: late}, false), nil
}

func trickling(c *chaos, f *fault) (func() error, error) {
	every := []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}
	return weathers(c.pick(f, anyLinks), &weather{trickle: every[f.dice.IntN(len(every))]}, false), nil
}

// tearing leaves one side with connections that the other side has ended. New ones can be made after a while; the torn
// ones stay as they are.
func tearing(c *chaos, f *fault) (func() error, error) {
	lanes, left := c.pick(f, pairsOfLinks), direction(f.dice.IntN(2))
	end := weathers(lanes, &weather{cut: true}, false)
	for _, l := range lanes {
		l.tear(left)
	}
	return end, nil
}
