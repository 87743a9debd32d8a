-- +goose Up
CREATE TABLE moved ( -- addresses that projects had before they were handed over
  owner    TEXT NOT NULL REFERENCES users(id),
  name_key TEXT NOT NULL,
  project  TEXT NOT NULL REFERENCES projects(id),
  PRIMARY KEY (owner, name_key)
);
ALTER TABLE works ADD COLUMN author BIGINT NOT NULL DEFAULT 0;    -- of a take-over: whose files
ALTER TABLE lowered ADD COLUMN report TEXT NOT NULL DEFAULT '[]'; -- JSON of []quire.Finding: what the sweep could not do

-- +goose Down
