// Package tunnel lets a program reach a PostgreSQL server through a stream to somebody beside that server. It is for a
// mirror whose network does not lead to the principal's server: everything that it would ask of that server, log
// included, goes by the connection between the two partners.
//
//	program -- Unix socket --> Entrance ==== stream ====> Exit -- the server's own address --> PostgreSQL
//
// An [Entrance] is a Unix socket in a directory of the user's own. Whatever connects there, pgx, pg_dump or a cancel
// request, has a stream of its own to the other side, where [Exit] connects it to one server, always the same: where
// a connection goes is not for the caller to say. The tunnel reads nothing of what it carries. When there is no way
// through it answers in PostgreSQL's protocol, with [CodeNoWay], so that the program shows the cause.
//
// Bytes are passed on as they come and in order. The end of one direction is passed on as well; an error on either side
// ends both.
package tunnel
