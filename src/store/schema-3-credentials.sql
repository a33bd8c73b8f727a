-- Credentials of BMCs: passwords on their way, pinned certificates, machines as they were delivered.

-- The rotation of a machine's BMC password, the latest of each; the passwords themselves are sealed
-- in `secret`.
CREATE TABLE rotation (
    machine TEXT PRIMARY KEY,
    json    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The certificate that a machine's BMC must show, where the inventory says `tls = "pin"`.
CREATE TABLE pin (
    machine TEXT PRIMARY KEY,
    sha256  TEXT NOT NULL,
    subject TEXT NOT NULL,
    by_whom TEXT NOT NULL,
    why     TEXT NOT NULL,
    set_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a delivery note says of a machine; its factory password is the secret `factory/<serial>`.
CREATE TABLE delivered (
    serial   TEXT PRIMARY KEY,
    bmc_mac  TEXT NOT NULL,
    rack     TEXT,
    position INTEGER,
    set_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
