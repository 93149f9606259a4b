-- Statements of succession of publisher and release keys, in the order in which devices are told them.
CREATE TABLE key_successions (
    digest      TEXT PRIMARY KEY NOT NULL,
    position    INTEGER NOT NULL UNIQUE,
    payload     BLOB NOT NULL,
    signature   BLOB NOT NULL,
    imported_at INTEGER NOT NULL
) STRICT;

-- Releases of the agent: the signed statement, and its program in pieces.
CREATE TABLE releases (
    digest      TEXT PRIMARY KEY NOT NULL,
    version     TEXT NOT NULL,
    platform    TEXT NOT NULL,
    arch        TEXT NOT NULL,
    size        INTEGER NOT NULL,
    sha256      TEXT NOT NULL,
    payload     BLOB NOT NULL,
    signature   BLOB NOT NULL,
    -- Of the devices that it is for; 0 offers it to nobody.
    percent     INTEGER NOT NULL DEFAULT 0 CHECK (percent BETWEEN 0 AND 100),
    imported_at INTEGER NOT NULL,
    UNIQUE (version, platform, arch)
) STRICT;

CREATE TABLE release_pieces (
    release_digest TEXT NOT NULL REFERENCES releases (digest),
    seq            INTEGER NOT NULL,
    bytes          BLOB NOT NULL,
    PRIMARY KEY (release_digest, seq)
) STRICT;

-- Which program a device said that it runs, at its last hello.
CREATE TABLE device_programs (
    device_id BLOB PRIMARY KEY NOT NULL REFERENCES devices (id),
    version   TEXT NOT NULL,
    arch      TEXT,
    said_at   INTEGER NOT NULL
) STRICT;

-- What became of a release on a device, by its last word.
CREATE TABLE release_outcomes (
    device_id      BLOB NOT NULL REFERENCES devices (id),
    release_digest TEXT NOT NULL REFERENCES releases (digest),
    outcome        TEXT NOT NULL CHECK (outcome IN ('installed', 'refused', 'went-back')),
    reason         TEXT NOT NULL,
    at             INTEGER NOT NULL,
    PRIMARY KEY (device_id, release_digest)
) STRICT;
CREATE INDEX release_outcomes_by_release ON release_outcomes (release_digest, outcome);
