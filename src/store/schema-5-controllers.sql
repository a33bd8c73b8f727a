-- A machine's further controllers have sessions of their own: `controller` is their name, and empty for
-- the host's BMC.
CREATE TABLE bmc_session_at (
    machine    INTEGER NOT NULL,
    controller TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    PRIMARY KEY (machine, controller)
) STRICT, WITHOUT ROWID;
INSERT INTO bmc_session_at SELECT machine, '', sealed FROM bmc_session;
DROP TABLE bmc_session;
ALTER TABLE bmc_session_at RENAME TO bmc_session;
