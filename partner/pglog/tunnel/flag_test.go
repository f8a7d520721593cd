package tunnel_test

// The flags that are given to all tests under partner.
import _ "github.com/f19126b3/dbmirror/partner/internal/testflag"
