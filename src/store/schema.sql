-- First migration. Times: engine milliseconds (`at`) and wall-clock milliseconds since 1970
-- (`wall_ms`). Rows and entries are JSON as the model serializes them; the columns beside them
-- are for people and for queries.

-- The site as a whole: exactly one row.
CREATE TABLE site_state (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    incarnation TEXT NOT NULL,
    engine_time INTEGER NOT NULL,
    wall_ms     INTEGER NOT NULL,
    stopped     TEXT,
    resumed_at  INTEGER NOT NULL
) STRICT;

-- Who writes: a commit names the epoch it was given at its start and takes the next sequence
-- numbers; an older epoch writes nothing.
CREATE TABLE shard (
    id    INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    seq   INTEGER NOT NULL
) STRICT;

-- Machines as the inventory expects them. The id is the machine's for good.
CREATE TABLE expected (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    json TEXT NOT NULL
) STRICT;

-- The hot rows: what the journal folds to.
CREATE TABLE machine (
    id        INTEGER PRIMARY KEY,
    shard     INTEGER NOT NULL,
    name      TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    control   TEXT NOT NULL,
    desired   TEXT,
    stage     TEXT NOT NULL,
    condition TEXT NOT NULL,
    held      INTEGER NOT NULL,
    run       INTEGER,
    json      TEXT NOT NULL
) STRICT;

-- Facts beside the row, by part of a probe: the last that was seen, or the fault of a part that
-- never was.
CREATE TABLE facts (
    machine INTEGER NOT NULL REFERENCES machine (id),
    part    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    seen    INTEGER NOT NULL,
    json    TEXT NOT NULL,
    PRIMARY KEY (machine, part)
) STRICT;

-- What happened: append-only, `seq` dense in its shard, `machine_seq` dense in its machine.
CREATE TABLE journal (
    shard       INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    machine     INTEGER NOT NULL,
    machine_seq INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    wall_ms     INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    run         INTEGER,
    entry       TEXT NOT NULL,
    json        TEXT NOT NULL,
    PRIMARY KEY (shard, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX journal_machine ON journal (machine, machine_seq);

-- Idempotency keys of changes: said twice, done once.
CREATE TABLE change_key (
    machine INTEGER NOT NULL,
    key     TEXT NOT NULL,
    PRIMARY KEY (machine, key)
) STRICT, WITHOUT ROWID;

-- Normalized workflows that runs are pinned to.
CREATE TABLE workflow (
    hash TEXT PRIMARY KEY,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Secrets, each sealed with the key that is kept outside of this file.
CREATE TABLE secret (
    name   TEXT PRIMARY KEY,
    user   TEXT NOT NULL,
    sealed BLOB NOT NULL,
    set_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
