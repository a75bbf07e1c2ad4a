-- What viewers did: where they stopped, what they said. Each row is its user's, and no statement needs two users' rows.

-- A view is what was watched of a title in one go. The latest of a title is where its viewer stopped.
CREATE TABLE views (
    user_id     TEXT NOT NULL,
    title_id    TEXT NOT NULL,
    begun_ms    INTEGER NOT NULL,
    last_ms     INTEGER NOT NULL,
    position_ms INTEGER NOT NULL,
    furthest_ms INTEGER NOT NULL,
    device      TEXT,
    PRIMARY KEY (user_id, title_id, begun_ms)
) STRICT, WITHOUT ROWID;

-- Views that are old, packed: those of a user that began in one period of 30 days, in chunks when there are many.
CREATE TABLE view_packs (
    user_id        TEXT NOT NULL,
    period         INTEGER NOT NULL,
    chunk          INTEGER NOT NULL,
    views          INTEGER NOT NULL,
    first_begun_ms INTEGER NOT NULL,
    last_begun_ms  INTEGER NOT NULL,
    last_ms        INTEGER NOT NULL,    -- the largest of all
    titles         BLOB NOT NULL,       -- two bytes a title, by which most other titles are known not to be here
    data           BLOB NOT NULL,
    PRIMARY KEY (user_id, period, chunk)
) STRICT, WITHOUT ROWID;

-- Whose rows of a period will have to be packed (what = 0) or dropped (what = 1).
CREATE TABLE views_due (
    user_id TEXT NOT NULL,
    what    INTEGER NOT NULL,
    period  INTEGER NOT NULL,
    views   INTEGER NOT NULL,           -- how many began there, about
    PRIMARY KEY (user_id, what, period)
) STRICT, WITHOUT ROWID;

CREATE INDEX views_due_next ON views_due (what, period, user_id);

-- What a viewer said of a title. A time of 0 is never.
CREATE TABLE marks (
    user_id    TEXT NOT NULL,
    title_id   TEXT NOT NULL,
    opinion    INTEGER NOT NULL,        -- 0 none, 1 like, 2 dislike
    opinion_ms INTEGER NOT NULL,
    hidden_ms  INTEGER NOT NULL,
    PRIMARY KEY (user_id, title_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX marks_newest ON marks (user_id, opinion, opinion_ms, title_id) WHERE opinion <> 0;

-- Who was forgotten, by a digest, until events from before are refused anyway.
CREATE TABLE forgotten_users (
    digest BLOB PRIMARY KEY,
    at_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Up to which number of the viewers' journal everything is in the tables above.
CREATE TABLE viewers_journal (
    only     INTEGER PRIMARY KEY CHECK (only = 0),
    sequence INTEGER NOT NULL
) STRICT;

INSERT INTO viewers_journal (only, sequence) VALUES (0, 0);
