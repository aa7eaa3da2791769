-- The main database of a Pachyderm 2.11 cluster, without triggers: those come after the rows (triggers.sql).
CREATE SCHEMA storage;
CREATE SCHEMA license;
CREATE SCHEMA pfs;
CREATE SCHEMA identity;
CREATE SCHEMA auth;
CREATE SCHEMA collections;
CREATE SCHEMA core;

CREATE TABLE public.migrations (
    id bigint PRIMARY KEY,
    name varchar(250) NOT NULL,
    start_time timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    end_time timestamp
);

-- storage: unchanged since 2.0
CREATE TABLE storage.chunk_objects (
    chunk_id bytea NOT NULL,
    gen bigserial NOT NULL,
    uploaded boolean NOT NULL DEFAULT false,
    tombstone boolean NOT NULL DEFAULT false,
    size int8 NOT NULL,
    created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (chunk_id, gen)
);
CREATE TABLE storage.keys (
    name varchar(128) PRIMARY KEY,
    data bytea NOT NULL
);
CREATE TABLE storage.filesets (
    id uuid PRIMARY KEY,
    metadata_pb bytea NOT NULL,
    created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE storage.tracker_objects (
    int_id bigserial PRIMARY KEY,
    str_id varchar(4096) UNIQUE,
    created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamp
);
CREATE TABLE storage.tracker_refs (
    from_id int8 NOT NULL,
    to_id int8 NOT NULL,
    PRIMARY KEY (from_id, to_id)
);
CREATE INDEX ON storage.tracker_refs (to_id, from_id);
CREATE TABLE storage.cache (
    key text PRIMARY KEY,
    value_pb bytea NOT NULL,
    ids uuid[] NOT NULL,
    accessed_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    tag text
);
CREATE INDEX ON storage.cache (accessed_at);
CREATE INDEX ON storage.cache (tag);

-- auth, identity, license
CREATE TABLE auth.principals (
    subject varchar(128) PRIMARY KEY,
    first_seen timestamp NOT NULL,
    CONSTRAINT auth_principals_subject_not_blank CHECK (subject <> '')
);
CREATE TABLE auth.auth_tokens (
    token_hash varchar(4096) PRIMARY KEY,
    subject varchar(128) NOT NULL REFERENCES auth.principals (subject),
    expiration timestamp,
    created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX subject_index ON auth.auth_tokens (subject);
CREATE TABLE identity.users (
    email varchar(4096) PRIMARY KEY,
    last_authenticated timestamp,
    enabled boolean
);
CREATE TABLE identity.config (
    id int PRIMARY KEY,
    issuer varchar(4096),
    id_token_expiry varchar(4096),
    rotation_token_expiry varchar(4096)
);
CREATE TABLE license.clusters (
    id varchar(4096) PRIMARY KEY,
    address varchar(4096) NOT NULL,
    secret varchar(64) NOT NULL,
    version varchar(64) NOT NULL,
    auth_enabled boolean NOT NULL,
    last_heartbeat timestamp,
    created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    cluster_deployment_id varchar(4096),
    user_address varchar(4096),
    is_enterprise_server boolean,
    client_id varchar(4096)
);

-- core and pfs
CREATE TABLE core.cluster_metadata (
    onlyonerow boolean PRIMARY KEY DEFAULT true CONSTRAINT onlyonerow CHECK (onlyonerow = true),
    metadata jsonb NOT NULL DEFAULT '{}'
);
CREATE TABLE core.projects (
    id bigserial PRIMARY KEY,
    name varchar(51) NOT NULL UNIQUE,
    description text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created_by text REFERENCES auth.principals (subject)
);
CREATE TYPE pfs.repo_type AS ENUM ('unknown', 'user', 'meta', 'spec');
CREATE TYPE pfs.commit_origin AS ENUM ('ORIGIN_KIND_UNKNOWN', 'USER', 'AUTO', 'FSCK');
CREATE TABLE pfs.repos (
    id bigserial PRIMARY KEY,
    name text NOT NULL,
    type pfs.repo_type NOT NULL,
    project_id bigint NOT NULL REFERENCES core.projects (id),
    description text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    UNIQUE (name, project_id, type)
);
CREATE INDEX name_type_idx ON pfs.repos (name, type);
CREATE TABLE pfs.commits (
    int_id bigserial PRIMARY KEY,
    commit_id varchar(4096) UNIQUE,
    commit_set_id varchar(4096) NOT NULL,
    created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    repo_id bigint REFERENCES pfs.repos (id) ON DELETE CASCADE,
    origin pfs.commit_origin,
    description text NOT NULL DEFAULT '',
    start_time timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    finishing_time timestamptz,
    finished_time timestamptz,
    compacting_time_s bigint,
    validating_time_s bigint,
    error text,
    size bigint,
    updated_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    branch_id bigint,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    total_fileset_id uuid REFERENCES storage.filesets (id),
    created_by text REFERENCES auth.principals (subject)
);
CREATE TABLE pfs.commit_ancestry (
    parent bigint NOT NULL REFERENCES pfs.commits (int_id) ON DELETE CASCADE,
    child bigint NOT NULL REFERENCES pfs.commits (int_id) ON DELETE CASCADE,
    PRIMARY KEY (parent, child),
    CHECK (parent <> child)
);
CREATE INDEX ON pfs.commit_ancestry (child, parent);
CREATE TABLE pfs.commit_diffs (
    num bigserial NOT NULL,
    fileset_id uuid NOT NULL,
    commit_int_id bigint NOT NULL REFERENCES pfs.commits (int_id) ON DELETE CASCADE,
    PRIMARY KEY (commit_int_id, num)
);
CREATE TABLE pfs.commit_provenance (
    from_id bigserial NOT NULL CONSTRAINT fk_from_commit REFERENCES pfs.commits (int_id) ON DELETE CASCADE,
    to_id bigserial NOT NULL CONSTRAINT fk_to_commit REFERENCES pfs.commits (int_id) ON DELETE CASCADE,
    PRIMARY KEY (from_id, to_id)
);
ALTER TABLE pfs.commit_provenance ALTER from_id DROP DEFAULT, ALTER to_id DROP DEFAULT;
ALTER TABLE pfs.commit_provenance
    ALTER from_id SET DEFAULT nextval('pfs.commit_provenance_from_id_seq'),
    ALTER to_id SET DEFAULT nextval('pfs.commit_provenance_to_id_seq');
CREATE INDEX ON pfs.commit_provenance (from_id);
CREATE INDEX ON pfs.commit_provenance (to_id);
CREATE TABLE pfs.branches (
    id bigserial PRIMARY KEY,
    name text NOT NULL,
    head bigint NOT NULL REFERENCES pfs.commits (int_id),
    repo_id bigint NOT NULL REFERENCES pfs.repos (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created_by text REFERENCES auth.principals (subject),
    UNIQUE (repo_id, name)
);
CREATE TABLE pfs.branch_provenance (
    from_id bigint NOT NULL REFERENCES pfs.branches (id),
    to_id bigint NOT NULL REFERENCES pfs.branches (id),
    PRIMARY KEY (from_id, to_id),
    CHECK (from_id <> to_id)
);
CREATE INDEX ON pfs.branch_provenance (to_id);
CREATE TABLE pfs.branch_triggers (
    from_branch_id bigint PRIMARY KEY REFERENCES pfs.branches (id),
    to_branch_id bigint NOT NULL REFERENCES pfs.branches (id),
    cron_spec text,
    rate_limit_spec text,
    size text,
    num_commits bigint,
    all_conditions boolean,
    CHECK (from_branch_id <> to_branch_id)
);
CREATE INDEX ON pfs.branch_triggers (to_branch_id);

-- collections: one shape, with or without index columns; those renamed in 2.8 keep the names of their keys
CREATE TABLE collections.large_notifications (
    id serial NOT NULL,
    createdat timestamptz DEFAULT CURRENT_TIMESTAMP,
    proto bytea
);
CREATE INDEX ON collections.large_notifications (createdat);
DO $$
DECLARE
    shape record;
    field text;
BEGIN
    FOR shape IN SELECT * FROM (VALUES
        ('pipelines', '{version,name}'::text[]), ('jobs', '{pipeline,job_state,jobset}'),
        ('repos', '{name,type}'), ('commits', '{repo,branchless,commitset}'), ('branches', '{repo}'),
        ('projects', '{}'), ('transactions', '{}'), ('auth_config', '{}'), ('role_bindings', '{}'),
        ('members', '{}'), ('groups', '{}'), ('license', '{}'), ('enterpriseconfig', '{}'),
        ('cluster_defaults', '{}'), ('project_defaults', '{}')) AS s (name, fields)
    LOOP
        EXECUTE format('CREATE TABLE collections.%I (createdat timestamptz DEFAULT CURRENT_TIMESTAMP,'
            ' updatedat timestamptz DEFAULT CURRENT_TIMESTAMP, proto bytea, version text, key text PRIMARY KEY)', shape.name);
        FOREACH field IN ARRAY shape.fields LOOP
            EXECUTE format('ALTER TABLE collections.%I ADD %I text', shape.name, 'idx_' || field);
            EXECUTE format('CREATE INDEX %I ON collections.%I (%I)',
                shape.name || '_idx_' || field || '_idx', shape.name, 'idx_' || field);
        END LOOP;
    END LOOP;
END $$;
CREATE UNIQUE INDEX pip_version_idx ON collections.pipelines (idx_version);
CREATE TABLE collections.pre_2_10_pipelines AS TABLE collections.pipelines;
CREATE TABLE collections.pre_2_10_jobs AS TABLE collections.jobs;
ALTER TABLE collections.repos RENAME TO repos_deprecated;
ALTER TABLE collections.commits RENAME TO commits_deprecated;
ALTER TABLE collections.branches RENAME TO branches_deprecated;
ALTER TABLE collections.projects RENAME TO projects_deprecated;
