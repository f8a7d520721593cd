-- Whatever a schema can hold and a copy can get wrong. Rows come after the definitions.
CREATE SCHEMA "Sche""ma; DROP SCHEMA public; --";
CREATE SCHEMA "select";
CREATE EXTENSION citext;
CREATE EXTENSION hstore WITH SCHEMA "select";
CREATE EXTENSION pg_trgm;

CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'happy');
ALTER TYPE mood ADD VALUE 'wild' BEFORE 'sad';
CREATE DOMAIN "select".positive AS integer DEFAULT 1 CHECK (VALUE > 0);
CREATE DOMAIN moods AS mood[] CHECK (array_length(VALUE, 1) < 9);
CREATE TYPE pair AS (a integer, "B b" text, m mood);
CREATE TYPE nested AS (p pair, ps pair[]);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE COLLATION "my C" FROM "C";

CREATE TABLE "Sche""ma; DROP SCHEMA public; --"."x""; DROP TABLE y; --" (
	"id $1" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	"co""l'umn" text COLLATE "my C" NOT NULL DEFAULT 'it''s; $$ "d"',
	"SELECT" mood, "ünïcödé_ünïcödé_ünïcödé_ünïcödé_ünïcö" moods,
	"with" integer GENERATED ALWAYS AS (length("co""l'umn")) STORED);
CREATE TABLE every_type (
	id serial PRIMARY KEY,
	b boolean, i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric, m money, t text, v varchar(20), c char(5),
	y bytea, d date, ti time, tz timetz, ts timestamp, tsz timestamptz, iv interval, u uuid, j json, jb jsonb, x xml,
	pt point, pg polygon, inet inet, mac macaddr8, bi bit(5), vb varbit, tsv tsvector, tsq tsquery, lsn pg_lsn,
	ia integer[], ta text[][], r int4range, mr int4multirange, sp span, msp span_multirange,
	ci citext, hs "select".hstore, pr pair, prs pair[], ne nested, mo mood, mos mood[], po "select".positive, cls regclass,
	tl text COLLATE "C", acl aclitem[]);
CREATE TABLE U&"new\000aline; DROP TABLE public.empty_table; --\000a\005c! false" (id integer PRIMARY KEY);
CREATE TABLE no_columns ();
ALTER TABLE no_columns REPLICA IDENTITY FULL;
CREATE TABLE only_generated (g integer GENERATED ALWAYS AS (42) STORED);
ALTER TABLE only_generated REPLICA IDENTITY FULL;
CREATE TABLE empty_table (id integer PRIMARY KEY, dropped text, v text);
ALTER TABLE empty_table DROP COLUMN dropped;

CREATE TABLE part (id bigint, region text, at timestamptz DEFAULT '2024-01-01', PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE part_n PARTITION OF part FOR VALUES IN ('north') PARTITION BY RANGE (id);
CREATE TABLE part_n_1 PARTITION OF part_n FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE "select".part_n_2 (region text, at timestamptz, id bigint NOT NULL, extra integer);
ALTER TABLE "select".part_n_2 DROP COLUMN extra;
ALTER TABLE "select".part_n_2 ALTER region SET NOT NULL;
ALTER TABLE part_n ATTACH PARTITION "select".part_n_2 FOR VALUES FROM (100) TO (MAXVALUE);
CREATE TABLE part_rest PARTITION OF part DEFAULT;
CREATE INDEX part_at ON part (at);

CREATE TABLE parent (id integer PRIMARY KEY, v text);
CREATE TABLE child (extra text, PRIMARY KEY (id)) INHERITS (parent);

CREATE TABLE hen (id integer PRIMARY KEY, egg integer NOT NULL);
CREATE TABLE egg (id integer PRIMARY KEY, hen integer NOT NULL REFERENCES hen DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE tree (id integer PRIMARY KEY, parent integer REFERENCES tree ON DELETE CASCADE, label text UNIQUE,
	EXCLUDE USING btree (label WITH =));
ALTER TABLE tree ADD CONSTRAINT later CHECK (id < 5) NOT VALID;

CREATE SEQUENCE "odd seq" INCREMENT -7 MINVALUE -1000 MAXVALUE 500 START 500 CACHE 3;
CREATE TABLE uses_seq (id integer PRIMARY KEY DEFAULT nextval('"odd seq"'), v text);

CREATE FUNCTION sql_body(integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC
	SELECT CASE WHEN $1 > 0 THEN 1 ELSE 2 END; SELECT $1 + 1; END;
CREATE FUNCTION plain(text DEFAULT 'a;b') RETURNS text LANGUAGE plpgsql IMMUTABLE AS $f$
BEGIN /* ; */ RETURN upper($1) || ';' || '$$'; END $f$;
CREATE PROCEDURE proc(INOUT a integer) LANGUAGE sql AS 'SELECT a + 1;';
CREATE AGGREGATE total(integer) (sfunc = int4pl, stype = integer, initcond = '0');
CREATE INDEX plain_index ON parent (plain(v));
CREATE UNIQUE INDEX partial ON child (extra) WHERE extra IS NOT NULL;
CREATE INDEX trigram ON tree USING gin (label gin_trgm_ops);

CREATE TABLE fired (id serial PRIMARY KEY, who text);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.fired (who) VALUES (TG_NAME); RETURN NEW; END $$;
CREATE TRIGGER "fi;re" AFTER INSERT ON parent FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER always AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION fire();
ALTER TABLE child ENABLE ALWAYS TRIGGER always;
CREATE VIEW v AS SELECT id, plain(v) AS p FROM parent;
CREATE RULE v_insert AS ON INSERT TO v DO INSTEAD (INSERT INTO fired (who) VALUES ('rule;'); UPDATE fired SET who = who);
CREATE MATERIALIZED VIEW a_on_b AS SELECT 1 AS one;
CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM parent;
CREATE UNIQUE INDEX mv_n ON mv (n);
CREATE MATERIALIZED VIEW mv_of_mv AS SELECT n + 1 AS n FROM mv;
CREATE MATERIALIZED VIEW mv_unfilled AS SELECT 1 AS n WITH NO DATA;
CREATE STATISTICS st ON id, v FROM parent;

CREATE TABLE guarded (id integer PRIMARY KEY, owner name DEFAULT current_user);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON guarded TO "Owner ""quoted""" USING (owner = current_user) WITH CHECK (owner <> ';');
ALTER TABLE guarded OWNER TO "Owner ""quoted""";
GRANT SELECT ON parent TO PUBLIC;
GRANT INSERT (v) ON parent TO "Owner ""quoted""";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO "Owner ""quoted""";
COMMENT ON TABLE parent IS E'semi; colon\nand ''quote'' and \\ backslash';
CREATE UNLOGGED TABLE fleeting (id integer PRIMARY KEY);
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE away (id integer) SERVER far;
CREATE TABLE big (id integer PRIMARY KEY, filler text, wide text);
ALTER TABLE big ALTER wide SET STORAGE EXTERNAL;
CREATE FUNCTION note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION note_ddl();

INSERT INTO "Sche""ma; DROP SCHEMA public; --"."x""; DROP TABLE y; --" ("co""l'umn", "SELECT", "ünïcödé_ünïcödé_ünïcödé_ünïcödé_ünïcö")
	VALUES ('a', 'it''s "ok"', '{wild,"it''s \"ok\""}'), (E'tab\tnewline\nback\\slash', NULL, '{}');
INSERT INTO "Sche""ma; DROP SCHEMA public; --"."x""; DROP TABLE y; --" VALUES (DEFAULT, DEFAULT);
INSERT INTO every_type VALUES (DEFAULT, true, -32768, 9223372036854775807, '-0', 'NaN', 1e-300, 12.34, E'\u00fc\n', 'v', 'c',
	'\x00ff', '4713-01-01 BC', '24:00', '12:00+05:30', '-infinity', 'infinity', '-1 mon +2 days -00:00:00.000001',
	'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a" :  1}', '{"b": [1.10, null]}', '<a>x</a> text', '(1e-17,2)',
	'((0,0),(1,1),(2,0))', '::1/64', '08:00:2b:01:02:03:04:05', '10101', '1', 'a:1A b', 'a & !b', '16/B374D848',
	'[0:1]={1,NULL}', '{{a,"b,c"},{NULL,""}}', '[1,5)', '{[1,2),[7,9)}', '[0.1,0.30000000000000004]', '{[1,2]}', 'CiText',
	'a=>1, "b c"=>NULL', '(1,"x ""y""",happy)', ARRAY['(1,,)'::pair, NULL], ROW('(1,a,sad)'::pair, ARRAY['(2,b,wild)'::pair]), 'happy',
	'{happy,NULL}', 7, 'parent', 'coll', '{=r/postgres}');
INSERT INTO every_type (t) VALUES (NULL), ('');
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO only_generated DEFAULT VALUES;
INSERT INTO part SELECT g, CASE g % 3 WHEN 0 THEN 'north' WHEN 1 THEN 'south' ELSE 'north' END FROM generate_series(1, 300) g;
INSERT INTO parent VALUES (1, 'p;'), (2, NULL);
INSERT INTO child VALUES (3, 'c', 'x');
BEGIN; INSERT INTO hen VALUES (1, 2), (3, 4); INSERT INTO egg VALUES (2, 1), (4, 3); COMMIT;
INSERT INTO tree VALUES (1, NULL, 'root'), (2, 1, 'leaf'), (3, 2, 'twig');
INSERT INTO uses_seq (v) VALUES ('a'), ('b');
INSERT INTO guarded VALUES (1, 'somebody'), (2, 'nobody');
INSERT INTO fleeting VALUES (1);
INSERT INTO big SELECT g, repeat('x', 50), CASE WHEN g % 500 = 0 THEN repeat(md5(g::text), 200) END FROM generate_series(1, 20000) g;
DELETE FROM big WHERE id % 7 = 0;
REFRESH MATERIALIZED VIEW mv;
REFRESH MATERIALIZED VIEW mv_of_mv;
