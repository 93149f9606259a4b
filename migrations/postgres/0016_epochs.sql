-- What stands until an operator acknowledges it is a head that doesn't fit, or a restore.
ALTER TABLE audit_alarms ADD COLUMN kind TEXT NOT NULL DEFAULT 'head' CHECK (kind IN ('head', 'restore'));

-- Set by a restore: the device may hold a certificate that was issued after the backup. Ends with the first use of one
-- that this database knows.
ALTER TABLE enrollments ADD COLUMN restored_at TIMESTAMPTZ;

-- While one is open nothing is decrypted, offered or delivered.
CREATE TABLE incidents (
    number    BIGINT PRIMARY KEY NOT NULL,
    -- 1 while it is open, so that only one is.
    open      BIGINT UNIQUE CHECK (open = 1),
    at        TIMESTAMPTZ NOT NULL,
    who       TEXT NOT NULL,
    reason    TEXT NOT NULL,
    lifted_at TIMESTAMPTZ,
    lifted_by TEXT
);
