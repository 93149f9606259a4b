-- The tag comes first: whose secret a slot is for is decided when the slot is born, and the schema keeps it so.

CREATE TABLE component_credential_slots (
    id            UUID PRIMARY KEY NOT NULL,
    component_key TEXT NOT NULL,
    slot_key      TEXT NOT NULL,
    display_name  TEXT NOT NULL,
    tag           TEXT NOT NULL CHECK (tag IN ('our-managed', 'client-supplied')),
    hint          TEXT CHECK (hint IS NULL OR tag = 'client-supplied'),
    required      BOOLEAN NOT NULL DEFAULT TRUE,
    UNIQUE (component_key, slot_key),
    UNIQUE (id, tag)
);

CREATE FUNCTION slots_keep_their_tag() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.tag <> OLD.tag OR NEW.component_key <> OLD.component_key OR NEW.slot_key <> OLD.slot_key THEN
        RAISE EXCEPTION 'a slot keeps its tag and its keys; another tag needs another slot key';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER slots_keep_their_tag BEFORE UPDATE ON component_credential_slots
FOR EACH ROW EXECUTE FUNCTION slots_keep_their_tag();

CREATE TABLE board (
    singleton  BIGINT PRIMARY KEY NOT NULL CHECK (singleton = 1),
    id         UUID NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

-- The root key, wrapped by its provider.
CREATE TABLE root_keys (
    version     BIGINT PRIMARY KEY NOT NULL,
    provider    TEXT NOT NULL,
    wrapped     BYTEA NOT NULL,
    fingerprint TEXT NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE authorities (
    number      BIGINT PRIMARY KEY NOT NULL,
    certificate BYTEA NOT NULL,
    wrapped_key BYTEA NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE users (
    id            UUID PRIMARY KEY NOT NULL,
    email         TEXT NOT NULL UNIQUE,
    password_hash TEXT,
    created_at    TIMESTAMPTZ NOT NULL
);

CREATE TABLE user_roles (
    user_id UUID NOT NULL REFERENCES users (id),
    role    TEXT NOT NULL CHECK (role IN ('consultant', 'operator', 'support')),
    PRIMARY KEY (user_id, role)
);

CREATE TABLE sign_in_links (
    id         UUID PRIMARY KEY NOT NULL,
    user_id    UUID NOT NULL REFERENCES users (id),
    token_hash BYTEA NOT NULL UNIQUE,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    used_at    TIMESTAMPTZ
);

CREATE TABLE sessions (
    id         UUID PRIMARY KEY NOT NULL,
    user_id    UUID NOT NULL REFERENCES users (id),
    token_hash BYTEA NOT NULL UNIQUE,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);

-- Failures that are counted before the next try is allowed.
CREATE TABLE failures (
    bucket TEXT NOT NULL,
    source TEXT NOT NULL,
    at     TIMESTAMPTZ NOT NULL
);
CREATE INDEX failures_by_bucket ON failures (bucket, at);

CREATE TABLE clients (
    id         UUID PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL,
    vault_name TEXT NOT NULL,
    notes      TEXT NOT NULL,
    -- Erased at the purge: without it the client's key can't be derived again.
    salt       BYTEA,
    created_by UUID NOT NULL REFERENCES users (id),
    created_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE client_components (
    client_id     UUID NOT NULL REFERENCES clients (id),
    component_key TEXT NOT NULL,
    added_at      TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (client_id, component_key)
);

-- The package that was chosen: a tier and add-ons. It preselects components; client_components is what counts.
CREATE TABLE client_packages (
    client_id   UUID NOT NULL REFERENCES clients (id),
    package_key TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('tier', 'addon')),
    PRIMARY KEY (client_id, package_key)
);

-- Which slot of a group is filled.
CREATE TABLE client_choices (
    client_id     UUID NOT NULL REFERENCES clients (id),
    component_key TEXT NOT NULL,
    group_key     TEXT NOT NULL,
    slot_key      TEXT NOT NULL,
    PRIMARY KEY (client_id, component_key, group_key)
);

-- Inputs that are not secret.
CREATE TABLE client_params (
    client_id     UUID NOT NULL REFERENCES clients (id),
    component_key TEXT NOT NULL,
    param_key     TEXT NOT NULL,
    value         TEXT NOT NULL,
    PRIMARY KEY (client_id, component_key, param_key)
);

-- Our-managed secrets only: a BSE1 envelope each. There is no table for a client-supplied value.
CREATE TABLE client_credentials (
    client_id       UUID NOT NULL REFERENCES clients (id),
    slot_id         UUID NOT NULL,
    tag             TEXT NOT NULL CHECK (tag = 'our-managed'),
    version         BIGINT NOT NULL CHECK (version > 0),
    encrypted_value BYTEA NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    last_rotated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (client_id, slot_id),
    FOREIGN KEY (slot_id, tag) REFERENCES component_credential_slots (id, tag)
);

CREATE TABLE catalog_bundles (
    digest      TEXT PRIMARY KEY NOT NULL,
    serial      BIGINT NOT NULL UNIQUE,
    payload     BYTEA NOT NULL,
    signature   BYTEA NOT NULL,
    imported_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE join_codes (
    id         UUID PRIMARY KEY NOT NULL,
    client_id  UUID NOT NULL REFERENCES clients (id),
    code_hmac  BYTEA NOT NULL UNIQUE,
    created_by UUID NOT NULL REFERENCES users (id),
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE devices (
    id            UUID PRIMARY KEY NOT NULL,
    client_id     UUID NOT NULL REFERENCES clients (id),
    name          TEXT NOT NULL,
    hardware_uuid TEXT NOT NULL,
    platform      TEXT NOT NULL,
    os_version    TEXT NOT NULL,
    dev           BOOLEAN NOT NULL,
    state         TEXT NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL,
    last_seen_at  TIMESTAMPTZ
);
CREATE UNIQUE INDEX devices_by_hardware ON devices (hardware_uuid) WHERE state <> 'revoked';

-- One identity of a device: its keys, and the certificates made for them.
CREATE TABLE enrollments (
    id                 UUID PRIMARY KEY NOT NULL,
    client_id          UUID NOT NULL REFERENCES clients (id),
    join_code_id       UUID NOT NULL UNIQUE REFERENCES join_codes (id),
    device_id          UUID REFERENCES devices (id),
    state              TEXT NOT NULL,
    tls_spki           BYTEA NOT NULL,
    sealing_public_key BYTEA NOT NULL,
    facts              TEXT NOT NULL,
    source_address     TEXT NOT NULL,
    created_at         TIMESTAMPTZ NOT NULL,
    expires_at         TIMESTAMPTZ NOT NULL,
    decided_by         UUID REFERENCES users (id),
    decided_at         TIMESTAMPTZ,
    reason             TEXT,
    code_reused_at     TIMESTAMPTZ,
    nonce              BYTEA,
    certificate        BYTEA,
    certificate_not_after TIMESTAMPTZ,
    -- The serial in use, and one that was issued and not yet seen.
    serial_current     BYTEA,
    serial_issued      BYTEA
);
CREATE INDEX enrollments_by_device ON enrollments (device_id);

CREATE TABLE deliveries (
    id         UUID PRIMARY KEY NOT NULL,
    device_id  UUID NOT NULL REFERENCES devices (id),
    slot_id    UUID NOT NULL,
    tag        TEXT NOT NULL CHECK (tag = 'our-managed'),
    version    BIGINT NOT NULL,
    state      TEXT NOT NULL,
    reason     TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    -- Sequence number of the audit entry of the latest decrypt for it.
    decrypt_seq BIGINT,
    receipt    TEXT,
    receipt_at TIMESTAMPTZ,
    UNIQUE (device_id, slot_id, version),
    FOREIGN KEY (slot_id, tag) REFERENCES component_credential_slots (id, tag)
);

CREATE TABLE installed_components (
    device_id     UUID NOT NULL REFERENCES devices (id),
    component_key TEXT NOT NULL,
    presence      TEXT NOT NULL,
    version       TEXT,
    evidence      TEXT NOT NULL,
    since         TIMESTAMPTZ NOT NULL,
    observed_at   TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (device_id, component_key)
);

-- Every change of installed_components, kept.
CREATE TABLE installed_history (
    device_id     UUID NOT NULL REFERENCES devices (id),
    component_key TEXT NOT NULL,
    presence      TEXT NOT NULL,
    version       TEXT,
    observed_at   TIMESTAMPTZ NOT NULL
);
CREATE INDEX installed_history_by_device ON installed_history (device_id, component_key, observed_at);

CREATE TABLE installed_slots (
    device_id     UUID NOT NULL REFERENCES devices (id),
    component_key TEXT NOT NULL,
    slot_key      TEXT NOT NULL,
    state         TEXT NOT NULL,
    version       BIGINT,
    observed_at   TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (device_id, component_key, slot_key)
);

CREATE TABLE runbooks (
    id            UUID PRIMARY KEY NOT NULL,
    device_id     UUID NOT NULL UNIQUE REFERENCES devices (id),
    bundle_digest TEXT NOT NULL REFERENCES catalog_bundles (digest),
    created_at    TIMESTAMPTZ NOT NULL
);

CREATE TABLE steps (
    id            UUID PRIMARY KEY NOT NULL,
    runbook_id    UUID NOT NULL REFERENCES runbooks (id),
    position      BIGINT NOT NULL,
    component_key TEXT NOT NULL,
    step_key      TEXT NOT NULL,
    kind          TEXT NOT NULL,
    title         TEXT NOT NULL,
    state         TEXT NOT NULL,
    waits_for     TEXT,
    -- Skipped or marked by hand: who said so, and what.
    note          TEXT,
    changed_at    TIMESTAMPTZ NOT NULL,
    UNIQUE (runbook_id, component_key, step_key),
    UNIQUE (runbook_id, position)
);

CREATE TABLE attempts (
    id          UUID PRIMARY KEY NOT NULL,
    step_id     UUID NOT NULL REFERENCES steps (id),
    -- Counts from 1 in each step; the latest attempt has the highest.
    number      BIGINT NOT NULL,
    state       TEXT NOT NULL,
    offered_at  TIMESTAMPTZ NOT NULL,
    expires_at  TIMESTAMPTZ NOT NULL,
    running_at  TIMESTAMPTZ,
    ended_at    TIMESTAMPTZ,
    exit_code   BIGINT,
    found       TEXT,
    duration_ms BIGINT,
    UNIQUE (step_id, number)
);

CREATE TABLE attempt_output (
    attempt_id UUID NOT NULL REFERENCES attempts (id),
    seq        BIGINT NOT NULL,
    text       TEXT NOT NULL,
    PRIMARY KEY (attempt_id, seq)
);

-- Reports that were applied; each once.
CREATE TABLE device_reports (
    device_id  UUID NOT NULL REFERENCES devices (id),
    report_id  UUID NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (device_id, report_id)
);

CREATE TABLE audit_head (
    singleton BIGINT PRIMARY KEY NOT NULL CHECK (singleton = 1),
    epoch     BIGINT NOT NULL,
    seq       BIGINT NOT NULL
);
INSERT INTO audit_head (singleton, epoch, seq) VALUES (1, 1, 0);

-- `canonical` is the entry, as the exact bytes that are hashed; the other columns are for searching.
CREATE TABLE audit_log (
    seq       BIGINT PRIMARY KEY NOT NULL,
    epoch     BIGINT NOT NULL,
    previous  BYTEA NOT NULL,
    hash      BYTEA NOT NULL,
    canonical TEXT NOT NULL,
    at        TIMESTAMPTZ NOT NULL,
    action    TEXT NOT NULL,
    client_id UUID,
    slot_id   UUID,
    device_id UUID
);
CREATE INDEX audit_log_by_slot ON audit_log (client_id, slot_id, action, seq);

CREATE FUNCTION audit_log_takes_only_the_next_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.seq <> (SELECT seq FROM audit_head) OR NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit_log) THEN
        RAISE EXCEPTION 'audit_log takes only the entry that audit_head announces';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER audit_log_takes_only_the_next_entry BEFORE INSERT ON audit_log
FOR EACH ROW EXECUTE FUNCTION audit_log_takes_only_the_next_entry();

CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only';
END
$$;
CREATE TRIGGER audit_log_refuses_update BEFORE UPDATE ON audit_log
FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only();
CREATE TRIGGER audit_log_refuses_delete BEFORE DELETE ON audit_log
FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only();
CREATE TRIGGER audit_log_refuses_truncate BEFORE TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
