package operator

import (
	"errors"
	"flag"
	"fmt"

	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// CredentialFlags adds the flags that say how a server proves who it is.
func CredentialFlags(flags *flag.FlagSet, c *endpoint.Credentials) {
	flags.StringVar(&c.CertFile, "cert", "", "`file` with this server's certificate, PEM")
	flags.StringVar(&c.KeyFile, "key", "", "`file` with its key, PEM, mode 0600")
	flags.StringVar(&c.CAFile, "ca", "", "`file` with the session's authority, PEM")
	flags.BoolVar(&c.Plaintext, "plaintext", false, "no certificates; on loopback only, for trying things out")
}

// CheckCredentials says which flags are missing.
func CheckCredentials(c endpoint.Credentials) error {
	all := c.CertFile != "" && c.KeyFile != "" && c.CAFile != ""
	if none := c.CertFile == "" && c.KeyFile == "" && c.CAFile == ""; c.Plaintext && !none || !c.Plaintext && !all {
		return errors.New("give -cert, -key and -ca together, or -plaintext alone")
	}
	return nil
}

// Profile returns the timeouts of a name: default or fast.
func Profile(name string) (host.Timing, error) {
	switch name {
	case "default":
		return host.Timing{}, nil
	case "fast":
		return host.Fast(), nil
	}
	return host.Timing{}, fmt.Errorf("-profile %q: want default or fast", name)
}
