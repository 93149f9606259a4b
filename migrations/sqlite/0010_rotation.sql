-- Which version of a secret a device said it holds: at hello, and in each receipt. After a restore it may be above the board's.
CREATE TABLE held_secrets (
    device_id BLOB NOT NULL REFERENCES devices (id),
    slot_id   BLOB NOT NULL REFERENCES component_credential_slots (id),
    version   INTEGER NOT NULL,
    said_at   INTEGER NOT NULL,
    PRIMARY KEY (device_id, slot_id)
) STRICT;
INSERT INTO held_secrets (device_id, slot_id, version, said_at)
SELECT device_id, slot_id, max(version), max(receipt_at) FROM deliveries
WHERE state = 'receipted' AND receipt_at IS NOT NULL GROUP BY device_id, slot_id;

-- When a device first had this version. A delivery that is made again keeps it.
ALTER TABLE deliveries ADD COLUMN first_receipt_at INTEGER;
UPDATE deliveries SET first_receipt_at = receipt_at;

-- Why a step is to run again, and why an attempt ran again: "version 2 of tool/OUR_KEY".
ALTER TABLE steps ADD COLUMN rerun_for TEXT;
ALTER TABLE attempts ADD COLUMN rerun_for TEXT;

-- One authority issues, one may be coming: its proof is its key, certified by the one before.
ALTER TABLE authorities ADD COLUMN state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'coming', 'retired'));
ALTER TABLE authorities ADD COLUMN proof BLOB;
ALTER TABLE authorities ADD COLUMN retired_at INTEGER;
CREATE UNIQUE INDEX authorities_by_state ON authorities (state) WHERE state <> 'retired';
-- The authority that the device pinned when it joined, and the newest that it said it keeps.
ALTER TABLE enrollments ADD COLUMN pinned_authority INTEGER NOT NULL DEFAULT 1;
ALTER TABLE enrollments ADD COLUMN acknowledged_authority INTEGER;
