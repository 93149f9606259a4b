-- When the session's user last proved by the password that it is them.
ALTER TABLE sessions ADD COLUMN fresh_at INTEGER;

-- Who is disabled can't sign in; sessions, links and tokens ended with it.
ALTER TABLE users ADD COLUMN disabled_at INTEGER;

-- Tokens of the JSON API. The database holds their HMAC only.
CREATE TABLE api_tokens (
    id           BLOB PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    token_hash   BLOB NOT NULL UNIQUE,
    -- Ends with this user; none when the operator made it on the command line for nobody in particular.
    user_id      BLOB REFERENCES users (id),
    created_by   TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT;
CREATE UNIQUE INDEX api_tokens_by_living_name ON api_tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE api_token_roles (
    token_id BLOB NOT NULL REFERENCES api_tokens (id),
    role     TEXT NOT NULL CHECK (role IN ('consultant', 'operator', 'support')),
    PRIMARY KEY (token_id, role)
) STRICT;

-- Secrets that somebody copied out. Each user's are numbered, so that two at once can't both be the last one allowed.
CREATE TABLE secret_copies (
    user_id BLOB NOT NULL REFERENCES users (id),
    number  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (user_id, number)
) STRICT;
