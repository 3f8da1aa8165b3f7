"""First tables: jobs, candidates, evaluations, scores, kernels."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("specification", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("out", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "candidates",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("configuration", sa.String(16), primary_key=True),
        sa.Column("formats", sa.JSON(), nullable=False),
        sa.Column("origin", sa.String(40), nullable=False),
        sa.Column("predicted", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "evaluations",
        sa.Column("context", sa.String(80), primary_key=True),
        sa.Column("configuration", sa.String(16), primary_key=True),
        sa.Column("split", sa.String(20), primary_key=True),
        sa.Column("metric", sa.String(80), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("low", sa.Float(), nullable=False),
        sa.Column("high", sa.Float(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("values", sa.LargeBinary(), nullable=False),
        sa.Column("formats", sa.JSON(), nullable=False),
        sa.Column("worker", sa.String(120), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_evaluations_context", "evaluations", ["context"])
    op.create_table(
        "scores",
        sa.Column("key", sa.String(80), primary_key=True),
        sa.Column("proxy", sa.String(80), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "kernels",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("device", sa.String(120), nullable=False),
        sa.Column("row", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_kernels_device", "kernels", ["device"])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("kernels", "scores", "evaluations", "candidates", "jobs"):
        op.drop_table(table)
