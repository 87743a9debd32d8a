-- +goose Up
CREATE TABLE accounts (
  user_id TEXT PRIMARY KEY,       -- no reference: the row outlives the person, so that a number is never used again
  name    TEXT NOT NULL UNIQUE,
  uid     BIGINT NOT NULL UNIQUE,
  created BIGINT NOT NULL
);
CREATE TABLE lowered ( -- people whose rights in a project were taken or lowered, until they get them back
  project TEXT NOT NULL REFERENCES projects(id),
  user_id TEXT NOT NULL REFERENCES users(id),
  seq     BIGINT NOT NULL, -- of the revocation
  at      BIGINT NOT NULL,
  cut     BIGINT,          -- when the project's nodes had carried it out
  swept   BIGINT,          -- when no file's access list named them any more
  PRIMARY KEY (project, user_id)
);
ALTER TABLE projects ADD COLUMN team BIGINT NOT NULL DEFAULT 1;         -- counts changes of the team
ALTER TABLE projects ADD COLUMN team_on_disk BIGINT NOT NULL DEFAULT 0; -- the last one that the node has carried out
ALTER TABLE projects ADD COLUMN team_note TEXT NOT NULL DEFAULT '';
ALTER TABLE projects ADD COLUMN repair_note TEXT NOT NULL DEFAULT '';
ALTER TABLE projects ADD COLUMN repaired BIGINT;

-- +goose Down
