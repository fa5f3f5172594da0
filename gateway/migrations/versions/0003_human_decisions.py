"""What waits for people and what they decided: referrals with their sealed submissions, duties, overrides."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds empty tables: what was referred before this revision is in the ledger only, and its content is
    gone.
    """
    op.create_table(
        "referral",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("source", sa.String(80), nullable=False),
        sa.Column("message", sa.String(64), nullable=False),
        sa.Column("party", sa.String(80), nullable=False),
        sa.Column("holder", sa.String(60), nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("cells", sa.Text, nullable=False),
        sa.Column("cases", sa.Text, nullable=False),
        sa.Column("mandatory", sa.Boolean, nullable=False),
        sa.Column("at", sa.String(30), nullable=False),
        sa.Column("due", sa.String(30), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("reason", sa.String(30), nullable=False),
        sa.Column("ended", sa.String(30), nullable=False),
        sa.Column("disclosure", sa.String(36), nullable=False),
        sa.Column("answer", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_referral"),
    )
    op.create_index("ix_referral_message", "referral", ["source", "message"])
    op.create_index("ix_referral_state", "referral", ["state", "due"])
    op.create_index("ix_referral_disclosure", "referral", ["disclosure"])
    op.create_table(
        "kept_submission",
        sa.Column("source", sa.String(80), nullable=False),
        sa.Column("message", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("source", "message", name="pk_kept_submission"),
    )
    op.create_table(
        "duty",
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("party", sa.String(80), nullable=False),
        sa.Column("case_id", sa.String(64), nullable=False),
        sa.Column("role", sa.String(12), nullable=False),
        sa.Column("at", sa.String(30), nullable=False),
        sa.Column("due", sa.String(30), nullable=False),
        sa.Column("state", sa.String(30), nullable=False),
        sa.Column("ended", sa.String(30), nullable=False),
        sa.PrimaryKeyConstraint("kind", "party", "case_id", "role", name="pk_duty"),
    )
    op.create_index("ix_duty_state", "duty", ["state", "due"])
    op.create_table(
        "override",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("party", sa.String(80), nullable=False),
        sa.Column("case_id", sa.String(64), nullable=False),
        sa.Column("clauses", sa.Text, nullable=False),
        sa.Column("threat", sa.String(20), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("capacity", sa.String(20), nullable=False),
        sa.Column("person", sa.String(32), nullable=False),
        sa.Column("at", sa.String(30), nullable=False),
        sa.Column("until", sa.String(30), nullable=False),
        sa.Column("minutes", sa.Integer, nullable=False),
        sa.Column("review_due", sa.String(30), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("finding", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_override"),
    )
    op.create_index("ix_override_state", "override", ["state", "until"])


def downgrade() -> None:
    """Drops them; what people decided stays in the ledger, and what still waits is lost."""
    for table in ("override", "duty", "kept_submission", "referral"):
        op.drop_table(table)
