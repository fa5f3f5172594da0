"""Legal holds, since when something is seen to be over, and dead letters whose disposal is under way."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds empty tables: periods of cases and people count from the first disposal after this revision."""
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("reason", sa.String(30), nullable=False),
        sa.Column("reference", sa.String(40), nullable=False),
        sa.Column("scope", sa.String(10), nullable=False),
        sa.Column("ref", sa.String(64), nullable=False),
        sa.Column("at", sa.String(30), nullable=False),
        sa.Column("due", sa.String(30), nullable=False),
        sa.Column("released", sa.String(30), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_legal_hold"),
    )
    op.create_table(
        "retention_mark",
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("ref", sa.String(64), nullable=False),
        sa.Column("at", sa.String(30), nullable=False),
        sa.PrimaryKeyConstraint("kind", "ref", name="pk_retention_mark"),
    )
    op.create_table(
        "disposal_due",
        sa.Column("letter", sa.String(100), nullable=False),
        sa.Column("at", sa.String(30), nullable=False),
        sa.PrimaryKeyConstraint("letter", name="pk_disposal_due"),
    )


def downgrade() -> None:
    """Refuses while something is under a hold: a hold must not vanish with its table."""
    held = op.get_bind().execute(sa.text("SELECT count(*) FROM legal_hold WHERE released = ''")).scalar()
    if held:
        raise RuntimeError("legal holds are not released")
    for table in ("disposal_due", "retention_mark", "legal_hold"):
        op.drop_table(table)
