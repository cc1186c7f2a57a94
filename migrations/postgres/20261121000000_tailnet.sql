-- A tailnet, its users, nodes and keys, and the log of its changes.
--
-- Every table carries the tailnet's id and has it first in its keys: one database serves several tailnets.
-- Instants are whole milliseconds since 1970, as in memory: no time zone can shift them.
-- Public keys are text (`nodekey:` and 64 digits), as clients, logs and the CLI show them: a person can look
-- one up, and its prefix says what kind it is, so that reading a row checks it. A 32-byte blob would save
-- some 200 bytes per node. Addresses, tags, routes, endpoints and hostinfo are text for the same reason; the
-- lists are JSON, for they are read and written whole.
-- Foreign keys are checked at COMMIT, so the rows of a batch may be written in any order. Only ownership is
-- one: `node.preauth_key_id` and `preauth_key.used_by` tell of the past, and what they name may be gone.

-- One row per tailnet. Whoever writes to a tailnet raises `rev` in the same transaction, by one and only from
-- the value it knows: commits of a tailnet are in order, without gaps, and two servers cannot both win.
CREATE TABLE tailnet (
    id BIGINT NOT NULL,
    rev BIGINT NOT NULL DEFAULT 0,
    -- Random, drawn by the transaction that made `rev`; 0 at the start.
    nonce BIGINT NOT NULL DEFAULT 0,
    -- The ids to be given next: an id is never given twice, also after deletion.
    next_user_id BIGINT NOT NULL DEFAULT 1,
    next_node_id BIGINT NOT NULL DEFAULT 1,
    next_preauth_key_id BIGINT NOT NULL DEFAULT 1,
    next_api_key_id BIGINT NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL DEFAULT (extract(epoch FROM now()) * 1000)::BIGINT,
    CONSTRAINT tailnet_pkey PRIMARY KEY (id)
);

-- One row per transaction, for replicas to follow and for a writer whose COMMIT got no answer to find out.
-- The newest ten thousand or so are kept.
CREATE TABLE change (
    tailnet BIGINT NOT NULL,
    rev BIGINT NOT NULL,
    nonce BIGINT NOT NULL,
    -- The nonce of the row before, so that a database set back to a backup is noticed.
    prev_nonce BIGINT NOT NULL,
    decided_at BIGINT NOT NULL,
    -- JSON: the ids of what changed.
    body TEXT NOT NULL,
    CONSTRAINT change_pkey PRIMARY KEY (tailnet, rev),
    CONSTRAINT change_tailnet FOREIGN KEY (tailnet) REFERENCES tailnet (id) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE users (
    tailnet BIGINT NOT NULL,
    id BIGINT NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    email TEXT NOT NULL,
    profile_pic_url TEXT NOT NULL,
    provider TEXT NOT NULL,
    provider_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (tailnet, id),
    CONSTRAINT users_name UNIQUE (tailnet, name),
    CONSTRAINT users_tailnet FOREIGN KEY (tailnet) REFERENCES tailnet (id) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE node (
    tailnet BIGINT NOT NULL,
    id BIGINT NOT NULL,
    machine_key TEXT NOT NULL,
    node_key TEXT NOT NULL,
    previous_node_key TEXT,
    disco_key TEXT NOT NULL,
    network_lock_key TEXT NOT NULL,
    hostinfo TEXT NOT NULL,
    given_name TEXT NOT NULL,
    name_is_chosen BOOLEAN NOT NULL,
    ipv4 TEXT,
    ipv6 TEXT,
    -- A node belongs to a user or to its tags, never to both.
    user_id BIGINT,
    tags TEXT NOT NULL,
    -- `authkey`, `cli` or `oidc`.
    register_method TEXT NOT NULL,
    preauth_key_id BIGINT,
    ephemeral BOOLEAN NOT NULL,
    capability_version BIGINT NOT NULL,
    endpoints TEXT NOT NULL,
    home_derp BIGINT,
    approved_routes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_seen_at BIGINT,
    CONSTRAINT node_pkey PRIMARY KEY (tailnet, id),
    CONSTRAINT node_node_key UNIQUE (tailnet, node_key),
    CONSTRAINT node_ipv4 UNIQUE (tailnet, ipv4),
    CONSTRAINT node_ipv6 UNIQUE (tailnet, ipv6),
    CONSTRAINT node_given_name UNIQUE (tailnet, given_name),
    CONSTRAINT node_tailnet FOREIGN KEY (tailnet) REFERENCES tailnet (id) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT node_user FOREIGN KEY (tailnet, user_id) REFERENCES users (tailnet, id) DEFERRABLE INITIALLY DEFERRED
);

-- For the check that a deleted user owns nothing.
CREATE INDEX node_by_user ON node (tailnet, user_id);

CREATE TABLE preauth_key (
    tailnet BIGINT NOT NULL,
    id BIGINT NOT NULL,
    public_id TEXT NOT NULL,
    -- argon2id in PHC form: the secret itself is nowhere.
    hash TEXT NOT NULL,
    user_id BIGINT,
    tags TEXT NOT NULL,
    reusable BOOLEAN NOT NULL,
    ephemeral BOOLEAN NOT NULL,
    used_at BIGINT,
    used_by BIGINT,
    expires_at BIGINT,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL,
    CONSTRAINT preauth_key_pkey PRIMARY KEY (tailnet, id),
    CONSTRAINT preauth_key_public_id UNIQUE (tailnet, public_id),
    CONSTRAINT preauth_key_tailnet FOREIGN KEY (tailnet) REFERENCES tailnet (id) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT preauth_key_user FOREIGN KEY (tailnet, user_id) REFERENCES users (tailnet, id) DEFERRABLE INITIALLY DEFERRED
);

CREATE INDEX preauth_key_by_user ON preauth_key (tailnet, user_id);

CREATE TABLE api_key (
    tailnet BIGINT NOT NULL,
    id BIGINT NOT NULL,
    public_id TEXT NOT NULL,
    hash TEXT NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    last_seen_at BIGINT,
    CONSTRAINT api_key_pkey PRIMARY KEY (tailnet, id),
    CONSTRAINT api_key_public_id UNIQUE (tailnet, public_id),
    CONSTRAINT api_key_tailnet FOREIGN KEY (tailnet) REFERENCES tailnet (id) DEFERRABLE INITIALLY DEFERRED
);

-- Deleted nodes whose clients are still to be told so.
CREATE TABLE tombstone (
    tailnet BIGINT NOT NULL,
    machine_key TEXT NOT NULL,
    node_key TEXT NOT NULL,
    home_derp BIGINT,
    deleted_at BIGINT NOT NULL,
    CONSTRAINT tombstone_pkey PRIMARY KEY (tailnet, machine_key, node_key),
    CONSTRAINT tombstone_tailnet FOREIGN KEY (tailnet) REFERENCES tailnet (id) DEFERRABLE INITIALLY DEFERRED
);
