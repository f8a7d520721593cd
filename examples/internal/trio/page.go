package trio

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Report is what is read of a partner's page for its operator.
type Report struct {
	Role, State, Reason string
	Sequence            uint64 `json:"role_sequence"`
	Gate, Quorum        string
	Safety              string
	WaitsFor            string `json:"commits_wait_for"`
	Serving, Exposed    bool
	Trouble             string
}

// String is one line for people.
func (r Report) String() string {
	s := fmt.Sprintf("%s %s (%s), role sequence %d, gate %s, quorum %s", r.Role, r.State, r.Reason, r.Sequence, r.Gate, r.Quorum)
	if r.Exposed {
		s += ", exposed"
	}
	if r.Trouble != "" {
		s += ", trouble: " + r.Trouble
	}
	return s
}

// Page is the address of a partner's page for its operator.
type Page string

// Status reads what the partner shows.
func (p Page) Status(ctx context.Context) (Report, error) {
	var r Report
	raw, err := p.ask(ctx, http.MethodGet, "/status", http.StatusOK)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(raw, &r)
}

// Command asks for a command, such as /failover or /safety?level=OFF; [operator.Partner] lists them. It returns when the
// command was accepted.
func (p Page) Command(ctx context.Context, path string) error {
	_, err := p.ask(ctx, http.MethodPost, path, http.StatusAccepted)
	return err
}

func (p Page) ask(ctx context.Context, method, path string, wanted int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+string(p)+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != wanted {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(body))
	}
	return body, err
}
