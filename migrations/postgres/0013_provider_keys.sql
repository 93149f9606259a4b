-- Secrets of the board itself, each a BSE1 envelope under the board key. A removed one keeps its row, so that versions
-- only grow.
CREATE TABLE board_secrets (
    name            TEXT PRIMARY KEY NOT NULL,
    version         BIGINT NOT NULL CHECK (version > 0),
    encrypted_value BYTEA,
    changed_at      TIMESTAMPTZ NOT NULL
);

-- A client's key at OpenRouter: what the board asks for, how far it came, and what was last read of it. Never the key.
CREATE TABLE provider_keys (
    client_id    UUID PRIMARY KEY NOT NULL REFERENCES clients (id),
    state        TEXT NOT NULL
                 CHECK (state IN ('idle', 'planned', 'asked', 'made', 'stored', 'failed', 'deleted')),
    -- Millionths of a US dollar.
    limit_micros BIGINT NOT NULL CHECK (limit_micros > 0),
    -- The provider's handle of the key.
    hash         TEXT,
    -- The version of the client's slot that its value is.
    version      BIGINT,
    disabled     BOOLEAN NOT NULL DEFAULT FALSE,
    trouble      TEXT,
    changed_at   TIMESTAMPTZ NOT NULL,
    -- Who makes the key, and until when nobody else does.
    holder       TEXT,
    held_until   TIMESTAMPTZ,
    usage_micros BIGINT,
    expires_at   TIMESTAMPTZ,
    read_at      TIMESTAMPTZ
);

-- When the keys' numbers are read again; who moves it reads them.
CREATE TABLE provider_reads (
    provider TEXT PRIMARY KEY NOT NULL,
    due_at   TIMESTAMPTZ NOT NULL,
    trouble  TEXT
);

-- Who executes a step: the agent, or the board itself.
ALTER TABLE steps ADD COLUMN run_by TEXT NOT NULL DEFAULT 'agent' CHECK (run_by IN ('agent', 'board'));
CREATE INDEX steps_of_the_board ON steps (state) WHERE run_by = 'board';
