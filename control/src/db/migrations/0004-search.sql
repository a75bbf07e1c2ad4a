-- What titles are filtered by, and a stamp of each that search compares its index by; titles of before have the stamp 0, which is
-- as good as any until they change. Search has an index of its own, so what it looked at here is gone.
ALTER TABLE titles ADD COLUMN genres TEXT NOT NULL DEFAULT '[]';    -- JSON: array of strings
ALTER TABLE titles ADD COLUMN year INTEGER;
ALTER TABLE titles ADD COLUMN language TEXT;
ALTER TABLE titles ADD COLUMN kind TEXT;
ALTER TABLE titles ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;
ALTER TABLE titles DROP COLUMN searched;

CREATE INDEX titles_stamps ON titles (id, stamp);

-- A source may be catalogued under several ids, if an operator wants it so.
CREATE TABLE sources (
    fingerprint TEXT NOT NULL,
    title_id    TEXT NOT NULL,
    PRIMARY KEY (fingerprint, title_id)
) STRICT, WITHOUT ROWID;
INSERT INTO sources (fingerprint, title_id) SELECT fingerprint, title_id FROM fingerprints;
DROP TABLE fingerprints;
