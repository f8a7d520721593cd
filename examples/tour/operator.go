package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// report is what the tour reads of a partner's page for its operator.
type report struct {
	Role, State, Reason string
	Sequence            uint64 `json:"role_sequence"`
	Gate, Quorum        string
	Serving, Exposed    bool
	Trouble             string
}

// String is one line for people.
func (r report) String() string {
	s := fmt.Sprintf("%s %s (%s), role sequence %d, gate %s, quorum %s", r.Role, r.State, r.Reason, r.Sequence, r.Gate, r.Quorum)
	if r.Exposed {
		s += ", exposed"
	}
	if r.Trouble != "" {
		s += ", trouble: " + r.Trouble
	}
	return s
}

// page is the address of a partner's page.
type page string

func (p page) status(ctx context.Context) (report, error) {
	var r report
	raw, err := p.ask(ctx, http.MethodGet, "/status", http.StatusOK)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(raw, &r)
}

func (p page) failover(ctx context.Context) error {
	_, err := p.ask(ctx, http.MethodPost, "/failover", http.StatusAccepted)
	return err
}

func (p page) ask(ctx context.Context, method, path string, wanted int) ([]byte, error) {
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
