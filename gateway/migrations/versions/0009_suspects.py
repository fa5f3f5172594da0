"""How often processes ended while they carried one submission alone."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds an empty table: what has ended processes until now is counted from the next time on."""
    op.create_table(
        "suspect",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("at", sa.String(30), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_suspect"),
    )


def downgrade() -> None:
    """Drops the table: the counts begin anew."""
    op.drop_table("suspect")
