-- Everything that hangs on the chunks, from `storage.chunk_objects` as it has been filled. Nothing depends on the clock or
-- on chance but the setting `sample.seed`.
SET standard_conforming_strings = on;
CREATE FUNCTION pg_temp.hex(kind text, n bigint) RETURNS text LANGUAGE sql AS
    $$ SELECT md5(kind || '/' || n || '/' || current_setting('sample.seed')) $$;
CREATE FUNCTION pg_temp.at(n bigint) RETURNS timestamp LANGUAGE sql AS
    $$ SELECT timestamp '2025-03-01 08:00:00.25' + n * interval '1.000003 second' $$;

INSERT INTO public.migrations
    SELECT n - 1, name, pg_temp.at(n), pg_temp.at(n) FROM unnest(ARRAY[
        'init', 'create storage schema', 'storage tracker v0', 'storage chunk store v0', 'storage fileset store v0',
        'create license schema', 'license clusters v0', 'create pfs schema', 'pfs commit store v0',
        'create identity schema', 'create identity users table v0', 'create identity config table v0',
        'create auth schema', 'create auth tokens table v0', 'license clusters v1', 'create collections schema',
        'create collections trigger functions', 'create collections', 'license clusters client_id column',
        'identity config token lifetime', 'create license collection',
        'add rotation_token_expiry to identity.config table', 'move enterpriseconfig from etcd -> postgres',
        'remove old enterpriseconfig record from etcd', 'create pfs cache v1',
        'add internal auth user as a cluster admin', 'add projects collection', 'add default project',
        'rename default project to “default”', 'lengthen auth token column length for projects',
        'grant all users projectwriter role for the default project', 'validate existing dags',
        'add commit_provenance table', 'remove alias commits', 'remove branch from the commit key',
        'add foreign key constraints on pfs.commits.commit_id -> collections.commits.key', 'create cluster defaults',
        'create core schema', 'create core.projects table', 'migrate collections.projects to core.projects',
        'create pfs schema', 'migrate collections.repos to pfs.repos', 'migrate collections.branches to pfs.branches',
        'migrate collections.commits to pfs.commits', 'synthesize cluster defaults from environment variables',
        'synthesize user and effective specs from their pipeline details', 'create project defaults',
        'rename migrated collections tables', 'add metadata to projects', 'add metadata to commits',
        'add metadata to branches', 'add metadata to repos', 'add cluster metadata table',
        'fix duplicate pipeline versions', 'normalize commit totals', 'normalize commit diffs',
        'add auth principals table', 'add project created_by', 'add commit created_by', 'add branch created_by'
    ]) WITH ORDINALITY AS m (name, n);

INSERT INTO storage.keys VALUES ('default', decode(pg_temp.hex('key', 1) || pg_temp.hex('key', 2), 'hex'));
SELECT setval('storage.chunk_objects_gen_seq', (SELECT coalesce(max(gen), 0) + 7 FROM storage.chunk_objects));

-- A file set holds eight chunks. What is tombstoned has left the tracker already; what is not yet uploaded has not
-- reached a file set.
CREATE TEMPORARY TABLE member ON COMMIT DROP AS
    SELECT chunk_id, (row_number() OVER (ORDER BY min(gen)) - 1) / 8 + 1 AS fileset
    FROM storage.chunk_objects WHERE uploaded AND NOT tombstone GROUP BY chunk_id;
INSERT INTO storage.tracker_objects (str_id, created_at, expires_at)
    SELECT 'chunk/' || encode(chunk_id, 'hex'), min(created_at), min(created_at) + interval '30 minutes'
    FROM storage.chunk_objects WHERE NOT tombstone GROUP BY chunk_id ORDER BY min(gen);
INSERT INTO storage.filesets
    SELECT pg_temp.hex('fileset', n)::uuid, decode('0a20' || repeat(pg_temp.hex('index', n), 2 + (n % 9)::int), 'hex'), pg_temp.at(n)
    FROM generate_series(1, (SELECT max(fileset) FROM member)) n;
INSERT INTO storage.tracker_objects (str_id, created_at, expires_at)
    SELECT 'fileset/' || pg_temp.hex('fileset', n), pg_temp.at(n), pg_temp.at(n) + interval '30 minutes'
    FROM generate_series(1, (SELECT max(fileset) FROM member)) n;
INSERT INTO storage.tracker_refs
    SELECT f.int_id, c.int_id FROM member m
    JOIN storage.tracker_objects f ON f.str_id = 'fileset/' || pg_temp.hex('fileset', m.fileset)
    JOIN storage.tracker_objects c ON c.str_id = 'chunk/' || encode(m.chunk_id, 'hex')
    ORDER BY 1, 2;
INSERT INTO storage.cache
    SELECT 'datum/' || pg_temp.hex('cache', n), decode(pg_temp.hex('value', n), 'hex'),
        ARRAY[pg_temp.hex('fileset', n)::uuid, pg_temp.hex('fileset', 1)::uuid], pg_temp.at(n), CASE WHEN n > 1 THEN 'job' END
    FROM generate_series(1, 3) n;

-- People
INSERT INTO auth.principals VALUES ('robot:ci', pg_temp.at(1)), ('pach:root', pg_temp.at(0)), ('user:zoë@example.com', pg_temp.at(2));
INSERT INTO auth.auth_tokens
    SELECT pg_temp.hex('token', n) || pg_temp.hex('token', -n), CASE WHEN n % 2 = 0 THEN 'robot:ci' ELSE 'pach:root' END,
        CASE WHEN n > 1 THEN pg_temp.at(n) + interval '10 years' END, pg_temp.at(n)
    FROM generate_series(1, 5) n;
INSERT INTO identity.config VALUES (1, 'http://localhost:30658/dex', '24h', '48h');
INSERT INTO identity.users VALUES ('zoë@example.com', pg_temp.at(3), true), ('nobody@example.com', NULL, false);

-- Projects, repositories, commits: commit n belongs to one repository and has one file set
INSERT INTO core.cluster_metadata VALUES (true, '{"site": "sample", "größe": "klein"}');
INSERT INTO core.projects (name, description, created_at, updated_at, metadata, created_by) VALUES
    ('default', '', pg_temp.at(0), pg_temp.at(0), '{}', NULL),
    ('weather-lab', 'Messwerte ☂ "quoted" \ backslash', pg_temp.at(1), pg_temp.at(9), '{"team": "α"}', 'user:zoë@example.com'),
    ('genome_2', E'tab\tnewline\nend', pg_temp.at(2), pg_temp.at(2), '{}', 'robot:ci');
INSERT INTO pfs.repos (name, type, project_id, description, created_at, updated_at)
    SELECT 'repo-' || n, (ARRAY['user', 'user', 'spec', 'meta'])[n % 4 + 1]::pfs.repo_type, n % 3 + 1,
        CASE WHEN n % 5 = 0 THEN E'\\N is not null\t' ELSE '' END, pg_temp.at(n), pg_temp.at(n)
    FROM generate_series(1, (SELECT greatest(1, least(50, max(fileset) / 4)) FROM member)) n;
INSERT INTO pfs.commits (commit_id, commit_set_id, created_at, repo_id, origin, description, start_time, finishing_time,
        finished_time, compacting_time_s, validating_time_s, error, size, updated_at, metadata, total_fileset_id, created_by)
    SELECT p.name || '/' || r.name || '@' || pg_temp.hex('commit', n), pg_temp.hex('commit', n), pg_temp.at(n), r.id,
        (ARRAY['USER', 'AUTO', 'FSCK'])[n % 3 + 1]::pfs.commit_origin, '', pg_temp.at(n), pg_temp.at(n + 1), pg_temp.at(n + 2),
        0, n % 2, CASE WHEN n % 2 = 0 THEN '' END, n * 1000, pg_temp.at(n + 2), '{}', pg_temp.hex('fileset', n)::uuid,
        CASE WHEN n % 4 = 0 THEN 'robot:ci' END
    FROM generate_series(1, (SELECT max(fileset) FROM member)) n
    JOIN pfs.repos r ON r.id = (n - 1) % (SELECT count(*) FROM pfs.repos) + 1
    JOIN core.projects p ON p.id = r.project_id
    ORDER BY n;
INSERT INTO pfs.commit_ancestry
    SELECT * FROM (SELECT lag(int_id) OVER (PARTITION BY repo_id ORDER BY int_id) AS parent, int_id FROM pfs.commits) a
    WHERE parent IS NOT NULL ORDER BY int_id;
INSERT INTO pfs.commit_diffs (fileset_id, commit_int_id) SELECT total_fileset_id, int_id FROM pfs.commits ORDER BY int_id;
INSERT INTO pfs.commit_provenance SELECT int_id, int_id - 1 FROM pfs.commits WHERE int_id % 3 = 0;
INSERT INTO pfs.branches (name, head, repo_id, created_at, updated_at)
    SELECT 'master', max(int_id), repo_id, pg_temp.at(repo_id), pg_temp.at(repo_id) FROM pfs.commits GROUP BY repo_id ORDER BY repo_id;
INSERT INTO pfs.branches (name, head, repo_id, created_at, updated_at, metadata)
    SELECT 'v1', min(int_id), repo_id, pg_temp.at(repo_id), pg_temp.at(repo_id), '{"frozen": true}'
    FROM pfs.commits WHERE repo_id % 2 = 0 GROUP BY repo_id ORDER BY repo_id;
INSERT INTO pfs.branch_provenance
    SELECT b.id, a.id FROM pfs.branches a JOIN pfs.branches b ON b.repo_id = a.repo_id + 1 AND a.name = 'master' AND b.name = 'master';
INSERT INTO pfs.branch_triggers
    SELECT v.id, m.id, '', '', '1Mi', 3, false FROM pfs.branches v
    JOIN pfs.branches m ON m.repo_id = v.repo_id AND m.name = 'master' WHERE v.name = 'v1';

-- The commits hold their file sets
INSERT INTO storage.tracker_objects (str_id, created_at)
    SELECT 'commit/' || int_id || '/' || use || '/' || replace(total_fileset_id::text, '-', ''), created_at
    FROM pfs.commits, unnest(ARRAY['diff', 'total']) use ORDER BY int_id, use;
INSERT INTO storage.tracker_refs
    SELECT o.int_id, f.int_id FROM storage.tracker_objects o
    JOIN storage.tracker_objects f ON f.str_id = 'fileset/' || split_part(o.str_id, '/', 4)
    WHERE o.str_id LIKE 'commit/%' ORDER BY 1, 2;

-- Collections
INSERT INTO collections.pipelines (createdat, updatedat, proto, version, key, idx_version, idx_name)
    SELECT pg_temp.at(n), pg_temp.at(n), decode(repeat(pg_temp.hex('pipeline', n), 40), 'hex'), 'v2', 'default/edges@' || pg_temp.hex('spec', n),
        'default/edges@' || n, 'default/edges'
    FROM generate_series(1, 4) n;
INSERT INTO collections.pre_2_10_pipelines SELECT * FROM collections.pipelines WHERE idx_version LIKE '%@1';
INSERT INTO collections.role_bindings (createdat, updatedat, proto, version, key) VALUES
    (pg_temp.at(1), pg_temp.at(1), '\x0a00', 'v1', 'CLUSTER:'),
    (pg_temp.at(1), pg_temp.at(1), NULL, NULL, E'PROJECT:tab\tand \\ backslash');
INSERT INTO collections.auth_config (createdat, updatedat, proto, version, key) VALUES (pg_temp.at(1), pg_temp.at(1), '\x', '', '1');
INSERT INTO collections.cluster_defaults (createdat, updatedat, proto, version, key) VALUES (pg_temp.at(1), pg_temp.at(1), '\x0a027b7d', 'v1', '');
INSERT INTO collections.projects_deprecated (createdat, updatedat, proto, version, key) VALUES (pg_temp.at(1), pg_temp.at(1), '\x', 'v1', 'default');
