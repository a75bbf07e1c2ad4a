-- What an edge announces, whether operators want nobody sent there, and up to which number it has carried out purges.
ALTER TABLE edges ADD COLUMN prefixes TEXT NOT NULL DEFAULT '[]';     -- JSON: array of prefixes
ALTER TABLE edges ADD COLUMN drained INTEGER NOT NULL DEFAULT 0;
ALTER TABLE edges ADD COLUMN purged_to INTEGER NOT NULL DEFAULT 0;

CREATE TABLE sites (
    name      TEXT PRIMARY KEY,
    latitude  REAL,                               -- both or neither
    longitude REAL,
    cost      INTEGER NOT NULL,
    capacity  INTEGER,                            -- bits per second
    open      INTEGER NOT NULL,
    prefixes  TEXT NOT NULL                       -- JSON: array of prefixes
) STRICT, WITHOUT ROWID;

-- What operators had purged, in order. One partition, of which the newest are kept.
CREATE TABLE purges (
    number INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used twice: edges remember how far they are
    at_ms  INTEGER NOT NULL,
    site   TEXT,                                  -- of which edges; null: of all
    edge   TEXT,                                  -- which edge; null: all
    wanted TEXT NOT NULL                          -- JSON: array of wire::operate::What
) STRICT;

-- What edges answered that could not do it. One partition a purge.
CREATE TABLE purge_errors (
    number INTEGER NOT NULL,
    edge   TEXT NOT NULL,
    error  TEXT NOT NULL,
    PRIMARY KEY (number, edge)
) STRICT, WITHOUT ROWID;
