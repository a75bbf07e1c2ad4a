-- Every table is keyed by the one thing it is asked for (a title's id, a fingerprint, an edge's id) and no statement
-- joins two of them, so that each can be a partition of a distributed engine.

CREATE TABLE titles (
    id            TEXT PRIMARY KEY,
    title         TEXT NOT NULL,
    description   TEXT NOT NULL,
    cast_names    TEXT NOT NULL,    -- JSON: array of strings
    rating        TEXT,
    duration_ms   INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    root          TEXT NOT NULL,
    fingerprint   TEXT NOT NULL,
    hls           TEXT NOT NULL,
    dash          TEXT NOT NULL,
    poster        TEXT NOT NULL,
    storyboard    TEXT NOT NULL,
    renditions    TEXT NOT NULL,    -- JSON: wire::title::Rendition, segments empty
    searched      TEXT NOT NULL     -- title, description and cast, folded
) STRICT;

CREATE INDEX titles_newest ON titles (created_at_ms, id);

CREATE TABLE fingerprints (
    fingerprint TEXT PRIMARY KEY,
    title_id    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE segments (
    title_id     TEXT NOT NULL,
    rendition_id TEXT NOT NULL,
    number       INTEGER NOT NULL,  -- from 1, in play order
    start_ms     INTEGER NOT NULL,
    duration_ms  INTEGER NOT NULL,
    path         TEXT NOT NULL,
    PRIMARY KEY (title_id, rendition_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE objects (
    title_id     TEXT NOT NULL,
    path         TEXT NOT NULL,
    bytes        INTEGER NOT NULL,
    digest       TEXT NOT NULL,
    content_type TEXT NOT NULL,
    PRIMARY KEY (title_id, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE edges (
    id      TEXT PRIMARY KEY,
    site    TEXT NOT NULL,
    url     TEXT NOT NULL,
    version TEXT NOT NULL
) STRICT, WITHOUT ROWID;
