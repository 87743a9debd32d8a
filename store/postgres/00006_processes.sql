-- +goose Up
ALTER TABLE writer ADD COLUMN term BIGINT NOT NULL DEFAULT 0; -- of the process that does the works: a former one cannot write any more
ALTER TABLE projects ADD COLUMN repairing BOOLEAN NOT NULL DEFAULT FALSE; -- its access lists are to be put right
-- +goose Down
