-- Sessions at BMCs, sealed with the key of the secrets table: taken up again after a kill, so that a
-- BMC's few slots are not filled by daemons that died.
CREATE TABLE bmc_session (
    machine INTEGER PRIMARY KEY,
    sealed  BLOB NOT NULL
) STRICT;
