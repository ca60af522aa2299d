"""Open a database as a store: pragmas, transactions, schema version; every way it can fail gets one clear sentence."""

import sqlite3
import threading
from pathlib import Path

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from kernelevolve_lab.errors import StoreError
from kernelevolve_lab.store.migrations import HEAD

BUSY_SECONDS = 30.0

_MIGRATING = threading.Lock()  # Alembic keeps the migration under way in a variable of the process


def connect(url: str) -> Engine:
    """Return an engine whose database has this version's schema; raise `StoreError` where that cannot be had."""
    try:
        parsed = make_url(url if "://" in url else f"sqlite:///{url}")
    except ArgumentError:
        raise StoreError(f"'{url}' is not the address of a store; give a path, or a URL such as sqlite:////home/me/lab.db.") from None
    if parsed.get_backend_name() == "sqlite":
        engine = _sqlite(parsed)
    else:
        try:
            engine = create_engine(parsed, pool_pre_ping=True)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError(f"The store {_shown(parsed)} needs a driver that is not installed ({error}).") from None
    try:
        with engine.connect() as connection:
            version = _version(connection, parsed)
        if version != HEAD:
            with engine.execution_options(writes=True).begin() as connection:
                _migrate(connection, _version(connection, parsed))
    except DBAPIError as error:
        engine.dispose()
        raise StoreError(_sentence(parsed, error)) from None
    except BaseException:
        engine.dispose()
        raise
    return engine


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise StoreError("A store in memory would be lost with the process; give the path of a file.")
    path = Path(url.database).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder of the store {path} cannot be made ({error.strerror}); choose another path.") from None
    if path.is_dir():
        raise StoreError(f"The store {path} is a folder; give the path of a file in it.")
    engine = create_engine(url.set(database=str(path)), connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record) -> None:
        # The driver must not open transactions by its own rules: `_begin` below says when a transaction takes the write lock.
        connection.isolation_level = None
        cursor = connection.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            cursor.execute("PRAGMA journal_mode = WAL")
        # FULL, because the next step of a search may cost money or an hour: an event that was appended survives a power cut as well.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that will write says so from the start: one that upgrades later can fail however long it waits.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _version(connection: Connection, url: URL) -> str | None:
    """The schema version found, None for an empty database."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables and ("runs" in tables or not set(tables) - {"alembic_version"}):
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if tables:
        raise StoreError(f"{_shown(url)} is a database of something else; choose another path for the store.")
    return None


def _migrate(connection: Connection, version: str | None) -> None:
    if version == HEAD:  # another process was faster
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise StoreError(
            f"The store was written by a newer version of kernelevolve-lab (schema {version}, this one knows up to {HEAD}); "
            "upgrade kernelevolve-lab, or choose another store."
        )
    with _MIGRATING:
        command.upgrade(config, "head")


def _shown(url: URL) -> str:
    return url.database if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def _sentence(url: URL, error: DBAPIError) -> str:
    shown, what = _shown(url), str(error.orig).strip().splitlines()[0]
    if "not a database" in what or "malformed" in what:
        return f"{shown} is not a store ({what}); choose another path."
    if "readonly" in what or "read-only" in what or "unable to open" in what:
        return f"The store {shown} cannot be written ({what}); choose a path that you may write."
    if "locked" in what:
        return f"The store {shown} stayed locked by another program for {BUSY_SECONDS:.0f} s; close that program or choose another store."
    return f"The store {shown} cannot be opened ({what})."
