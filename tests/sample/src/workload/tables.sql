-- One large table of `sample.rows` rows, with an index besides its primary key, and fifty small ones of an eightieth of
-- that each: about 3 : 2 by size. A row is what Pachyderm's own are: a key, a time, a hash, a document.
CREATE FUNCTION pg_temp.fill(name text, count bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I (id bigint NOT NULL, key text NOT NULL, updated timestamptz NOT NULL, '
        'digest bytea NOT NULL, body jsonb NOT NULL)', name);
    EXECUTE format($insert$
        INSERT INTO %I SELECT id, 'default/edges-' || id %% 997 || '@' || md5(seed || id),
            timestamptz '2025-03-01 08:00:00.25+00' + id * interval '0.100003 second', sha256((seed || id)::bytea),
            jsonb_build_object('path', '/images/' || id %% 365 || '/' || id || '.png', 'state', 'DATUM_SUCCESS',
                'datum', md5('d' || id), 'bytes', id * 7919 %% 1000003, 'tries', id %% 3)
        FROM generate_series(1::bigint, $1) id, concat(current_setting('sample.seed'), %L, '/') seed$insert$, name, name)
        USING count;
    EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (id)', name);
END $$;
SELECT pg_temp.fill('large', current_setting('sample.rows')::bigint);
CREATE INDEX ON large (key);
SELECT pg_temp.fill('small_' || n, current_setting('sample.rows')::bigint / 80) FROM generate_series(1, 50) n;
