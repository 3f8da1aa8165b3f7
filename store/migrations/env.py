"""Alembic environment: runs on the connection that ``database.upgrade`` hands over."""

from alembic import context
from bitfront.store import models, queue_models  # noqa: F401  (their tables belong to the metadata)
from bitfront.store.base import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
