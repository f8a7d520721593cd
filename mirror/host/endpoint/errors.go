package endpoint

import (
	"fmt"
	"strings"
	"time"
)

// RefusedError is returned by Send and Open when the system reports at once that nobody is there: connection refused, reset or
// closed, host unreachable. It is a hard error.
type RefusedError struct {
	Peer Identity
	Addr string
	Err  error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s is not there at %s: %v; see whether it runs and listens there", e.Peer, e.Addr, e.Err)
}

// Unwrap returns the system's error.
func (e *RefusedError) Unwrap() error { return e.Err }

// TimeoutError is returned by Send and Open when nothing came back in time. It is a soft error: the message may have arrived.
type TimeoutError struct {
	Peer  Identity
	Addr  string
	After time.Duration // how long it was waited for
	Err   error
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("%s at %s did not answer within %s", e.Peer, e.Addr, e.After.Round(time.Millisecond))
}

// Timeout is true.
func (e *TimeoutError) Timeout() bool { return true }

// Unwrap returns what ran out.
func (e *TimeoutError) Unwrap() error { return e.Err }

// DeniedError is returned by Send and Open when the other side answers and refuses. A Handler returns one to refuse, see [Deny].
type DeniedError struct {
	Peer   Identity
	Addr   string
	Status int    // the HTTP status; 0 when the other side refused in TLS
	Text   string // what the other side says, at most 1 KiB on one line
}

// Deny returns the error by which a Handler refuses a message. The sender sees the text.
func Deny(format string, args ...any) error {
	return &DeniedError{Text: oneLine(fmt.Sprintf(format, args...))}
}

func (e *DeniedError) Error() string {
	if e.Addr == "" {
		return e.Text
	}
	return fmt.Sprintf("%s at %s refuses: %s", e.Peer, e.Addr, e.Text)
}

// CertificateError is returned when a certificate cannot be verified or is that of somebody else. The side that verifies
// has it; the other side has a DeniedError.
type CertificateError struct {
	Presented []string // the certificate's URIs; nobody vouches for them when Err is not an identity's
	Expected  string
	Detail    string // what is wrong and how to mend it
	Err       error  // nil when the certificate is good, but somebody else's
}

func (e *CertificateError) Error() string {
	presented := "no URI"
	if len(e.Presented) > 0 {
		presented = strings.Join(e.Presented, " and ")
	}
	return fmt.Sprintf("certificate is for %s, expected %s: %s", presented, e.Expected, e.Detail)
}

// Unwrap returns the error of the verification.
func (e *CertificateError) Unwrap() error { return e.Err }

func (e *CertificateError) result() Result {
	if e.Err == nil {
		return ResultAuthorizationFailure
	}
	return ResultAuthenticationFailure
}

// oneLine makes a text that came from elsewhere safe to show.
func oneLine(s string) string {
	const limit = 1024
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return strings.TrimSpace(s)
}
