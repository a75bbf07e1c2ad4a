-- What operators did, in order. A row is there before the deed is, and has its outcome once that is known.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used twice, so that pages stay as they were
    at_ms    INTEGER NOT NULL,
    operator TEXT NOT NULL,
    role     TEXT NOT NULL,
    address  TEXT NOT NULL,
    method   TEXT NOT NULL,
    target   TEXT NOT NULL,                       -- path and query
    status   INTEGER                              -- null: not answered
) STRICT;

CREATE INDEX audit_by_time ON audit (at_ms);

-- Answers that are given again to whoever repeats a request under its key. One partition a caller.
CREATE TABLE answers (
    caller        TEXT NOT NULL,
    route         TEXT NOT NULL,                  -- method and path
    key           TEXT NOT NULL,
    fingerprint   BLOB NOT NULL,                  -- SHA-256 of what was asked
    expires_at_ms INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    headers       TEXT NOT NULL,                  -- JSON: array of [name, value]
    body          BLOB NOT NULL,
    PRIMARY KEY (caller, route, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX answers_of_caller ON answers (caller, expires_at_ms);
CREATE INDEX answers_expiring ON answers (expires_at_ms);
