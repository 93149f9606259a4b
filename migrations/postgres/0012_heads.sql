-- Who an entry is of, as the entry has it: for searching, like the other columns.
ALTER TABLE audit_log ADD COLUMN actor TEXT;
DROP TRIGGER audit_log_refuses_update ON audit_log;
UPDATE audit_log SET actor = canonical::json -> 'who' ->> 'id';
CREATE TRIGGER audit_log_refuses_update BEFORE UPDATE ON audit_log
FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only();

CREATE INDEX audit_log_by_client ON audit_log (client_id, seq);
CREATE INDEX audit_log_by_device ON audit_log (device_id, seq);
CREATE INDEX audit_log_by_actor ON audit_log (actor, seq);
CREATE INDEX audit_log_by_time ON audit_log (at, seq);

-- Heads that this log doesn't hold although a device was told them. Each stands until an operator acknowledges it.
CREATE TABLE audit_alarms (
    -- Sequence number of the entry that raised it.
    entry           BIGINT PRIMARY KEY NOT NULL,
    -- NULL: the board itself had seen that head.
    device_id       UUID REFERENCES devices (id),
    epoch           BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    hash            BYTEA NOT NULL,
    why             TEXT NOT NULL,
    raised_at       TIMESTAMPTZ NOT NULL,
    acknowledged_at TIMESTAMPTZ,
    acknowledged_by TEXT
);
CREATE INDEX audit_alarms_by_device ON audit_alarms (device_id);
