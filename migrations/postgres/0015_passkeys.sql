-- Passkeys (WebAuthn). `passkey` is the public key with its counter and backup state, as JSON; nothing in it is secret.
CREATE TABLE passkeys (
    id            UUID PRIMARY KEY NOT NULL,
    user_id       UUID NOT NULL REFERENCES users (id),
    credential_id BYTEA NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    passkey       TEXT NOT NULL,
    -- Counts up with `passkey`, so that two answers at once can't both be the next one.
    version       BIGINT NOT NULL DEFAULT 0,
    created_at    TIMESTAMPTZ NOT NULL,
    last_used_at  TIMESTAMPTZ
);
CREATE INDEX passkeys_by_user ON passkeys (user_id);

-- What the board asked a browser to sign. A row is deleted when it is answered, so each is answered once.
CREATE TABLE passkey_challenges (
    id         UUID PRIMARY KEY NOT NULL,
    purpose    TEXT NOT NULL CHECK (purpose IN ('sign-in', 'step-up', 'register')),
    -- Hash of the session or one-time link that asked, and the address that the answer is for.
    binding    BYTEA NOT NULL,
    state      TEXT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX passkey_challenges_by_end ON passkey_challenges (expires_at);

-- The operator's switch; one row.
CREATE TABLE sign_in_rules (
    id               BIGINT PRIMARY KEY NOT NULL CHECK (id = 1),
    require_passkeys BOOLEAN NOT NULL
);
INSERT INTO sign_in_rules (id, require_passkeys) VALUES (1, FALSE);
