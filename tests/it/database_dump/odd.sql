CREATE EXTENSION hstore;
CREATE SCHEMA empty;
CREATE SCHEMA "We ird. ""x";
CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);

CREATE TABLE plain (id serial PRIMARY KEY, t text, b bytea, f float8, ts timestamptz, i interval, m money, n numeric, h hstore, p positive);
INSERT INTO plain (t, b, f, ts, i, m, n, h, p)
SELECT 'row ' || g, decode(md5(g::text), 'hex'), 1.0 / g, timestamptz '2020-01-01 00:00+00' + g * interval '1 hour', g * interval '1 day 1 second', g, g / 3.0, 'a=>1', g
FROM generate_series(1, 2000) g;
INSERT INTO plain (t) VALUES (NULL), (''), ('\.'), (E'\\.\n\\.'), (E'a\tb\r\n\\'), ('\N'), ('COPY x FROM stdin;'), (E'\b\f\v'), ('é🦀');
INSERT INTO plain (f) VALUES ('NaN'), ('-Infinity'), (4.9e-324), (0.1);

CREATE TABLE "We ird. ""x"."ta
ble; -- ""y" (id int GENERATED ALWAYS AS IDENTITY, "col, ""z
\" text, twice int GENERATED ALWAYS AS (1 + 1) STORED);
INSERT INTO "We ird. ""x"."ta
ble; -- ""y" ("col, ""z
\") SELECT 'x' FROM generate_series(1, 5);
CREATE TABLE "We ird. ""x"."Größe 🦀" ("naïve" int);
INSERT INTO "We ird. ""x"."Größe 🦀" VALUES (7);
-- Two names that look alike in pg_dump's comments.
CREATE TABLE "a
b" (x int); INSERT INTO "a
b" VALUES (1);
CREATE TABLE "a b" (x int); INSERT INTO "a b" VALUES (2), (3);

CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE only_generated (g int GENERATED ALWAYS AS (1) STORED);
CREATE TABLE no_rows (a int, b text);
CREATE TABLE dropped_column (a int, b int, c int); INSERT INTO dropped_column VALUES (1, 2, 3);
ALTER TABLE dropped_column DROP COLUMN b;
CREATE UNLOGGED TABLE unlogged (a int); INSERT INTO unlogged VALUES (1);
CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3);

CREATE TABLE by_hash (k text, v int, PRIMARY KEY (k)) PARTITION BY HASH (k);
CREATE TABLE by_hash_0 PARTITION OF by_hash FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_hash_1 PARTITION OF by_hash FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO by_hash SELECT 'k' || g, g FROM generate_series(1, 100) g;
CREATE TABLE by_enum (c colour, v int) PARTITION BY LIST (c);
CREATE TABLE by_enum_red PARTITION OF by_enum FOR VALUES IN ('red');
CREATE TABLE by_enum_rest PARTITION OF by_enum DEFAULT PARTITION BY RANGE (v);
CREATE TABLE by_enum_rest_low PARTITION OF by_enum_rest FOR VALUES FROM (MINVALUE) TO (10);
CREATE TABLE by_enum_rest_high PARTITION OF by_enum_rest FOR VALUES FROM (10) TO (MAXVALUE);
INSERT INTO by_enum VALUES ('red', 1), ('green', 5), ('blue', 50);
CREATE TABLE by_range (d date, v int) PARTITION BY RANGE (d);
CREATE TABLE by_range_1 PARTITION OF by_range FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
INSERT INTO by_range SELECT date '2020-02-01' + g, g FROM generate_series(0, 9) g;

CREATE SEQUENCE unused;
CREATE SEQUENCE backwards INCREMENT -1; SELECT nextval('backwards'), nextval('backwards');
CREATE SEQUENCE "odd'; name
" START 42;

CREATE TABLE a_side (id int PRIMARY KEY, b int); CREATE TABLE b_side (id int PRIMARY KEY, a int REFERENCES a_side);
ALTER TABLE a_side ADD FOREIGN KEY (b) REFERENCES b_side DEFERRABLE;
BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO a_side VALUES (1, 1); INSERT INTO b_side VALUES (1, 1); COMMIT;

CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM plain;
CREATE VIEW seen AS SELECT id, t FROM plain;
CREATE FUNCTION body() RETURNS text LANGUAGE sql AS $$
SELECT '
\restrict x
\unrestrict x
' $$;
CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$;
CREATE TRIGGER forbid BEFORE INSERT ON no_rows FOR EACH ROW EXECUTE FUNCTION forbid();
CREATE ROLE reader;
CREATE POLICY own ON plain TO reader USING (true);
GRANT SELECT ON plain TO reader;
CREATE PUBLICATION all_tables FOR ALL TABLES;

SELECT lo_from_bytea(4711, 'hello'), lo_from_bytea(4712, ''), lo_from_bytea(4713, convert_to(repeat('x', 100000), 'UTF8'));
COMMENT ON LARGE OBJECT 4711 IS 'it''s
a comment;';
COMMENT ON DATABASE odd IS 'odd''s';
ALTER DATABASE odd SET TimeZone = 'Asia/Tokyo';
ALTER DATABASE odd SET DateStyle = 'German';
ALTER DATABASE odd SET statement_timeout = '50ms';
ALTER DATABASE odd SET lock_timeout = '1ms';
ALTER DATABASE odd SET idle_in_transaction_session_timeout = '20ms';
SELECT current_setting('server_version_num')::int >= 140000 AS knows_idle_session \gset
\if :knows_idle_session
ALTER DATABASE odd SET idle_session_timeout = '20ms';
\endif
ALTER ROLE reader IN DATABASE odd SET work_mem = '8MB';
