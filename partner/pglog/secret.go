package pglog

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is text that must not be shown: a connection string with its password. Whatever prints it, in whatever way,
// prints a mask instead; string(s) is the one way to the text.
type Secret string

const secretMask = "[secret]"

// String returns the mask, or nothing for an empty secret, so that a missing one can be told.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return secretMask
}

// CheckDSN says whether the secret can be read as a connection string to one server. It connects to nothing and shows
// nothing of it.
func (s Secret) CheckDSN() error {
	_, err := parseDSN(s)
	return err
}

// GoString returns what String does.
func (s Secret) GoString() string { return s.String() }

// Format writes what String returns for every verb and flag: without it %x would show the text.
func (s Secret) Format(f fmt.State, _ rune) {
	// An error of the writer is reported by whoever prints, as it is for every other operand.
	_, _ = io.WriteString(f, s.String())
}

// LogValue returns what String does.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON writes what String returns, as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalText writes what String returns, for encoders other than JSON. As the key of a map encoding/json would write the
// text all the same: do not use a Secret so.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
