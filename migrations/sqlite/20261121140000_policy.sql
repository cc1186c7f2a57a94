-- The texts that a tailnet's policy has had, each as it was written. The newest one is in force. The store deletes
-- old ones.
CREATE TABLE policy (
    tailnet INTEGER NOT NULL,
    id INTEGER NOT NULL,
    text TEXT NOT NULL,
    -- BLAKE3 of the text, in hex.
    digest TEXT NOT NULL,
    -- The public id of an API key, `cli` or `file`.
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    CONSTRAINT policy_pkey PRIMARY KEY (tailnet, id),
    CONSTRAINT policy_tailnet FOREIGN KEY (tailnet) REFERENCES tailnet (id) DEFERRABLE INITIALLY DEFERRED
) STRICT;
