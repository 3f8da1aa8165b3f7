"""Failures: candidates that could not be measured."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "failures",
        sa.Column("context", sa.String(80), primary_key=True),
        sa.Column("configuration", sa.String(16), primary_key=True),
        sa.Column("split", sa.String(20), primary_key=True),
        sa.Column("formats", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("worker", sa.String(120), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("failures")
