"""The queue: leases, priorities and budgets of jobs; conditions, events, workers, users, tokens, artifacts, uploads."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TABLES = ("uploads", "artifacts", "audit", "tokens", "users", "workers", "events", "conditions")


def upgrade() -> None:
    """Add the columns and tables; a job that was interrupted is now called paused."""
    for column in _columns():
        op.add_column("jobs", column)
    op.create_index("uq_jobs_submission", "jobs", ["owner", "submission"], unique=True)
    op.create_index("ix_jobs_queue", "jobs", ["state", "priority", "queued_at"])
    op.execute("UPDATE jobs SET state = 'paused' WHERE state = 'interrupted'")
    _job_tables()
    _people_tables()


def _columns() -> list[sa.Column[Any]]:
    integer, number = sa.Integer(), sa.Float()
    return [
        sa.Column("local", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("owner", sa.String(80), nullable=False, server_default=""),
        sa.Column("submission", sa.String(200)),
        sa.Column("priority", integer, nullable=False, server_default="0"),
        sa.Column("attempt", integer, nullable=False, server_default="0"),
        sa.Column("most_attempts", integer, nullable=False, server_default="3"),
        sa.Column("queued_at", number),
        sa.Column("not_before", number),
        sa.Column("started_at", number),
        sa.Column("finished_at", number),
        sa.Column("epoch", integer, nullable=False, server_default="0"),
        sa.Column("worker", sa.String(200), nullable=False, server_default=""),
        sa.Column("lease_until", number),
        sa.Column("beat_at", number),
        sa.Column("wish", sa.String(10), nullable=False, server_default=""),
        sa.Column("seconds_used", number, nullable=False, server_default="0"),
        sa.Column("most_seconds", number),
        sa.Column("needs", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("waiting", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("gpus", integer, nullable=False, server_default="0"),
        sa.Column("progress", sa.JSON(), nullable=False, server_default="{}"),
        sa.Column("record", sa.JSON(), nullable=False, server_default="{}"),
    ]


def _job_tables() -> None:
    op.create_table(
        "conditions",
        sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("reason", sa.String(80), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Index("ix_events_job", "job_id", "id"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("capabilities", sa.JSON(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "artifacts",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(300), primary_key=True),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
    )


def _people_tables() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("user", sa.String(80), sa.ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("expires_at", sa.Float()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float(), nullable=False, index=True),
        sa.Column("user", sa.String(80), nullable=False),
        sa.Column("action", sa.String(80), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
    )
    op.create_table(
        "uploads",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    """Drop them; paused jobs are called interrupted again."""
    for table in _TABLES:
        op.drop_table(table)
    op.execute("UPDATE jobs SET state = 'interrupted' WHERE state = 'paused'")
    op.drop_index("ix_jobs_queue", "jobs")
    op.drop_index("uq_jobs_submission", "jobs")
    for column in _columns():
        op.drop_column("jobs", column.name)
