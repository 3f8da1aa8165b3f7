"""Opening a database: engine settings, and migrations to the newest schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from ..errors import InvalidInput

DEFAULT_URL = "sqlite:///.bitfront/store.db"


def default_url() -> str:
    """``$BITFRONT_STORE``, or a SQLite file ``.bitfront/store.db`` below the current folder."""
    return os.environ.get("BITFRONT_STORE", DEFAULT_URL)


def open_engine(url: str) -> Engine:
    """An engine on an up-to-date schema.

    Args:
        url: SQLAlchemy URL, such as ``sqlite:///runs.db`` or ``postgresql+psycopg://user@host/db``.

    Returns:
        The engine; SQLite runs in write-ahead mode and every commit is synced.

    Raises:
        InvalidInput: the URL cannot be read or the database cannot be reached.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, pool_pre_ping=True)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _configure_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        upgrade(engine)
    except ArgumentError as cause:
        raise InvalidInput(f"cannot read the store URL {url!r}: {cause}; for example {DEFAULT_URL}") from None
    except (OperationalError, ModuleNotFoundError, OSError) as cause:
        reason = str(getattr(cause, "orig", cause)).splitlines()[0]
        raise InvalidInput(f"cannot open the store {url!r}: {reason}") from cause
    return engine


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; one process migrates, others wait for it.

    Raises:
        InvalidInput: the schema was written by a newer bitfront.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == newest:
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise InvalidInput(
            f"the store has schema {current}, newer than this bitfront knows ({newest}); upgrade bitfront"
        )
    with writing(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(8117042)"))
        if MigrationContext.configure(connection).get_current_revision() != newest:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def writing(engine: Engine) -> Engine:
    """The engine for transactions that write: SQLite takes the write lock at their start, not in their middle."""
    return engine.execution_options(sqlite_begin="IMMEDIATE")


def _begin_sqlite(connection: Connection) -> None:
    """Python's driver begins no transaction before DDL or SELECT, so it is told to begin none, and this begins it."""
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _configure_sqlite(connection: Any, record: Any) -> None:
    """Readers never block the writer, a busy writer is waited for, a commit survives a power cut."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "busy_timeout=30000", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
