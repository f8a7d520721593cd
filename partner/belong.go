package partner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// errOtherDatabase is wrapped by errors about a connection string that leads to a database which is not the session's.
var errOtherDatabase = errors.New("another database")

// placeFile is its name in Config.Dir.
const placeFile = "database.json"

// belong makes sure that the database is the one that this partner had when its session was made. Which one that was is kept
// beside the state, because a setting that was mistaken would otherwise make a principal of an empty database.
func (p *Partner) belong(now backend.Identity) error {
	path := filepath.Join(p.cfg.Dir, placeFile)
	own, err := readPlace(path)
	if errors.Is(err, fs.ErrNotExist) {
		return writePlace(path, now)
	}
	if err != nil {
		return err
	}
	if !own.Same(now) {
		here, _ := p.cfg.Backend.Settings()
		return fmt.Errorf("%w: %s leads to %s, this partner's is %s: correct %[2]s, or if the database was made anew, remove %[5]s and reseed",
			errOtherDatabase, here, now, own, path)
	}
	return nil
}

func readPlace(path string) (backend.Identity, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return backend.Identity{}, fmt.Errorf("read which database this partner belongs to: %w", err)
	}
	var own backend.Identity
	err = json.Unmarshal(raw, &own)
	if err == nil && own.ID == "" {
		err = errors.New("it names none")
	}
	if err != nil {
		return backend.Identity{}, fmt.Errorf("read which database this partner belongs to: %s is damaged: %w; remove it if the database is the right one", path, err)
	}
	return own, nil
}

// writePlace writes beside, syncs and renames, so that the file is there whole or not at all, also after a power loss.
func writePlace(path string, of backend.Identity) error {
	b, err := json.Marshal(of)
	if err == nil {
		err = writeSynced(path+".new", append(b, '\n'))
	}
	if err == nil {
		crashpoint.Hit(crashpoint.PlaceUnnamed)
		err = crashpoint.After(crashpoint.PlaceNamed, os.Rename(path+".new", path))
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write which database this partner belongs to: %w; make room in Dir and let this user write there", err)
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// forgetPlace lets a partner without a session take any database, in any state.
func (p *Partner) forgetPlace() error {
	if err := os.Remove(filepath.Join(p.cfg.Dir, placeFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget which database this partner belonged to: %w", err)
	}
	return p.forgetHandover()
}

func (d *dataPath) setPlace(own backend.Identity) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.place = own
}

func (d *dataPath) setReached(theirs backend.Identity) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.reached = theirs
}
