-- Statements of succession of publisher and release keys, in the order in which devices are told them.
CREATE TABLE key_successions (
    digest      TEXT PRIMARY KEY NOT NULL,
    position    BIGINT NOT NULL UNIQUE,
    payload     BYTEA NOT NULL,
    signature   BYTEA NOT NULL,
    imported_at TIMESTAMPTZ NOT NULL
);

-- Releases of the agent: the signed statement, and its program in pieces.
CREATE TABLE releases (
    digest      TEXT PRIMARY KEY NOT NULL,
    version     TEXT NOT NULL,
    platform    TEXT NOT NULL,
    arch        TEXT NOT NULL,
    size        BIGINT NOT NULL,
    sha256      TEXT NOT NULL,
    payload     BYTEA NOT NULL,
    signature   BYTEA NOT NULL,
    -- Of the devices that it is for; 0 offers it to nobody.
    percent     BIGINT NOT NULL DEFAULT 0 CHECK (percent BETWEEN 0 AND 100),
    imported_at TIMESTAMPTZ NOT NULL,
    UNIQUE (version, platform, arch)
);

CREATE TABLE release_pieces (
    release_digest TEXT NOT NULL REFERENCES releases (digest),
    seq            BIGINT NOT NULL,
    bytes          BYTEA NOT NULL,
    PRIMARY KEY (release_digest, seq)
);

-- Which program a device said that it runs, at its last hello.
CREATE TABLE device_programs (
    device_id UUID PRIMARY KEY NOT NULL REFERENCES devices (id),
    version   TEXT NOT NULL,
    arch      TEXT,
    said_at   TIMESTAMPTZ NOT NULL
);

-- What became of a release on a device, by its last word.
CREATE TABLE release_outcomes (
    device_id      UUID NOT NULL REFERENCES devices (id),
    release_digest TEXT NOT NULL REFERENCES releases (digest),
    outcome        TEXT NOT NULL CHECK (outcome IN ('installed', 'refused', 'went-back')),
    reason         TEXT NOT NULL,
    at             TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (device_id, release_digest)
);
CREATE INDEX release_outcomes_by_release ON release_outcomes (release_digest, outcome);
