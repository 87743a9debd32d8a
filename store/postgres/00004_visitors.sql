-- +goose Up
ALTER TABLE users ADD COLUMN visitor BOOLEAN NOT NULL DEFAULT FALSE; -- not a person: whoever reads public folders
ALTER TABLE sessions ADD COLUMN permit TEXT COLLATE "C" NOT NULL DEFAULT 'write';  -- of its app when it was started: the gateway
ALTER TABLE sessions ADD COLUMN content BOOLEAN NOT NULL DEFAULT FALSE; -- must know before the node can say

-- +goose Down
