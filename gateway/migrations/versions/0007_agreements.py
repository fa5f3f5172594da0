"""The register of agreements, what changed of a case since decisions about it, and recalls."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# SQLite's rowid is a 64-bit integer only under the exact type name INTEGER.
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds empty tables. The next start takes the agreements in the folder as the baseline; of messages
    carried before, no recall is found by their case.
    """
    op.create_table(
        "agreement_version",
        sa.Column("agreement", sa.String(60), nullable=False),
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("file", sa.String(200), nullable=False),
        sa.Column("text", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("people", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("agreement", "version", name="pk_agreement_version"),
    )
    op.create_table(
        "agreement_set",
        sa.Column("entry", _BIG, autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("documents", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("entry", name="pk_agreement_set"),
    )
    op.create_table(
        "case_caution",
        sa.Column("case_id", sa.String(64), nullable=False),
        sa.Column("entry", _BIG, nullable=False),
        sa.Column("reason", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("case_id", name="pk_case_caution"),
    )
    op.create_index("ix_case_caution_entry", "case_caution", ["entry"])
    op.create_table(
        "case_message",
        sa.Column("case_id", sa.String(64), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("case_id", "source", "message", name="pk_case_message"),
    )
    op.create_index("ix_decision_input_message", "decision_input", ["message"])
    op.create_table(
        "recall",
        sa.Column("disclosure", sa.String(64), nullable=False),
        sa.Column("entry", _BIG, nullable=False),
        sa.Column("released", _BIG, nullable=False),
        sa.Column("party", sa.String(80), nullable=False),
        sa.Column("holder", sa.String(80), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("reason", sa.String(40), nullable=False),
        sa.Column("at", sa.String(30), nullable=False),
        sa.Column("settled", _BIG, nullable=True),
        sa.PrimaryKeyConstraint("disclosure", name="pk_recall"),
    )


def downgrade() -> None:
    """Drops them: the folder counts again, and open recalls are in the ledger only."""
    op.drop_table("recall")
    op.drop_index("ix_decision_input_message", "decision_input")
    op.drop_table("case_message")
    op.drop_table("case_caution")
    op.drop_table("agreement_set")
    op.drop_table("agreement_version")
