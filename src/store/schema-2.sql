-- Second migration: events for webhooks, written in the transaction of what causes them.

-- In the order of their commits; the oldest go when there are too many. The incarnation is part of
-- an event's id, so that no id comes twice after a restore.
CREATE TABLE outbox (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    incarnation TEXT NOT NULL,
    event       TEXT NOT NULL,
    wall_ms     INTEGER NOT NULL,
    json        TEXT NOT NULL
) STRICT;

-- The last line that each hook had.
CREATE TABLE webhook (
    name      TEXT PRIMARY KEY,
    delivered INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Events that no entry causes are told once: since when the last one of a machine held.
CREATE TABLE told (
    event   TEXT NOT NULL,
    machine INTEGER NOT NULL,
    since   INTEGER NOT NULL,
    PRIMARY KEY (event, machine)
) STRICT, WITHOUT ROWID;
