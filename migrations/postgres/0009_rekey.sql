-- A retired version of the root key keeps its row, so that its number isn't given again; its wrapped key is erased.
ALTER TABLE root_keys ADD COLUMN retired_at TIMESTAMPTZ;

-- HMAC keys of retired versions, sealed under a living one, until the last token hashed with them has ended.
CREATE TABLE kept_keys (
    root_version BIGINT NOT NULL REFERENCES root_keys (version),
    purpose      TEXT NOT NULL,
    sealed_under BIGINT NOT NULL REFERENCES root_keys (version),
    sealed       BYTEA NOT NULL,
    ends_at      TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (root_version, purpose)
);

-- Who is moving to a new root key: one at a time. A holder that was killed loses it when the time is over.
CREATE TABLE rekey_lease (
    singleton  BIGINT PRIMARY KEY CHECK (singleton = 1),
    holder     BYTEA NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
