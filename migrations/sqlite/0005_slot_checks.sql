-- What asking the provider about a secret on a device came to: in words, the recorded fields as JSON, and when.
ALTER TABLE installed_slots ADD COLUMN check_said TEXT;
ALTER TABLE installed_slots ADD COLUMN check_recorded TEXT;
ALTER TABLE installed_slots ADD COLUMN checked_at INTEGER;
