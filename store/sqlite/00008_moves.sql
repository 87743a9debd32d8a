-- +goose Up
ALTER TABLE works ADD COLUMN move TEXT NOT NULL DEFAULT '';   -- JSON of quire.Move, or empty
ALTER TABLE works ADD COLUMN cancel TEXT NOT NULL DEFAULT ''; -- who wants it to end
CREATE TABLE leftovers ( -- what a move left on a node, until it is removed
  project TEXT NOT NULL,
  node    TEXT NOT NULL,
  what    TEXT NOT NULL,
  due     BIGINT NOT NULL, -- when the next step is to be done
  owner   TEXT NOT NULL,   -- the order's words: the project may be gone by then
  account TEXT NOT NULL,
  uid     BIGINT NOT NULL,
  dir     TEXT NOT NULL,
  PRIMARY KEY (project, node)
);

-- +goose Down
