-- Whether the console may seal what a consultant types: whoever does it trusts the board's own scripts.
ALTER TABLE clients ADD COLUMN browser_paste BOOLEAN NOT NULL DEFAULT TRUE;
