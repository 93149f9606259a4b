-- The tag comes first: whose secret a slot is for is decided when the slot is born, and the schema keeps it so.

CREATE TABLE component_credential_slots (
    id            BLOB PRIMARY KEY NOT NULL,
    component_key TEXT NOT NULL,
    slot_key      TEXT NOT NULL,
    display_name  TEXT NOT NULL,
    tag           TEXT NOT NULL CHECK (tag IN ('our-managed', 'client-supplied')),
    hint          TEXT CHECK (hint IS NULL OR tag = 'client-supplied'),
    required      INTEGER NOT NULL DEFAULT 1,
    UNIQUE (component_key, slot_key),
    UNIQUE (id, tag)
) STRICT;

CREATE TRIGGER slots_keep_their_tag
BEFORE UPDATE OF tag, component_key, slot_key ON component_credential_slots
WHEN NEW.tag <> OLD.tag OR NEW.component_key <> OLD.component_key OR NEW.slot_key <> OLD.slot_key
BEGIN
    SELECT RAISE(ABORT, 'a slot keeps its tag and its keys; another tag needs another slot key');
END;

CREATE TABLE board (
    singleton  INTEGER PRIMARY KEY NOT NULL CHECK (singleton = 1),
    id         BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- The root key, wrapped by its provider.
CREATE TABLE root_keys (
    version     INTEGER PRIMARY KEY NOT NULL,
    provider    TEXT NOT NULL,
    wrapped     BLOB NOT NULL,
    fingerprint TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE authorities (
    number      INTEGER PRIMARY KEY NOT NULL,
    certificate BLOB NOT NULL,
    wrapped_key BLOB NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id            BLOB PRIMARY KEY NOT NULL,
    email         TEXT NOT NULL UNIQUE,
    password_hash TEXT,
    created_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE user_roles (
    user_id BLOB NOT NULL REFERENCES users (id),
    role    TEXT NOT NULL CHECK (role IN ('consultant', 'operator', 'support')),
    PRIMARY KEY (user_id, role)
) STRICT;

CREATE TABLE sign_in_links (
    id         BLOB PRIMARY KEY NOT NULL,
    user_id    BLOB NOT NULL REFERENCES users (id),
    token_hash BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;

CREATE TABLE sessions (
    id         BLOB PRIMARY KEY NOT NULL,
    user_id    BLOB NOT NULL REFERENCES users (id),
    token_hash BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Failures that are counted before the next try is allowed.
CREATE TABLE failures (
    bucket TEXT NOT NULL,
    source TEXT NOT NULL,
    at     INTEGER NOT NULL
) STRICT;
CREATE INDEX failures_by_bucket ON failures (bucket, at);

CREATE TABLE clients (
    id         BLOB PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL,
    vault_name TEXT NOT NULL,
    notes      TEXT NOT NULL,
    -- Erased at the purge: without it the client's key can't be derived again.
    salt       BLOB,
    created_by BLOB NOT NULL REFERENCES users (id),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE client_components (
    client_id     BLOB NOT NULL REFERENCES clients (id),
    component_key TEXT NOT NULL,
    added_at      INTEGER NOT NULL,
    PRIMARY KEY (client_id, component_key)
) STRICT;

-- The package that was chosen: a tier and add-ons. It preselects components; client_components is what counts.
CREATE TABLE client_packages (
    client_id   BLOB NOT NULL REFERENCES clients (id),
    package_key TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('tier', 'addon')),
    PRIMARY KEY (client_id, package_key)
) STRICT;

-- Which slot of a group is filled.
CREATE TABLE client_choices (
    client_id     BLOB NOT NULL REFERENCES clients (id),
    component_key TEXT NOT NULL,
    group_key     TEXT NOT NULL,
    slot_key      TEXT NOT NULL,
    PRIMARY KEY (client_id, component_key, group_key)
) STRICT;

-- Inputs that are not secret.
CREATE TABLE client_params (
    client_id     BLOB NOT NULL REFERENCES clients (id),
    component_key TEXT NOT NULL,
    param_key     TEXT NOT NULL,
    value         TEXT NOT NULL,
    PRIMARY KEY (client_id, component_key, param_key)
) STRICT;

-- Our-managed secrets only: a BSE1 envelope each. There is no table for a client-supplied value.
CREATE TABLE client_credentials (
    client_id       BLOB NOT NULL REFERENCES clients (id),
    slot_id         BLOB NOT NULL,
    tag             TEXT NOT NULL CHECK (tag = 'our-managed'),
    version         INTEGER NOT NULL CHECK (version > 0),
    encrypted_value BLOB NOT NULL,
    created_at      INTEGER NOT NULL,
    last_rotated_at INTEGER NOT NULL,
    UNIQUE (client_id, slot_id),
    FOREIGN KEY (slot_id, tag) REFERENCES component_credential_slots (id, tag)
) STRICT;

CREATE TABLE catalog_bundles (
    digest      TEXT PRIMARY KEY NOT NULL,
    serial      INTEGER NOT NULL UNIQUE,
    payload     BLOB NOT NULL,
    signature   BLOB NOT NULL,
    imported_at INTEGER NOT NULL
) STRICT;

CREATE TABLE join_codes (
    id         BLOB PRIMARY KEY NOT NULL,
    client_id  BLOB NOT NULL REFERENCES clients (id),
    code_hmac  BLOB NOT NULL UNIQUE,
    created_by BLOB NOT NULL REFERENCES users (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE devices (
    id            BLOB PRIMARY KEY NOT NULL,
    client_id     BLOB NOT NULL REFERENCES clients (id),
    name          TEXT NOT NULL,
    hardware_uuid TEXT NOT NULL,
    platform      TEXT NOT NULL,
    os_version    TEXT NOT NULL,
    dev           INTEGER NOT NULL,
    state         TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    last_seen_at  INTEGER
) STRICT;
CREATE UNIQUE INDEX devices_by_hardware ON devices (hardware_uuid) WHERE state <> 'revoked';

-- One identity of a device: its keys, and the certificates made for them.
CREATE TABLE enrollments (
    id                 BLOB PRIMARY KEY NOT NULL,
    client_id          BLOB NOT NULL REFERENCES clients (id),
    join_code_id       BLOB NOT NULL UNIQUE REFERENCES join_codes (id),
    device_id          BLOB REFERENCES devices (id),
    state              TEXT NOT NULL,
    tls_spki           BLOB NOT NULL,
    sealing_public_key BLOB NOT NULL,
    facts              TEXT NOT NULL,
    source_address     TEXT NOT NULL,
    created_at         INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL,
    decided_by         BLOB REFERENCES users (id),
    decided_at         INTEGER,
    reason             TEXT,
    code_reused_at     INTEGER,
    nonce              BLOB,
    certificate        BLOB,
    certificate_not_after INTEGER,
    -- The serial in use, and one that was issued and not yet seen.
    serial_current     BLOB,
    serial_issued      BLOB
) STRICT;
CREATE INDEX enrollments_by_device ON enrollments (device_id);

CREATE TABLE deliveries (
    id         BLOB PRIMARY KEY NOT NULL,
    device_id  BLOB NOT NULL REFERENCES devices (id),
    slot_id    BLOB NOT NULL,
    tag        TEXT NOT NULL CHECK (tag = 'our-managed'),
    version    INTEGER NOT NULL,
    state      TEXT NOT NULL,
    reason     TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    -- Sequence number of the audit entry of the latest decrypt for it.
    decrypt_seq INTEGER,
    receipt    TEXT,
    receipt_at INTEGER,
    UNIQUE (device_id, slot_id, version),
    FOREIGN KEY (slot_id, tag) REFERENCES component_credential_slots (id, tag)
) STRICT;

CREATE TABLE installed_components (
    device_id     BLOB NOT NULL REFERENCES devices (id),
    component_key TEXT NOT NULL,
    presence      TEXT NOT NULL,
    version       TEXT,
    evidence      TEXT NOT NULL,
    since         INTEGER NOT NULL,
    observed_at   INTEGER NOT NULL,
    PRIMARY KEY (device_id, component_key)
) STRICT;

-- Every change of installed_components, kept.
CREATE TABLE installed_history (
    device_id     BLOB NOT NULL REFERENCES devices (id),
    component_key TEXT NOT NULL,
    presence      TEXT NOT NULL,
    version       TEXT,
    observed_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX installed_history_by_device ON installed_history (device_id, component_key, observed_at);

CREATE TABLE installed_slots (
    device_id     BLOB NOT NULL REFERENCES devices (id),
    component_key TEXT NOT NULL,
    slot_key      TEXT NOT NULL,
    state         TEXT NOT NULL,
    version       INTEGER,
    observed_at   INTEGER NOT NULL,
    PRIMARY KEY (device_id, component_key, slot_key)
) STRICT;

CREATE TABLE runbooks (
    id            BLOB PRIMARY KEY NOT NULL,
    device_id     BLOB NOT NULL UNIQUE REFERENCES devices (id),
    bundle_digest TEXT NOT NULL REFERENCES catalog_bundles (digest),
    created_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE steps (
    id            BLOB PRIMARY KEY NOT NULL,
    runbook_id    BLOB NOT NULL REFERENCES runbooks (id),
    position      INTEGER NOT NULL,
    component_key TEXT NOT NULL,
    step_key      TEXT NOT NULL,
    kind          TEXT NOT NULL,
    title         TEXT NOT NULL,
    state         TEXT NOT NULL,
    waits_for     TEXT,
    -- Skipped or marked by hand: who said so, and what.
    note          TEXT,
    changed_at    INTEGER NOT NULL,
    UNIQUE (runbook_id, component_key, step_key),
    UNIQUE (runbook_id, position)
) STRICT;

CREATE TABLE attempts (
    id          BLOB PRIMARY KEY NOT NULL,
    step_id     BLOB NOT NULL REFERENCES steps (id),
    -- Counts from 1 in each step; the latest attempt has the highest.
    number      INTEGER NOT NULL,
    state       TEXT NOT NULL,
    offered_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    running_at  INTEGER,
    ended_at    INTEGER,
    exit_code   INTEGER,
    found       TEXT,
    duration_ms INTEGER,
    UNIQUE (step_id, number)
) STRICT;

CREATE TABLE attempt_output (
    attempt_id BLOB NOT NULL REFERENCES attempts (id),
    seq        INTEGER NOT NULL,
    text       TEXT NOT NULL,
    PRIMARY KEY (attempt_id, seq)
) STRICT;

-- Reports that were applied; each once.
CREATE TABLE device_reports (
    device_id  BLOB NOT NULL REFERENCES devices (id),
    report_id  BLOB NOT NULL,
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (device_id, report_id)
) STRICT;

CREATE TABLE audit_head (
    singleton INTEGER PRIMARY KEY NOT NULL CHECK (singleton = 1),
    epoch     INTEGER NOT NULL,
    seq       INTEGER NOT NULL
) STRICT;
INSERT INTO audit_head (singleton, epoch, seq) VALUES (1, 1, 0);

-- `canonical` is the entry, as the exact bytes that are hashed; the other columns are for searching.
CREATE TABLE audit_log (
    seq       INTEGER PRIMARY KEY NOT NULL,
    epoch     INTEGER NOT NULL,
    previous  BLOB NOT NULL,
    hash      BLOB NOT NULL,
    canonical TEXT NOT NULL,
    at        INTEGER NOT NULL,
    action    TEXT NOT NULL,
    client_id BLOB,
    slot_id   BLOB,
    device_id BLOB
) STRICT;
CREATE INDEX audit_log_by_slot ON audit_log (client_id, slot_id, action, seq);

CREATE TRIGGER audit_log_takes_only_the_next_entry
BEFORE INSERT ON audit_log
WHEN NEW.seq <> (SELECT seq FROM audit_head) OR NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit_log)
BEGIN
    SELECT RAISE(ABORT, 'audit_log takes only the entry that audit_head announces');
END;

CREATE TRIGGER audit_log_refuses_update
BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;

CREATE TRIGGER audit_log_refuses_delete
BEFORE DELETE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;
