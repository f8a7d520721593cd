package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner"
)

// report is what a partner tells its operator.
type report struct {
	Role     mirror.Role
	State    mirror.State
	Reason   mirror.Reason
	Seq      mirror.RoleSeq
	Quorum   mirror.Quorum
	Gate     mirror.Gate
	Serving  bool
	Exposed  bool
	Queue    int64 // bytes hardened and not redone
	Hardened mirror.LSN
	Redone   mirror.LSN
	Trouble  string
}

// String is one line for people.
func (r report) String() string {
	s := fmt.Sprintf("%s %s (%s), role sequence %d, gate %s, quorum %s", r.Role, r.State, r.Reason, r.Seq, r.Gate, r.Quorum)
	if r.Exposed {
		s += ", exposed"
	}
	if r.Trouble != "" {
		s += ", trouble: " + r.Trouble
	}
	return s
}

func reportOf(p *partner.Partner) report {
	st := p.Status()
	return report{
		Role: st.Role, State: st.State, Reason: st.Reason, Seq: st.Record.Seq, Quorum: st.Quorum, Gate: st.Gate,
		Serving: st.Serving, Exposed: st.Exposed, Queue: st.Queue, Hardened: st.Hardened.LSN, Redone: st.Redone, Trouble: st.Trouble,
	}
}

// answerOperator serves an operator until ctx ends. It listens on loopback and asks nobody who he is: a real program
// puts it behind what it has for that.
func answerOperator(ctx context.Context, addr string, p *partner.Partner) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(reportOf(p)) // whoever hangs up gets nothing
	})
	mux.HandleFunc("POST /failover", func(w http.ResponseWriter, r *http.Request) {
		if err := p.Failover(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	server := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("operator's address: %w", err)
	}
	return nil
}

// operator asks a partner's process.
type operator struct{ addr string }

func (o operator) status(ctx context.Context) (report, error) {
	var r report
	raw, err := o.ask(ctx, http.MethodGet, "/status")
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(raw, &r)
}

func (o operator) failover(ctx context.Context) error {
	_, err := o.ask(ctx, http.MethodPost, "/failover")
	return err
}

func (o operator) ask(ctx context.Context, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+o.addr+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s", method, path, bytes.TrimSpace(body))
	}
	return body, err
}
