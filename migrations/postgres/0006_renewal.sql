-- A Mac that was silent for long asks to renew; a consultant confirms.
ALTER TABLE enrollments ADD COLUMN renewal_asked_at TIMESTAMPTZ;
ALTER TABLE enrollments ADD COLUMN renewal_confirmed_at TIMESTAMPTZ;
-- The hardware UUID that a quarantined device says it has.
ALTER TABLE devices ADD COLUMN other_hardware_uuid TEXT;
