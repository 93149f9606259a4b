-- Runbooks of which no step is offered until somebody resumes them.
CREATE TABLE runbook_pauses (
    runbook_id UUID PRIMARY KEY NOT NULL REFERENCES runbooks (id),
    paused_at  TIMESTAMPTZ NOT NULL,
    paused_by  TEXT NOT NULL,
    reason     TEXT NOT NULL
);

-- Looks at what a runbook would change.
CREATE TABLE plans (
    id         UUID PRIMARY KEY NOT NULL,
    runbook_id UUID NOT NULL REFERENCES runbooks (id),
    state      TEXT NOT NULL,
    asked_by   TEXT NOT NULL,
    asked_at   TIMESTAMPTZ NOT NULL,
    -- When it was asked for, sent, or last heard of.
    heard_at   TIMESTAMPTZ NOT NULL,
    ended_at   TIMESTAMPTZ,
    -- Why it ended before every step was looked at.
    reason     TEXT
);
CREATE UNIQUE INDEX plans_open ON plans (runbook_id) WHERE state IN ('asked', 'sent');
CREATE INDEX plans_by_runbook ON plans (runbook_id, asked_at);

-- The steps that a plan asked for, and what the look at each came to; no answer means that it was not looked at.
CREATE TABLE plan_steps (
    plan_id UUID NOT NULL REFERENCES plans (id),
    step_id UUID NOT NULL REFERENCES steps (id),
    answer  TEXT,
    found   TEXT NOT NULL,
    PRIMARY KEY (plan_id, step_id)
);
