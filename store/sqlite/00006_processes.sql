-- +goose Up
CREATE TABLE writer ( -- its one row counts commits
  n BIGINT NOT NULL
);
INSERT INTO writer (n) VALUES (0);
ALTER TABLE projects ADD COLUMN repairing BOOLEAN NOT NULL DEFAULT FALSE; -- its access lists are to be put right
-- +goose Down
