-- +goose Up
CREATE TABLE away ( -- machines of which it was written down that they do not answer
  node  TEXT PRIMARY KEY,
  since BIGINT NOT NULL
);

-- +goose Down
