"""The tables of the ledger."""

import sqlalchemy as sa

from consent.entry import DECISION_KINDS
from consent.merkle import HASH_SIZE
from schemas.database import BigInt, metadata

ledger_entry = sa.Table(
    "ledger_entry",
    metadata,
    sa.Column("idx", BigInt, primary_key=True, autoincrement=False),
    sa.Column("leaf", sa.LargeBinary(HASH_SIZE), nullable=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("party", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Index("ix_ledger_entry_message", "message"),
)
_is_decision = ledger_entry.c.kind.in_([sa.literal_column(f"'{kind}'") for kind in DECISION_KINDS])
sa.Index(
    "uq_ledger_entry_decision",
    ledger_entry.c.source,
    ledger_entry.c.message,
    ledger_entry.c.party,
    unique=True,
    sqlite_where=_is_decision,
    postgresql_where=_is_decision,
)
ledger_tile = sa.Table(
    "ledger_tile",
    metadata,
    sa.Column("level", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("n", BigInt, primary_key=True, autoincrement=False),
    sa.Column("hashes", sa.LargeBinary, nullable=False),
)
ledger_head = sa.Table(
    "ledger_head",
    metadata,
    sa.Column("id", sa.SmallInteger, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True),
    sa.Column("size", BigInt, nullable=False),
    sa.Column("frontier", sa.LargeBinary, nullable=False),
    sa.Column("root", sa.LargeBinary(HASH_SIZE), nullable=False),
)
ledger_checkpoint = sa.Table(
    "ledger_checkpoint",
    metadata,
    sa.Column("size", BigInt, primary_key=True, autoincrement=False),
    sa.Column("note", sa.Text, nullable=False),
)

ledger_witness = sa.Table(
    "ledger_witness",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),  # as in the policy; "" is the quorum
    sa.Column("size", BigInt, nullable=False),  # of the newest checkpoint that it cosigned
    sa.Column("moment", BigInt, nullable=False),  # when, POSIX seconds by its own clock
)
