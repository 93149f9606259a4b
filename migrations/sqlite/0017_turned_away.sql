-- Other Macs that a consultant turned away when they came with a device's certificate.
CREATE TABLE turned_away (
    device_id     BLOB NOT NULL REFERENCES devices (id),
    hardware_uuid TEXT NOT NULL,
    at            INTEGER NOT NULL,
    PRIMARY KEY (device_id, hardware_uuid)
) STRICT;

-- What waits for a decision is counted for every page: few rows among many.
CREATE INDEX enrollments_pending ON enrollments (expires_at) WHERE state = 'pending';
CREATE INDEX enrollments_late ON enrollments (renewal_asked_at)
    WHERE state = 'enrolled' AND renewal_asked_at IS NOT NULL AND renewal_confirmed_at IS NULL;
CREATE INDEX devices_quarantined ON devices (id) WHERE state = 'quarantined';
