package operator

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner"
)

// A wrong certificate or address is no trouble of the database; it stands beside the server that is not reached.
func TestStatusSaysWhyAServerIsNotReached(t *testing.T) {
	var st partner.Status
	st.Self = mirror.PartnerA
	st.Links[mirror.Witness] = "another authority issued it"
	text, err := json.Marshal(partnerStatus(st))
	require.NoError(t, err)
	var shown struct {
		Peers []struct{ Server, Undelivered string }
	}
	require.NoError(t, json.Unmarshal(text, &shown))
	require.Len(t, shown.Peers, 2)
	require.Equal(t, "partner-b", shown.Peers[0].Server)
	require.Empty(t, shown.Peers[0].Undelivered)
	require.Equal(t, "witness", shown.Peers[1].Server)
	require.Equal(t, "another authority issued it", shown.Peers[1].Undelivered)
}
