"""The tables of the store. A change here needs a migration in `migrations/versions`; a test holds the two equal."""

from sqlalchemy import Boolean, Column, Float, ForeignKey, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

RUN_ID = String(64)
DIGEST = String(64)

# `last_seq` hands out sequence numbers: raising it takes the row's lock, which orders concurrent writers of one run.
# `summary` is a cache of `RunSummary` as of event `summary_seq`; it can be dropped at any time.
# `imported` marks runs whose text came from somebody else: nothing in them may be unpickled.
RUNS = Table(
    "runs",
    METADATA,
    Column("id", RUN_ID, primary_key=True),
    Column("created", Float, nullable=False, index=True),
    Column("last_seq", Integer, nullable=False),
    Column("imported", Boolean, nullable=False),
    Column("summary", Text),
    Column("summary_seq", Integer, nullable=False),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("run", RUN_ID, ForeignKey(RUNS.c.id, ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("time", Float, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("payload", Text, nullable=False),
)

# `data` is compressed with zlib; `digest` is the SHA-256 of the content before compression.
BLOBS = Table(
    "blobs",
    METADATA,
    Column("digest", DIGEST, primary_key=True),
    Column("size", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# One row for each run that a process drives. `machine` names the host, its boot and the namespace of process ids; a process id means
# something only within it.
DRIVES = Table(
    "drives",
    METADATA,
    Column("run", RUN_ID, ForeignKey(RUNS.c.id, ondelete="CASCADE"), primary_key=True),
    Column("token", String(32), nullable=False),
    Column("host", String(255), nullable=False),
    Column("machine", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", String(32), nullable=False),
    Column("since", Float, nullable=False),
    Column("heartbeat", Float, nullable=False),
)
