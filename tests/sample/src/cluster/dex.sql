-- The identity database, as Dex makes it, with a few rows.
CREATE TABLE public.migrations (num integer NOT NULL, at timestamptz NOT NULL);
CREATE TABLE public.client (
    id text PRIMARY KEY, secret text NOT NULL, redirect_uris bytea NOT NULL, trusted_peers bytea NOT NULL,
    public boolean NOT NULL, name text NOT NULL, logo_url text NOT NULL
);
CREATE TABLE public.connector (
    id text PRIMARY KEY, type text NOT NULL, name text NOT NULL, resource_version text NOT NULL, config bytea
);
CREATE TABLE public.password (
    email text PRIMARY KEY, hash bytea NOT NULL, username text NOT NULL, user_id text NOT NULL
);
CREATE TABLE public.keys (
    id text PRIMARY KEY, verification_keys bytea NOT NULL, signing_key bytea NOT NULL, signing_key_pub bytea NOT NULL,
    next_rotation timestamptz NOT NULL
);
CREATE TABLE public.offline_session (
    user_id text NOT NULL, conn_id text NOT NULL, refresh bytea NOT NULL, connector_data bytea,
    PRIMARY KEY (user_id, conn_id)
);
CREATE TABLE public.refresh_token (
    id text PRIMARY KEY, client_id text NOT NULL, scopes bytea NOT NULL, nonce text NOT NULL,
    claims_user_id text NOT NULL, claims_username text NOT NULL, claims_email text NOT NULL,
    claims_email_verified boolean NOT NULL, claims_groups bytea NOT NULL, connector_id text NOT NULL,
    connector_data bytea, token text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT '0001-01-01 00:00:00+00',
    last_used timestamptz NOT NULL DEFAULT '0001-01-01 00:00:00+00',
    claims_preferred_username text NOT NULL DEFAULT '', obsolete_token text DEFAULT ''
);
CREATE TABLE public.auth_code (
    id text PRIMARY KEY, client_id text NOT NULL, scopes bytea NOT NULL, nonce text NOT NULL, redirect_uri text NOT NULL,
    claims_user_id text NOT NULL, claims_username text NOT NULL, claims_email text NOT NULL,
    claims_email_verified boolean NOT NULL, claims_groups bytea NOT NULL, connector_id text NOT NULL,
    connector_data bytea, expiry timestamptz NOT NULL, claims_preferred_username text NOT NULL DEFAULT '',
    code_challenge text NOT NULL DEFAULT '', code_challenge_method text NOT NULL DEFAULT ''
);
CREATE TABLE public.auth_request (
    id text PRIMARY KEY, client_id text NOT NULL, response_types bytea NOT NULL, scopes bytea NOT NULL,
    redirect_uri text NOT NULL, nonce text NOT NULL, state text NOT NULL, force_approval_prompt boolean NOT NULL,
    logged_in boolean NOT NULL, claims_user_id text NOT NULL, claims_username text NOT NULL, claims_email text NOT NULL,
    claims_email_verified boolean NOT NULL, claims_groups bytea NOT NULL, connector_id text NOT NULL,
    connector_data bytea, expiry timestamptz NOT NULL, claims_preferred_username text NOT NULL DEFAULT '',
    code_challenge text NOT NULL DEFAULT '', code_challenge_method text NOT NULL DEFAULT '', hmac_key bytea
);
CREATE TABLE public.device_request (
    user_code text PRIMARY KEY, device_code text NOT NULL, client_id text NOT NULL, client_secret text,
    scopes bytea NOT NULL, expiry timestamptz NOT NULL
);
CREATE TABLE public.device_token (
    device_code text PRIMARY KEY, status text NOT NULL, token bytea, expiry timestamptz NOT NULL,
    last_request timestamptz NOT NULL, poll_interval integer NOT NULL,
    code_challenge text NOT NULL DEFAULT '', code_challenge_method text NOT NULL DEFAULT ''
);

INSERT INTO public.migrations SELECT n, '2025-03-01 08:00:00Z' FROM generate_series(1, 11) n;
INSERT INTO public.client VALUES
    ('pachd', 'sample-secret', '["http://localhost:30657/authorization-code/callback"]', 'null', false, 'pachd', ''),
    ('console', 'sample-secret', '["http://localhost:4000/oauth/callback"]', '["pachd"]', false, 'Console', '');
INSERT INTO public.connector VALUES ('mock', 'mockPassword', 'Mock', '1', '{"username":"admin","password":"sample"}');
INSERT INTO public.password
    SELECT format('user%s@example.com', n), decode(md5('hash' || n), 'hex'), 'Zoë ' || n, md5('user' || n)
    FROM generate_series(1, 5) n;
INSERT INTO public.keys VALUES
    ('openid-connect-keys', '[]', decode(md5('signing'), 'hex'), decode(md5('public'), 'hex'), '2025-03-01 14:00:00Z');
INSERT INTO public.offline_session SELECT md5('user' || n), 'mock', '{}', NULL FROM generate_series(1, 3) n;
INSERT INTO public.refresh_token (id, client_id, scopes, nonce, claims_user_id, claims_username, claims_email,
        claims_email_verified, claims_groups, connector_id, created_at)
    SELECT md5('token' || n), 'pachd', '["openid"]', '', md5('user' || n), 'Zoë ' || n, format('user%s@example.com', n),
        true, 'null', 'mock', '2025-03-01 09:00:00Z'
    FROM generate_series(1, 3) n;
