-- +goose Up
CREATE TABLE away ( -- machines of which it was written down that they do not answer
  node  TEXT COLLATE "C" PRIMARY KEY,
  since BIGINT NOT NULL
);

-- +goose Down
