-- +goose Up
ALTER TABLE works ADD COLUMN move TEXT COLLATE "C" NOT NULL DEFAULT '';   -- JSON of quire.Move, or empty
ALTER TABLE works ADD COLUMN cancel TEXT COLLATE "C" NOT NULL DEFAULT ''; -- who wants it to end
CREATE TABLE leftovers ( -- what a move left on a node, until it is removed
  project TEXT COLLATE "C" NOT NULL,
  node    TEXT COLLATE "C" NOT NULL,
  what    TEXT COLLATE "C" NOT NULL,
  due     BIGINT NOT NULL, -- when the next step is to be done
  owner   TEXT COLLATE "C" NOT NULL,   -- the order's words: the project may be gone by then
  account TEXT COLLATE "C" NOT NULL,
  uid     BIGINT NOT NULL,
  dir     TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (project, node)
);

-- +goose Down
