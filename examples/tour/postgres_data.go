package main

// makeRole is run on both servers: roles are the server's, not the database's, so they are not mirrored. The clients are
// an ordinary user: a superuser would get in where the gate is closed.
const makeRole = `CREATE ROLE clients LOGIN; GRANT CREATE ON SCHEMA public TO clients`

// makeTables is what the clients have before mirroring begins. Table payment has no key on purpose: nothing but the
// mirroring itself keeps a row from being there twice.
const makeTables = `
	CREATE SEQUENCE ticket;
	CREATE TABLE account (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner text NOT NULL, balance bigint NOT NULL DEFAULT 0);
	CREATE TABLE payment (client int NOT NULL, number bigint NOT NULL, ticket bigint NOT NULL DEFAULT nextval('ticket'),
		account bigint NOT NULL REFERENCES account, amount int NOT NULL, paid timestamptz NOT NULL DEFAULT now());
	ALTER TABLE payment REPLICA IDENTITY FULL;
	CREATE TABLE article (code text PRIMARY KEY, price numeric(10, 2), attributes jsonb, picture bytea, tags text[]);
	CREATE TABLE visit (day date, page text, visits int, PRIMARY KEY (day, page)) PARTITION BY RANGE (day);
	CREATE TABLE visit_2025 PARTITION OF visit FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
	CREATE TABLE visit_2026 PARTITION OF visit FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
	INSERT INTO account (owner) SELECT 'owner ' || i FROM generate_series(1, 1000) i;
	INSERT INTO article SELECT 'A' || i, i * 1.07, jsonb_build_object('weight', i % 17, 'colour', CASE WHEN i % 3 > 0 THEN 'red' END),
		sha256(i::text::bytea), ARRAY['tag ' || i % 5, 'ä "quoted" tag'] FROM generate_series(1, 3000) i;
	INSERT INTO visit SELECT date '2025-11-01' + i / 40, '/page/' || i % 40, i FROM generate_series(0, 3999) i`
