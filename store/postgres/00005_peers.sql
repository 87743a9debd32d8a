-- +goose Up
CREATE TABLE peers ( -- the keys of gateways and nodes
  node        TEXT COLLATE "C" PRIMARY KEY,
  fingerprint TEXT COLLATE "C" NOT NULL UNIQUE,
  generation  BIGINT NOT NULL,  -- of the newest certificate it has shown
  issued      BIGINT NOT NULL,  -- of the newest it was given
  expires     BIGINT NOT NULL,
  joined      BIGINT NOT NULL,
  cloned      BOOLEAN NOT NULL,
  token       TEXT COLLATE "C" NOT NULL     -- by which it joined, or empty
);
CREATE TABLE join_tokens (
  id          TEXT COLLATE "C" PRIMARY KEY, -- fingerprint of the public key; the token itself is nowhere
  role        TEXT COLLATE "C" NOT NULL,
  data_center TEXT COLLATE "C" NOT NULL,
  name        TEXT COLLATE "C" NOT NULL,
  address     TEXT COLLATE "C" NOT NULL,
  summary     TEXT COLLATE "C" NOT NULL,
  uses        BIGINT NOT NULL,  -- left
  created     BIGINT NOT NULL,
  expires     BIGINT NOT NULL,
  by_name     TEXT COLLATE "C" NOT NULL
);
ALTER TABLE data_centers ADD COLUMN apps TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE data_centers ADD COLUMN removed BIGINT;
ALTER TABLE nodes ADD COLUMN summary TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN note TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN drained BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE nodes ADD COLUMN removed BIGINT;

-- +goose Down
