"""What each decision needed: the questions, without content, that a draft of the agreements is tried on."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# SQLite's rowid is a 64-bit integer only under the exact type name INTEGER.
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds an empty table: messages carried before this revision cannot be tried on a draft."""
    op.create_table(
        "decision_input",
        sa.Column("number", _BIG, autoincrement=True, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("asked", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_decision_input"),
    )


def downgrade() -> None:
    """Drops the questions; no decision is lost."""
    op.drop_table("decision_input")
