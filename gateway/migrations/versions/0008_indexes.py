"""Indexes for what every batch looks up: referrals by message alone, the newest case; and none of the
requests' for what is no request.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_IS_REQUEST = sa.text("kind = 'request'")


def upgrade() -> None:
    """Replaces two indexes and adds one. Rows stay as they are."""
    op.drop_index("ix_referral_message", "referral")
    op.create_index("ix_referral_message", "referral", ["message"])
    op.drop_index("ix_referral_disclosure", "referral")
    op.create_index(
        "ix_referral_disclosure",
        "referral",
        ["disclosure"],
        sqlite_where=_IS_REQUEST,
        postgresql_where=_IS_REQUEST,
    )
    op.create_index("ix_case_file_number", "case_file", ["number"])


def downgrade() -> None:
    """Brings back the indexes of before."""
    op.drop_index("ix_case_file_number", "case_file")
    op.drop_index("ix_referral_disclosure", "referral")
    op.create_index("ix_referral_disclosure", "referral", ["disclosure"])
    op.drop_index("ix_referral_message", "referral")
    op.create_index("ix_referral_message", "referral", ["source", "message"])
