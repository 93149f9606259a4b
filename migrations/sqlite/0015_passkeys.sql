-- Passkeys (WebAuthn). `passkey` is the public key with its counter and backup state, as JSON; nothing in it is secret.
CREATE TABLE passkeys (
    id            BLOB PRIMARY KEY NOT NULL,
    user_id       BLOB NOT NULL REFERENCES users (id),
    credential_id BLOB NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    passkey       TEXT NOT NULL,
    -- Counts up with `passkey`, so that two answers at once can't both be the next one.
    version       INTEGER NOT NULL DEFAULT 0,
    created_at    INTEGER NOT NULL,
    last_used_at  INTEGER
) STRICT;
CREATE INDEX passkeys_by_user ON passkeys (user_id);

-- What the board asked a browser to sign. A row is deleted when it is answered, so each is answered once.
CREATE TABLE passkey_challenges (
    id         BLOB PRIMARY KEY NOT NULL,
    purpose    TEXT NOT NULL CHECK (purpose IN ('sign-in', 'step-up', 'register')),
    -- Hash of the session or one-time link that asked, and the address that the answer is for.
    binding    BLOB NOT NULL,
    state      TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX passkey_challenges_by_end ON passkey_challenges (expires_at);

-- The operator's switch; one row.
CREATE TABLE sign_in_rules (
    id               INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    require_passkeys INTEGER NOT NULL
) STRICT;
INSERT INTO sign_in_rules (id, require_passkeys) VALUES (1, 0);
