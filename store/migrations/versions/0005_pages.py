"""Pages and retention: candidates are numbered, jobs can be pinned, files are marked before they are removed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NUMBER = """
UPDATE candidates SET position = numbered.position FROM (
    SELECT job_id, configuration,
           ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY created_at, configuration) AS position
    FROM candidates
) AS numbered
WHERE candidates.job_id = numbered.job_id AND candidates.configuration = numbered.configuration
"""


def upgrade() -> None:
    """Add the columns and indexes; candidates that are there are numbered in their order."""
    op.add_column("candidates", sa.Column("position", sa.Integer(), nullable=False, server_default="0"))
    op.execute(_NUMBER)
    op.create_index("ix_candidates_position", "candidates", ["job_id", "position", "configuration"])
    op.create_index("ix_scores_proxy", "scores", ["proxy", "created_at"])
    op.add_column("jobs", sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_jobs_finished", "jobs", ["finished_at"])
    op.add_column("artifacts", sa.Column("removing", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("artifacts", "removing")
    op.drop_index("ix_jobs_finished", "jobs")
    op.drop_column("jobs", "pinned")
    op.drop_index("ix_scores_proxy", "scores")
    op.drop_index("ix_candidates_position", "candidates")
    op.drop_column("candidates", "position")
