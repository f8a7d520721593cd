package backend

import (
	"errors"

	"github.com/f19126b3/dbmirror/mirror"
)

// ReasonOf returns why an error suspends the session: what the outermost error in it says that has a method
// Reason() mirror.Reason. ReasonNone: it may be tried again.
func ReasonOf(err error) mirror.Reason {
	var e interface {
		error
		Reason() mirror.Reason
	}
	if errors.As(err, &e) {
		return e.Reason()
	}
	return mirror.ReasonNone
}

// Because gives an error a reason. Its text stays, and errors.Is and errors.As find what they found before.
func Because(reason mirror.Reason, err error) error { return &reasoned{reason, err} }

type reasoned struct {
	reason mirror.Reason
	error
}

func (r *reasoned) Reason() mirror.Reason { return r.reason }
func (r *reasoned) Unwrap() error         { return r.error }
