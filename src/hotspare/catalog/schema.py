"""The tables of the catalog, as steps from one version to the next; see ``sqlite.migrate``."""

MIGRATIONS = (
    """
    CREATE TABLE points (
        repository TEXT NOT NULL,
        id TEXT NOT NULL,
        machine_id TEXT NOT NULL,
        machine_name TEXT NOT NULL,
        platform TEXT NOT NULL,
        finished_at TEXT NOT NULL,
        consistency TEXT NOT NULL,
        PRIMARY KEY (repository, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        machine TEXT NOT NULL,
        platform TEXT NOT NULL,
        repository TEXT NOT NULL,
        process TEXT NOT NULL,
        started_at TEXT NOT NULL,
        finished_at TEXT,
        outcome TEXT,
        error_code TEXT,
        error TEXT,
        point TEXT,
        bytes_read INTEGER NOT NULL DEFAULT 0,
        bytes_stored INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX points_of_a_machine ON points (platform, machine_id, finished_at);
    CREATE INDEX runs_of_a_machine ON runs (platform, machine, id);
    """,
    """
    ALTER TABLE runs ADD COLUMN held_back_seconds REAL;
    ALTER TABLE runs ADD COLUMN latency_factor REAL;
    """,
    """
    ALTER TABLE points ADD COLUMN boot_at TEXT;
    ALTER TABLE points ADD COLUMN boot_passed INTEGER;
    ALTER TABLE points ADD COLUMN boot_life TEXT;
    """,
    """
    ALTER TABLE runs ADD COLUMN policy TEXT;
    CREATE INDEX runs_of_a_policy ON runs (policy, id) WHERE policy IS NOT NULL;
    CREATE TABLE load_samples (
        platform TEXT NOT NULL,
        at TEXT NOT NULL,
        cpu REAL NOT NULL,
        disk REAL NOT NULL,
        network REAL NOT NULL,
        latency REAL,
        backing_up INTEGER NOT NULL,
        PRIMARY KEY (platform, at)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE runs ADD COLUMN warnings INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN seconds_reading REAL;
    ALTER TABLE runs ADD COLUMN seconds_processing REAL;
    ALTER TABLE runs ADD COLUMN seconds_storing REAL;
    ALTER TABLE points ADD COLUMN size INTEGER;
    ALTER TABLE points ADD COLUMN bytes_stored INTEGER;
    ALTER TABLE points ADD COLUMN tags TEXT;
    CREATE INDEX backups_by_time ON runs (started_at) WHERE kind = 'backup';
    CREATE INDEX runs_of_a_policy_by_machine ON runs (policy, platform, machine, id) WHERE policy IS NOT NULL;
    """,
)

VERSION = len(MIGRATIONS)
