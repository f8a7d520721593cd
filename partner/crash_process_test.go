package partner

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// crash is where a process is to end, and in which role; the zero Point is nowhere.
type crash struct {
	Point crashpoint.Point
	Role  mirror.Role
}

// by says whether a program that shows a role is the one that is meant. Where a partner tells another server what changes
// its own role, it may show the role before that or the one after it; then it is the message that says which partner it is.
func (c crash) by(shown mirror.Role) bool {
	partner := func(r mirror.Role) bool { return r == mirror.RolePrincipal || r == mirror.RoleMirror }
	switch c.Point {
	case crashpoint.DrainedTold, crashpoint.TransferSent, crashpoint.VoteSent, crashpoint.GrantUnsent, crashpoint.GrantSent:
		return shown == c.Role || partner(shown) && partner(c.Role)
	}
	return shown == c.Role
}

func (c crash) String() string { return fmt.Sprintf("%s / %s", c.Point, roleName(c.Role)) }

// roleName is "starting" for a program that is only just opening what is on its disk, or that has no session yet.
func roleName(r mirror.Role) string {
	if r == mirror.RoleNone {
		return "starting"
	}
	return r.String()
}

// crashFile is where a process that ends itself says so, since it can say nothing afterwards.
const crashFile = "crashed"

// crasher ends its own process at a point.
type crasher struct {
	dir  string
	host atomic.Pointer[host.Host] // nil until there is one
}

// role is what the process last showed.
func (c *crasher) role() mirror.Role {
	if h := c.host.Load(); h != nil {
		return h.Status().Role
	}
	return mirror.RoleNone
}

// arm has the process end itself at a point if it is in the role then, and go on if it is not.
func (c *crasher) arm(at crash) {
	if at.Point == 0 {
		crashpoint.Arm(0, nil)
		return
	}
	crashpoint.Arm(at.Point, func() {
		if !at.by(c.role()) {
			c.arm(at)
			return
		}
		text, _ := json.Marshal(at)
		if err := os.WriteFile(filepath.Join(c.dir, crashFile), text, 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3) // not by a signal: the test fails
		}
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		fmt.Fprintln(os.Stderr, err)
		select {} // the kill may be a moment away: nothing more is done here
	})
}

// obey takes the orders of the test: where to end.
func (c *crasher) obey(mux *http.ServeMux) {
	mux.HandleFunc("POST /crash", func(rw http.ResponseWriter, r *http.Request) {
		var at crash
		if err := json.Unmarshal([]byte(r.FormValue("at")), &at); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		c.arm(at)
	})
}

// command lets the test give the commands that take a value.
func (c *crasher) command(mux *http.ServeMux, p *Partner) {
	for name, give := range map[string]func(context.Context) error{
		"witness/set":    func(ctx context.Context) error { return p.SetWitness(ctx, true) },
		"witness/remove": func(ctx context.Context) error { return p.SetWitness(ctx, false) },
		"safety/full":    func(ctx context.Context) error { return p.SetSafety(ctx, mirror.SafetyFull) },
		"safety/off":     func(ctx context.Context) error { return p.SetSafety(ctx, mirror.SafetyOff) },
	} {
		mux.HandleFunc("POST /"+name, func(rw http.ResponseWriter, r *http.Request) {
			if err := give(r.Context()); err != nil {
				http.Error(rw, err.Error(), http.StatusConflict)
			}
		})
	}
}
