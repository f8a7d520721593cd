package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Page is the address of an operator's page.
type Page struct{ listener net.Listener }

// Open listens at a loopback address, host:port. Any other is refused: nobody logs in here. An empty address is no page.
func Open(addr string) (*Page, error) {
	if addr == "" {
		return &Page{}, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("operator's address %q: %w; write it as 127.0.0.1:8080", addr, err)
	}
	if !loopback(host) {
		return nil, fmt.Errorf("operator's address %q is not on loopback, and nobody logs in there; use 127.0.0.1", addr)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("operator's address: %w", err)
	}
	return &Page{listener}, nil
}

// Close ends the listening of a page that does not run.
func (p *Page) Close() {
	if p.listener != nil {
		_ = p.listener.Close() // Run has closed it already when it ran
	}
}

// Run runs a server of a session and the page of its operator. When either ends, so does the other.
func (p *Page) Run(ctx context.Context, page http.Handler, server func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var served error
	var serving sync.WaitGroup
	if p.listener != nil {
		serving.Go(func() {
			served = p.serve(ctx, page)
			cancel()
		})
	}
	err := server(ctx)
	cancel()
	serving.Wait()
	return errors.Join(err, served)
}

func (p *Page) serve(ctx context.Context, page http.Handler) error {
	server := &http.Server{Handler: guard(page), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the operator: %w", err)
	}
	return nil
}

// guard keeps the pages of other sites out, which an operator's browser may show: they can neither post here nor read
// through a name of their own that leads to loopback.
func guard(handler http.Handler) http.Handler {
	sameOrigin := http.NewCrossOriginProtection().Handler(handler)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		if !loopback(host) {
			http.Error(w, fmt.Sprintf("%q is not a name of loopback; ask 127.0.0.1 or localhost", host), http.StatusMisdirectedRequest)
			return
		}
		sameOrigin.ServeHTTP(w, r)
	})
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}
