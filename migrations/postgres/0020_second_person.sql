-- Whether copying a secret of this client needs a second person.
ALTER TABLE clients ADD COLUMN second_person BOOLEAN NOT NULL DEFAULT FALSE;

-- What somebody asked a second person for: one copy of a slot, or, without a slot, that this client's copies need none
-- any more. Waiting or approved past its end, a row is over whatever its state says.
CREATE TABLE approvals (
    id         UUID PRIMARY KEY NOT NULL,
    client_id  UUID NOT NULL REFERENCES clients (id),
    slot_id    UUID REFERENCES component_credential_slots (id),
    reason     TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'approved', 'declined', 'used', 'expired')),
    asked_by   UUID NOT NULL REFERENCES users (id),
    asked_at   TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    decided_by UUID REFERENCES users (id),
    decided_at TIMESTAMPTZ,
    used_at    TIMESTAMPTZ,
    CHECK (decided_by <> asked_by),
    CHECK (state NOT IN ('approved', 'declined', 'used') OR decided_by IS NOT NULL)
);
CREATE INDEX approvals_that_wait ON approvals (expires_at) WHERE state = 'waiting';
CREATE INDEX approvals_by_asker ON approvals (asked_by, asked_at);
-- One at a time for each thing that somebody asks for.
CREATE UNIQUE INDEX approvals_of_copies ON approvals (asked_by, client_id, slot_id)
    WHERE state IN ('waiting', 'approved') AND slot_id IS NOT NULL;
CREATE UNIQUE INDEX approvals_of_switches ON approvals (asked_by, client_id)
    WHERE state IN ('waiting', 'approved') AND slot_id IS NULL;
