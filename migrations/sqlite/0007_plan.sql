-- Runbooks of which no step is offered until somebody resumes them.
CREATE TABLE runbook_pauses (
    runbook_id BLOB PRIMARY KEY NOT NULL REFERENCES runbooks (id),
    paused_at  INTEGER NOT NULL,
    paused_by  TEXT NOT NULL,
    reason     TEXT NOT NULL
) STRICT;

-- Looks at what a runbook would change.
CREATE TABLE plans (
    id         BLOB PRIMARY KEY NOT NULL,
    runbook_id BLOB NOT NULL REFERENCES runbooks (id),
    state      TEXT NOT NULL,
    asked_by   TEXT NOT NULL,
    asked_at   INTEGER NOT NULL,
    -- When it was asked for, sent, or last heard of.
    heard_at   INTEGER NOT NULL,
    ended_at   INTEGER,
    -- Why it ended before every step was looked at.
    reason     TEXT
) STRICT;
CREATE UNIQUE INDEX plans_open ON plans (runbook_id) WHERE state IN ('asked', 'sent');
CREATE INDEX plans_by_runbook ON plans (runbook_id, asked_at);

-- The steps that a plan asked for, and what the look at each came to; no answer means that it was not looked at.
CREATE TABLE plan_steps (
    plan_id BLOB NOT NULL REFERENCES plans (id),
    step_id BLOB NOT NULL REFERENCES steps (id),
    answer  TEXT,
    found   TEXT NOT NULL,
    PRIMARY KEY (plan_id, step_id)
) STRICT;
