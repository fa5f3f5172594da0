"""What every batch looks up has its index: referrals by message alone, duties by case, the newest case. No
index holds what it is never asked for, and PostgreSQL does not try to compress ciphertext.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_IS_REQUEST = sa.text("kind = 'request'")
_SEALED = (("outbox", "body"), ("kept_submission", "sealed"))


def upgrade() -> None:
    """Replaces indexes and the order of the duties' key. What is stored stays."""
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
    _duties_by(["case_id", "kind", "party", "role"])
    _store("EXTERNAL")


def downgrade() -> None:
    """Brings back the indexes of before."""
    _store("EXTENDED")
    _duties_by(["kind", "party", "case_id", "role"])
    op.drop_index("ix_case_file_number", "case_file")
    op.drop_index("ix_referral_disclosure", "referral")
    op.create_index("ix_referral_disclosure", "referral", ["disclosure"])
    op.drop_index("ix_referral_message", "referral")
    op.create_index("ix_referral_message", "referral", ["source", "message"])


def _duties_by(key: Sequence[str]) -> None:
    """Makes the duties' table anew under *key*: SQLite cannot change a primary key."""
    sizes = {"case_id": 64, "kind": 8, "party": 80, "role": 12, "at": 30, "due": 30, "state": 30, "ended": 30}
    columns = (*key, "at", "due", "state", "ended")
    op.execute("CREATE TEMPORARY TABLE duty_before AS SELECT * FROM duty")
    op.drop_table("duty")
    op.create_table(
        "duty",
        *(sa.Column(name, sa.String(sizes[name]), nullable=False) for name in columns),
        sa.PrimaryKeyConstraint(*key, name="pk_duty"),
    )
    names = ", ".join(columns)
    op.execute(f"INSERT INTO duty ({names}) SELECT {names} FROM duty_before")  # noqa: S608  # our own names
    op.drop_table("duty_before")
    op.create_index("ix_duty_state", "duty", ["state", "due"])


def _store(how: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, column in _SEALED:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE {how}")
