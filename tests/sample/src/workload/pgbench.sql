-- The tables that `pgbench --initialize` makes, of `sample.accounts` accounts, without needing pgbench; and one of bytea and
-- jsonb: a KiB that does not compress beside a document that does, `sample.documents` times.
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
CREATE TABLE pgbench_tellers (tid int NOT NULL, bid int, tbalance int, filler char(84)) WITH (fillfactor = 100);
CREATE TABLE pgbench_accounts (aid int NOT NULL, bid int, abalance int, filler char(84)) WITH (fillfactor = 100);
CREATE TABLE pgbench_branches (bid int NOT NULL, bbalance int, filler char(88)) WITH (fillfactor = 100);
INSERT INTO pgbench_branches (bid, bbalance)
    SELECT bid, 0 FROM generate_series(1, (current_setting('sample.accounts')::int - 1) / 100000 + 1) bid;
INSERT INTO pgbench_tellers (tid, bid, tbalance)
    SELECT tid, (tid - 1) / 10 + 1, 0 FROM generate_series(1, 10 * (SELECT count(*) FROM pgbench_branches)) tid;
INSERT INTO pgbench_accounts (aid, bid, abalance, filler)
    SELECT aid, (aid - 1) / 100000 + 1, 0, '' FROM generate_series(1, current_setting('sample.accounts')::int) aid;
ALTER TABLE pgbench_branches ADD PRIMARY KEY (bid);
ALTER TABLE pgbench_tellers ADD PRIMARY KEY (tid);
ALTER TABLE pgbench_accounts ADD PRIMARY KEY (aid);

CREATE TABLE documents (id bigint NOT NULL, digests bytea NOT NULL, body jsonb NOT NULL);
INSERT INTO documents
    SELECT id,
        (SELECT string_agg(sha256((current_setting('sample.seed') || '/' || id || '/' || n)::bytea), ''::bytea ORDER BY n)
            FROM generate_series(1, 32) n),
        jsonb_build_object('pipeline', 'default/edges-' || id % 97, 'state', 'JOB_SUCCESS', 'datum', md5(id::text),
            'inputs', jsonb_build_array('default/images', 'default/labels'), 'bytes', id * 7919 % 1000003)
    FROM generate_series(1, current_setting('sample.documents')::bigint) id;
ALTER TABLE documents ADD PRIMARY KEY (id);
