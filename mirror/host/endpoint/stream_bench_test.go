package endpoint

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// Both sides are in this process, so two processors do the work of two machines. "bare" is TCP and mutual TLS and
// nothing else: what a stream is to be measured by.

func BenchmarkStreamBulk(b *testing.B) {
	forEachKind(b, func(b *testing.B, conn net.Conn) {
		block := make([]byte, 256<<10)
		b.SetBytes(int64(len(block)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := conn.Write(block); err != nil {
				b.Fatal(err)
			}
		}
	}, func(conn net.Conn) { _, _ = io.CopyBuffer(io.Discard, onlyReader{conn}, make([]byte, 64<<10)) })
}

func BenchmarkStreamPingPong(b *testing.B) {
	forEachKind(b, func(b *testing.B, conn net.Conn) {
		block := make([]byte, 100)
		b.ReportAllocs()
		for b.Loop() {
			_, err := conn.Write(block)
			if err == nil {
				_, err = io.ReadFull(conn, block)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}, func(conn net.Conn) {
		block := make([]byte, 100)
		for {
			if _, err := io.ReadFull(conn, block); err != nil {
				return
			}
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	})
}

type onlyReader struct{ io.Reader }

func forEachKind(b *testing.B, near func(*testing.B, net.Conn), far func(net.Conn)) {
	b.Run("stream", func(b *testing.B) {
		s := tcpSite(b, Limits{})
		s.serveStreams(func(_ context.Context, _ Identity, _ Kind, conn net.Conn) { far(conn) })
		conn := open(b, s.client(b, PartnerB))
		near(b, conn)
		require.NoError(b, conn.Close())
	})
	b.Run("bare", func(b *testing.B) {
		s := tcpSite(b, Limits{})
		session := s.server.session(sessionOne)
		listener, err := tls.Listen("tcp", "127.0.0.1:0", session.tlsConfig())
		require.NoError(b, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := listener.Accept()
			if err == nil {
				far(conn)
				_ = conn.Close()
			}
		}()
		conn, err := tls.Dial("tcp", listener.Addr().String(), strangerConfig(s.ca.of(b, id(PartnerB))))
		require.NoError(b, err)
		near(b, conn)
		require.NoError(b, conn.Close())
		<-done
		require.NoError(b, listener.Close())
	})
}
