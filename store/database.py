"""Opening a database: engine settings, and migrations to the newest schema."""

from __future__ import annotations

import os
import re
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
#: a server that is cut off is noticed within half a minute
_LIBPQ = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4}
_LIBPQ |= {"tcp_user_timeout": 30_000}  # milliseconds


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
        psycopg = parsed.get_backend_name() == "postgresql" and parsed.get_driver_name().startswith("psycopg")
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=_LIBPQ if psycopg else {})
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _configure_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        elif engine.dialect.name == "postgresql":
            event.listen(engine, "connect", _configure_postgresql)
        upgrade(engine)
    except ArgumentError as cause:
        raise InvalidInput(f"cannot read the store URL {_shown(url)!r}; write one such as {DEFAULT_URL}") from cause
    except (OperationalError, ModuleNotFoundError, OSError) as cause:
        reason = str(getattr(cause, "orig", cause)).splitlines()[0]
        raise InvalidInput(f"cannot open the store {_shown(url)!r}: {reason}") from cause
    return engine


def _shown(url: str) -> str:
    """A URL without its password, also one that cannot be read."""
    return re.sub(r":(?!//)[^@]*@", ":***@", url)


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


def _configure_postgresql(connection: Any, record: Any) -> None:
    """The locks of a client that was stopped or cut off in the middle of a transaction do not stay."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION idle_in_transaction_session_timeout = '30s'")
        cursor.execute("SET SESSION tcp_keepalives_idle = 10")
        cursor.execute("SET SESSION tcp_keepalives_interval = 5")
        cursor.execute("SET SESSION tcp_keepalives_count = 4")
    connection.commit()


def _configure_sqlite(connection: Any, record: Any) -> None:
    """Readers never block the writer, a busy writer is waited for, a commit survives a power cut."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "busy_timeout=30000", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
