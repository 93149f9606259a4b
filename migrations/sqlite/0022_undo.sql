-- A person wants what a step did taken back: who and why, and the state that it returns to when nothing comes of it.
ALTER TABLE steps ADD COLUMN undo_for TEXT;
ALTER TABLE steps ADD COLUMN undo_from TEXT;
-- The attempt took it back, or tried to: why.
ALTER TABLE attempts ADD COLUMN undo_for TEXT;
