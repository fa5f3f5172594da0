"""A key for each person, from which the salts of every commitment to that person come."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds an empty table. Commitments made before this revision keep opening with the hub's secret alone."""
    op.create_table(
        "subject_key",
        sa.Column("pseudonym", sa.String(32), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("pseudonym", name="pk_subject_key"),
    )


def downgrade() -> None:
    """Drops the keys: no commitment made with them opens any more."""
    op.drop_table("subject_key")
