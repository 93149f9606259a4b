-- A retired version of the root key keeps its row, so that its number isn't given again; its wrapped key is erased.
ALTER TABLE root_keys ADD COLUMN retired_at INTEGER;

-- HMAC keys of retired versions, sealed under a living one, until the last token hashed with them has ended.
CREATE TABLE kept_keys (
    root_version INTEGER NOT NULL REFERENCES root_keys (version),
    purpose      TEXT NOT NULL,
    sealed_under INTEGER NOT NULL REFERENCES root_keys (version),
    sealed       BLOB NOT NULL,
    ends_at      INTEGER NOT NULL,
    PRIMARY KEY (root_version, purpose)
) STRICT;

-- Who is moving to a new root key: one at a time. A holder that was killed loses it when the time is over.
CREATE TABLE rekey_lease (
    singleton  INTEGER PRIMARY KEY NOT NULL CHECK (singleton = 1),
    holder     BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
