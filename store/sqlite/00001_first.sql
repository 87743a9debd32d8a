-- +goose Up
CREATE TABLE users (
  id        TEXT PRIMARY KEY,
  name      TEXT NOT NULL,
  name_key  TEXT NOT NULL UNIQUE, -- lower case: unique regardless of case
  full_name TEXT NOT NULL,
  email     TEXT NOT NULL,
  admin     BOOLEAN NOT NULL,
  disabled  BOOLEAN NOT NULL,
  password  TEXT NOT NULL,        -- PHC string
  created   BIGINT NOT NULL
);
CREATE TABLE logins (
  id         TEXT PRIMARY KEY,
  user_id    TEXT NOT NULL REFERENCES users(id),
  read_hash  TEXT NOT NULL UNIQUE,
  write_hash TEXT NOT NULL,
  created    BIGINT NOT NULL,
  last_seen  BIGINT NOT NULL,
  address    TEXT NOT NULL,
  agent      TEXT NOT NULL
);
CREATE INDEX logins_user ON logins(user_id);
CREATE TABLE setup_links (
  hash    TEXT PRIMARY KEY,
  expires BIGINT NOT NULL
);
CREATE TABLE data_centers (
  id      TEXT PRIMARY KEY,
  name    TEXT NOT NULL UNIQUE,
  gateway TEXT NOT NULL,
  address TEXT NOT NULL,
  summary TEXT NOT NULL
);
CREATE TABLE nodes (
  id          TEXT PRIMARY KEY,
  data_center TEXT NOT NULL REFERENCES data_centers(id),
  name        TEXT NOT NULL UNIQUE,
  address     TEXT NOT NULL
);
CREATE TABLE projects (
  id          TEXT PRIMARY KEY,
  owner       TEXT NOT NULL REFERENCES users(id),
  name        TEXT NOT NULL,
  name_key    TEXT NOT NULL,
  summary     TEXT NOT NULL,
  description TEXT NOT NULL,
  public      BOOLEAN NOT NULL,
  data_center TEXT NOT NULL REFERENCES data_centers(id),
  node        TEXT NOT NULL REFERENCES nodes(id),
  dir         TEXT NOT NULL,
  source      TEXT NOT NULL,
  state       TEXT NOT NULL,
  reason      TEXT NOT NULL,
  prepared    TEXT NOT NULL, -- names of the steps that need not run again, comma separated
  created     BIGINT NOT NULL,
  changed     BIGINT NOT NULL,
  deleted     BIGINT         -- when; NULL while it lives
);
CREATE UNIQUE INDEX projects_name ON projects(owner, name_key) WHERE deleted IS NULL;
CREATE UNIQUE INDEX projects_dir ON projects(dir) WHERE deleted IS NULL;
CREATE TABLE members (
  project TEXT NOT NULL REFERENCES projects(id),
  user_id TEXT NOT NULL REFERENCES users(id),
  role    TEXT NOT NULL,
  PRIMARY KEY (project, user_id)
);
CREATE INDEX members_user ON members(user_id);
CREATE TABLE stars (
  project TEXT NOT NULL REFERENCES projects(id),
  user_id TEXT NOT NULL REFERENCES users(id),
  PRIMARY KEY (project, user_id)
);
CREATE TABLE labels (
  label   TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users(id),
  project TEXT NOT NULL REFERENCES projects(id),
  UNIQUE (user_id, project)
);
CREATE TABLE sessions (
  id      TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users(id),
  project TEXT NOT NULL REFERENCES projects(id),
  app     TEXT NOT NULL,
  node    TEXT NOT NULL REFERENCES nodes(id),
  state   TEXT NOT NULL,
  reason  TEXT NOT NULL,
  log     TEXT NOT NULL,
  stop_by TEXT NOT NULL, -- who asked for the stop, while stopping
  ended_exit TEXT NOT NULL, -- JSON of quire.Exit, or empty
  created BIGINT NOT NULL,
  ready   BIGINT,
  ended   BIGINT
);
CREATE UNIQUE INDEX sessions_live ON sessions(user_id, project, app) WHERE state IN ('starting', 'running', 'stopping');
CREATE INDEX sessions_project ON sessions(project, created);
CREATE TABLE works (
  id      TEXT PRIMARY KEY,
  kind    TEXT NOT NULL,
  project TEXT NOT NULL REFERENCES projects(id),
  actor   TEXT NOT NULL,
  by_name TEXT NOT NULL,
  state   TEXT NOT NULL,
  error   TEXT NOT NULL,
  log     TEXT NOT NULL,
  steps   TEXT NOT NULL, -- JSON of []quire.Step
  created BIGINT NOT NULL,
  ended   BIGINT
);
CREATE UNIQUE INDEX works_open ON works(project) WHERE ended IS NULL; -- one at a time
CREATE INDEX works_project ON works(project, created);
CREATE TABLE revocations (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  project TEXT NOT NULL,
  login   TEXT NOT NULL,
  at      BIGINT NOT NULL
);
CREATE TABLE events (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  at      BIGINT NOT NULL,
  actor   TEXT NOT NULL,
  name    TEXT NOT NULL,
  address TEXT NOT NULL,
  verb    TEXT NOT NULL,
  project TEXT NOT NULL,
  detail  TEXT NOT NULL
);
CREATE INDEX events_project ON events(project, seq);
CREATE INDEX events_actor ON events(actor, seq);
CREATE TABLE settings (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

-- +goose Down
