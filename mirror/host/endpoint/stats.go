package endpoint

import (
	"sync/atomic"
	"time"
)

// Result is how a login, or a message of somebody who is logged in, ended.
type Result uint8

// The results, in the order of SQL Server's login audit.
const (
	ResultSuccess               Result = iota
	ResultProtocolError                // out of time, cut off, or too many messages
	ResultMessageFormatError           // not a message: path, method, size
	ResultNegotiateFailure             // no common version of TLS or HTTP, no TLS at all, or an unknown session
	ResultAuthenticationFailure        // a certificate that is missing or cannot be verified
	ResultAuthorizationFailure         // a good certificate of somebody else, or a message that is not his to send

	// ResultCount is the number of results.
	ResultCount
)

// String returns the result in snake case, as it stands in metrics.
func (r Result) String() string {
	return [...]string{"success", "protocol_error", "message_format_error", "negotiate_failure",
		"authentication_failure", "authorization_failure"}[r]
}

// Stats is a snapshot of the traffic of one session at a Server, or of one Client. Counts are since the start.
type Stats struct {
	MessagesSent        uint64 // a Server's are its replies
	MessagesReceived    uint64 // a Client's are the replies it got
	BytesSent           uint64 // bodies only
	BytesReceived       uint64
	Logins              [ResultCount]uint64 // by result; refused messages count too
	Connections         int                 // open and logged in, streams included
	Streams             int                 // open
	StreamsOpened       uint64              // and accepted by the other side
	StreamBytesSent     uint64
	StreamBytesReceived uint64
	CertificateExpires  time.Time // our own; zero in plaintext
	ReloadFailures      uint64    // changed credential files that could not be used
}

// ClientStats is a snapshot of a Client.
type ClientStats struct {
	Stats
	Refused  uint64 // Sends and Opens that ended with RefusedError
	Timeouts uint64 // Sends and Opens that ended with TimeoutError
	Denied   uint64 // Sends and Opens that ended with DeniedError
}

// ServerStats is a snapshot of a Server over all sessions. Only connections that Serve accepted count.
type ServerStats struct {
	Connections int                 // open, logged in or not
	Handshakes  int                 // open and not logged in yet
	Evicted     uint64              // closed before they logged in, to make room
	Logins      [ResultCount]uint64 // by result; refused messages count too
}

// counters are the numbers behind Stats. They may be used concurrently.
type counters struct {
	messagesSent, messagesReceived atomic.Uint64
	bytesSent, bytesReceived       atomic.Uint64
	connections                    atomic.Int64
	streams                        streamCounters
	logins                         loginCounters
}

type loginCounters [ResultCount]atomic.Uint64

func (c *loginCounters) snapshot() (all [ResultCount]uint64) {
	for i := range c {
		all[i] = c[i].Load()
	}
	return all
}

func (c *counters) sent(bytes int) {
	c.messagesSent.Add(1)
	c.bytesSent.Add(uint64(bytes))
}

func (c *counters) received(bytes int) {
	c.messagesReceived.Add(1)
	c.bytesReceived.Add(uint64(bytes))
}

func (c *counters) snapshot(own *source) Stats {
	s := Stats{
		MessagesSent:     c.messagesSent.Load(),
		MessagesReceived: c.messagesReceived.Load(),
		BytesSent:        c.bytesSent.Load(),
		BytesReceived:    c.bytesReceived.Load(),
		Logins:           c.logins.snapshot(),
		Connections:      int(c.connections.Load()),
		Streams:          int(c.streams.open.Load()), StreamsOpened: c.streams.opened.Load(),
		StreamBytesSent: c.streams.sent.Load(), StreamBytesReceived: c.streams.received.Load(),
	}
	if own != nil {
		s.CertificateExpires = own.material().certificate.Leaf.NotAfter
		s.ReloadFailures = own.failures.Load()
	}
	return s
}
