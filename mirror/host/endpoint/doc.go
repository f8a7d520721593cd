// Package endpoint is where the servers of a session talk to each other: a few small messages a second, as HTTP over
// mutual TLS 1.3, one POST per message. It moves bodies it does not understand and says whose they are. Messages may be
// lost, doubled or late; whoever uses it must not care.
//
// # Who is who
//
// Each server has one certificate with one URI, [Identity.URI], that names the session and its role in it:
//
//	spiffe://dbmirror/mirror/00112233445566778899aabbccddeeff/partner-a
//
// Both sides verify the other's certificate against the session's own authority, never the system's, and compare the
// URI. Names in the certificate (CN, DNS) mean nothing, and a certificate with a second URI is refused. What a role may
// say to a server is a static [Table]; what is not in it is refused. Files of certificates are read again when they
// change, and a change, or the end of a certificate, also counts for connections that are open.
//
// # Receiving
//
// A [Server] receives for any number of sessions at one address. The client asks for a session in the TLS server name
// (<session>.<domain>), so each session keeps its own certificate and authority. [Server.Serve] listens by itself. In a
// service that listens already, the same Server is an http.Handler:
//
//	mux.Handle(endpoint.PathPrefix, server)
//	httpServer.TLSConfig.GetConfigForClient = server.ConfigForClient
//
// # Limits
//
// A body has at most [MaxBody] bytes. Connections that have not logged in have 5 s and a bounded number of places: when
// all are taken, the oldest one gives way, so that silent connections keep nobody out. Each identity has a bounded
// number of connections (a new one replaces the oldest), of messages at a time, and per second. See [Limits].
//
// # Sending
//
// A [Client] sends to one server and keeps its connections. Its errors tell what a host must tell apart:
// [*RefusedError] (the system says that nobody is there), [*TimeoutError] (silence), [*DeniedError] (the other side
// answers, and refuses) and [*CertificateError] (we refuse the other side).
//
// # Streams
//
// Beside messages, two servers can have streams of bytes between them: [Client.Open] gives a net.Conn, and the
// StreamHandler on the other side gets its other end. A stream is a connection of its own at the same address, with the
// same certificates, that HTTP has upgraded, so no message ever waits behind it. Who may open which streams is a static
// table too. The certificate of the other side is verified anew every few seconds for as long as the stream is open.
//
// # Plaintext
//
// With Credentials.Plaintext there is no TLS, and the identity is what a header claims. It works on loopback addresses,
// Unix sockets and in-process pipes only, is refused anywhere else, and is logged as unauthenticated. It is for trying
// things out.
package endpoint
