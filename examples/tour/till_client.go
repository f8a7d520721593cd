package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// caller is a client of the till. It knows the addresses of both partners, and calls the other one when one does not serve.
type caller struct {
	http *http.Client
	addr [3]string // by mirror.Server
	at   mirror.Server
	lost bool // who serves is not known
}

func newCaller(addr [3]string) *caller {
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	return &caller{addr: addr, at: mirror.PartnerA, http: &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}}
}

func (c *caller) connected() bool { return !c.lost }

func (c *caller) connect() bool {
	c.at = c.at.Other()
	return true
}

func (c *caller) hangUp() { c.http.CloseIdleConnections() }

// pay has no deadline: what is broken off here may still be done there.
func (c *caller) pay(o order) receipt {
	raw, err := json.Marshal(o)
	if err != nil {
		c.lost = true
		return receipt{}
	}
	r := receipt{by: c.at, told: true, fate: acknowledged}
	err = c.call(context.Background(), c.at, http.MethodPost, "/payments", raw, &r.ticket)
	c.lost = err != nil
	if err != nil {
		return receipt{fate: fateOf(err)}
	}
	return r
}

// refusal is an answer that is not the wanted one.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// fateOf tells what may have become of a payment that was not acknowledged.
func fateOf(err error) fate {
	var answer *refusal
	var dial *net.OpError
	switch {
	case errors.As(err, &answer) && answer.status != http.StatusGatewayTimeout:
		return abandoned
	case errors.As(err, &dial) && dial.Op == "dial":
		return abandoned
	}
	return unknown
}

// call asks the application in the process of a partner.
func (c *caller) call(ctx context.Context, p mirror.Server, method, path string, body []byte, result any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.addr[p]+"/app"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return &refusal{answer.StatusCode, fmt.Sprintf("%s %s at %s: %s", method, path, p, bytes.TrimSpace(raw))}
	}
	return json.Unmarshal(raw, result)
}
