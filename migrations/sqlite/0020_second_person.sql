-- Whether copying a secret of this client needs a second person.
ALTER TABLE clients ADD COLUMN second_person INTEGER NOT NULL DEFAULT 0;

-- What somebody asked a second person for: one copy of a slot, or, without a slot, that this client's copies need none
-- any more. Waiting or approved past its end, a row is over whatever its state says.
CREATE TABLE approvals (
    id         BLOB PRIMARY KEY NOT NULL,
    client_id  BLOB NOT NULL REFERENCES clients (id),
    slot_id    BLOB REFERENCES component_credential_slots (id),
    reason     TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'approved', 'declined', 'used', 'expired')),
    asked_by   BLOB NOT NULL REFERENCES users (id),
    asked_at   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    decided_by BLOB REFERENCES users (id),
    decided_at INTEGER,
    used_at    INTEGER,
    CHECK (decided_by <> asked_by),
    CHECK (state NOT IN ('approved', 'declined', 'used') OR decided_by IS NOT NULL)
) STRICT;
CREATE INDEX approvals_that_wait ON approvals (expires_at) WHERE state = 'waiting';
CREATE INDEX approvals_by_asker ON approvals (asked_by, asked_at);
-- One at a time for each thing that somebody asks for.
CREATE UNIQUE INDEX approvals_of_copies ON approvals (asked_by, client_id, slot_id)
    WHERE state IN ('waiting', 'approved') AND slot_id IS NOT NULL;
CREATE UNIQUE INDEX approvals_of_switches ON approvals (asked_by, client_id)
    WHERE state IN ('waiting', 'approved') AND slot_id IS NULL;
