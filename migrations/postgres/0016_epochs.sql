-- What stands until an operator acknowledges it is a head that doesn't fit, or a restore.
ALTER TABLE audit_alarms ADD COLUMN kind TEXT NOT NULL DEFAULT 'head' CHECK (kind IN ('head', 'restore'));

-- Set by a restore: the device may hold a certificate that was issued after the backup. Ends with the first use of one
-- that this database knows.
ALTER TABLE enrollments ADD COLUMN restored_at TIMESTAMPTZ;

-- While its row is there nothing is decrypted, offered or delivered.
CREATE TABLE incidents (
    singleton BIGINT PRIMARY KEY NOT NULL CHECK (singleton = 1),
    at        TIMESTAMPTZ NOT NULL,
    who       TEXT NOT NULL,
    reason    TEXT NOT NULL
);
