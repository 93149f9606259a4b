-- The engagement with a client: active, ending (the purge is due at purge_due_at), held (no purge), purged.
ALTER TABLE clients ADD COLUMN engagement TEXT NOT NULL DEFAULT 'active'
    CHECK (engagement IN ('active', 'ending', 'held', 'purged'));
ALTER TABLE clients ADD COLUMN purge_after_days INTEGER NOT NULL DEFAULT 30
    CHECK (purge_after_days BETWEEN 0 AND 365);
ALTER TABLE clients ADD COLUMN ended_at INTEGER;
ALTER TABLE clients ADD COLUMN ended_by TEXT;
ALTER TABLE clients ADD COLUMN purge_due_at INTEGER;
ALTER TABLE clients ADD COLUMN hold_reason TEXT;
-- Purged and not rewritten: the database's files may still hold what was erased.
ALTER TABLE clients ADD COLUMN purged_at INTEGER;
ALTER TABLE clients ADD COLUMN rewritten_at INTEGER;

-- Each time a device was asked to remove what the board put there. No receipt: not confirmed.
CREATE TABLE wipes (
    id           BLOB PRIMARY KEY NOT NULL,
    device_id    BLOB NOT NULL REFERENCES devices (id),
    -- Also what the client pasted.
    pasted       INTEGER NOT NULL,
    asked_at     INTEGER NOT NULL,
    asked_by     TEXT NOT NULL,
    receipt      TEXT,
    confirmed_at INTEGER
) STRICT;
CREATE INDEX wipes_by_device ON wipes (device_id, id);

-- Which replica runs a periodic job.
CREATE TABLE leases (
    name   TEXT PRIMARY KEY NOT NULL,
    holder TEXT NOT NULL,
    until  INTEGER NOT NULL
) STRICT;
