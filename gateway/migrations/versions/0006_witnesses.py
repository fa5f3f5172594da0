"""How far each witness has cosigned the ledger, and how far enough of them have."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# SQLite's rowid is a 64-bit integer only under the exact type name INTEGER.
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds an empty table: every witness is asked anew, and says itself how far it is."""
    op.create_table(
        "ledger_witness",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("size", _BIG, nullable=False),
        sa.Column("moment", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_ledger_witness"),
    )


def downgrade() -> None:
    """Drops it; the cosignatures stay in the checkpoints."""
    op.drop_table("ledger_witness")
