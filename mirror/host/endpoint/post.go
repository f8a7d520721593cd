package endpoint

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// posted is a message in the one form in which a Client sends it.
type posted struct {
	session string
	kind    Kind
	body    []byte // of the bytes that it was read from
}

// parsePost reads a message that is all of b, byte for byte as a Client writes it. It knows nothing else of HTTP: whatever
// differs, in an order, a space or a letter, is not ok, and for package net/http to judge.
func parsePost(b []byte) (p posted, ok bool) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return posted{}, false
	}
	head, body := string(b[:end]), b[end+4:]
	rest, begins := strings.CutPrefix(head, "POST "+PathPrefix)
	session, rest, _ := strings.Cut(rest, "/")
	kind, rest, _ := strings.Cut(rest, " HTTP/1.1\r\nHost: ")
	host, rest, _ := strings.Cut(rest, "\r\nUser-Agent: dbmirror\r\nContent-Length: ")
	length, rest, ends := strings.Cut(rest, "\r\nContent-Type: application/octet-stream")
	if !begins || !ends || rest != "" || !isSession(session) || !Kind(kind).valid() || !isHost(host) || length != strconv.Itoa(len(body)) {
		return posted{}, false
	}
	return posted{session, Kind(kind), body}, true
}

// isHost says whether s is an address and nothing that HTTP could take for something else.
func isHost(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:[]") == ""
}

// answerPost takes the message and writes the answer, in one write. It reports whether the connection goes on.
func (s *Server) answerPost(ctx context.Context, c *caller, found *session, p posted, to io.Writer) bool {
	from, no := s.verified(found, c.chain)
	var reply []byte
	if no != nil {
		no.last = true
	} else {
		reply, no = s.take(ctx, found, from, p.kind, func() ([]byte, *refusal) { return bytes.Clone(p.body), nil })
	}
	if no != nil {
		return s.refusePost(c, found, no, to)
	}
	found.counters.sent(len(reply))
	answer := make([]byte, 0, 256+len(reply))
	answer = append(answer, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"+headerFrom+": "...)
	answer = append(answer, found.name...)
	answer = append(answer, "\r\nDate: "...)
	answer = time.Now().UTC().AppendFormat(answer, http.TimeFormat)
	answer = append(answer, "\r\nContent-Length: "...)
	answer = strconv.AppendInt(answer, int64(len(reply)), 10)
	answer = append(answer, "\r\n\r\n"...)
	_, err := to.Write(append(answer, reply...))
	return err == nil
}

// refusePost says why a message is not taken.
func (s *Server) refusePost(c *caller, found *session, no *refusal, to io.Writer) bool {
	if no.result != ResultSuccess {
		s.refused(found, no.result, remoteOf(c.raw), no.text)
	}
	text := no.text + "\n"
	answer := http.Response{
		StatusCode: no.status, ProtoMajor: 1, ProtoMinor: 1, Close: no.last,
		Header: http.Header{
			headerFrom: {found.name}, "Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"},
			"Date": {time.Now().UTC().Format(http.TimeFormat)},
		},
		Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
	}
	var whole bytes.Buffer
	_ = answer.Write(&whole) // memory takes everything
	_, err := to.Write(whole.Bytes())
	return err == nil && !no.last
}
