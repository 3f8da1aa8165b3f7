"""Scored formulas; names of proxies and origins of any length, because a formula may be a name."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WIDENED = (("candidates", "origin", 40), ("scores", "proxy", 80))


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "formulas",
        sa.Column("context", sa.String(80), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("expression", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("signature", sa.String(64), nullable=False),
        sa.Column("fitness", sa.Float(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )

    if op.get_bind().dialect.name != "sqlite":  # which knows no length, and would copy the tables
        for table, column, length in _WIDENED:
            op.alter_column(table, column, type_=sa.Text(), existing_type=sa.String(length), existing_nullable=False)


def downgrade() -> None:
    """Drop the table; the columns stay wide, so that no name is cut."""
    op.drop_table("formulas")
