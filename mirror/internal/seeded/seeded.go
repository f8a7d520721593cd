// Package seeded names the errors that exploration plants in the rules of a session, to prove that it would find them.
//
// A session is built without any; only the packages under mirror can name one, so no program that imports mirror can
// switch a rule off. The numbers are those of the protocol's reference model.
package seeded

// Error is a set of rules that are broken on purpose.
type Error uint32

// The planted errors.
const (
	AckAlone         Error = 1 << iota // M1: the principal acknowledges alone without recording that it is exposed
	IgnoreVersions                     // M2: a voter grants without comparing versions or promotability
	AnnounceEarly                      // M4: in_sync is recorded before the mirror has hardened everything
	RememberConfirm                    // M7: "confirmed" survives a restart
	StoreBeforeGrant                   // M8: a candidate stores the new record before it is granted
	TrustOwnExposure                   // M13: the principal acts on its own exposure without a second server
)

// Has says whether the set holds e.
func (s Error) Has(e Error) bool { return s&e != 0 }
