-- Who an entry is of, as the entry has it: for searching, like the other columns.
ALTER TABLE audit_log ADD COLUMN actor TEXT;
DROP TRIGGER audit_log_refuses_update;
UPDATE audit_log SET actor = json_extract(canonical, '$.who.id');
CREATE TRIGGER audit_log_refuses_update
BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;

CREATE INDEX audit_log_by_client ON audit_log (client_id, seq);
CREATE INDEX audit_log_by_device ON audit_log (device_id, seq);
CREATE INDEX audit_log_by_actor ON audit_log (actor, seq);
CREATE INDEX audit_log_by_time ON audit_log (at, seq);

-- Heads that this log doesn't hold although a device was told them. Each stands until an operator acknowledges it.
CREATE TABLE audit_alarms (
    -- Sequence number of the entry that raised it.
    entry           INTEGER PRIMARY KEY NOT NULL,
    -- NULL: the board itself had seen that head.
    device_id       BLOB REFERENCES devices (id),
    epoch           INTEGER NOT NULL,
    seq             INTEGER NOT NULL,
    hash            BLOB NOT NULL,
    why             TEXT NOT NULL,
    raised_at       INTEGER NOT NULL,
    acknowledged_at INTEGER,
    acknowledged_by TEXT
) STRICT;
CREATE INDEX audit_alarms_by_device ON audit_alarms (device_id);
