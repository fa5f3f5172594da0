"""The first tables: ledger, cases, people, inbox and outbox; in SQLite also the embedded broker's queues."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite's rowid is a 64-bit integer only under the exact type name INTEGER.
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_IS_DECISION = sa.text("kind IN ('disclosure', 'refusal', 'referral')")


def upgrade() -> None:
    """Creates the tables of an empty database."""
    _ledger()
    _cases_and_people()
    _inbox_and_outbox()
    if op.get_bind().dialect.name == "sqlite":
        _queues()


def downgrade() -> None:
    """There is nothing before the first revision: dropping a ledger is no migration."""
    raise NotImplementedError("restore a backup, or use an empty database")


def _ledger() -> None:
    op.create_table(
        "ledger_entry",
        sa.Column("idx", _BIG, autoincrement=False, nullable=False),
        sa.Column("leaf", sa.LargeBinary(32), nullable=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("idx", name="pk_ledger_entry"),
    )
    op.create_index("ix_ledger_entry_message", "ledger_entry", ["message"])
    # One decision on one message for one party, whatever the hub's processes do.
    op.create_index(
        "uq_ledger_entry_decision",
        "ledger_entry",
        ["source", "message", "party"],
        unique=True,
        sqlite_where=_IS_DECISION,
        postgresql_where=_IS_DECISION,
    )
    op.create_table(
        "ledger_tile",
        sa.Column("level", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("n", _BIG, autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("level", "n", name="pk_ledger_tile"),
    )
    op.create_table(
        "ledger_head",
        sa.Column(
            "id",
            sa.SmallInteger,
            sa.CheckConstraint("id = 1", name=op.f("ck_ledger_head_one_row")),
            nullable=False,
        ),
        sa.Column("size", _BIG, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_head"),
    )
    op.create_table(
        "ledger_checkpoint",
        sa.Column("size", _BIG, autoincrement=False, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("size", name="pk_ledger_checkpoint"),
    )


def _cases_and_people() -> None:
    op.create_table(
        "case_file",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("number", _BIG, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_case_file"),
    )
    op.create_table(
        "case_person",
        sa.Column("pseudonym", sa.String(32), nullable=False),
        sa.Column("case_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("pseudonym", "case_id", name="pk_case_person"),
    )
    op.create_table(
        "person_key",
        sa.Column("key", sa.LargeBinary(32), nullable=False),
        sa.Column("pseudonym", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_person_key"),
    )
    op.create_table(
        "person_identifier",
        sa.Column("key", sa.LargeBinary(32), nullable=False),
        sa.Column("pseudonym", sa.String(32), nullable=False),
        sa.Column("agency", sa.String(40), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_person_identifier"),
    )
    op.create_index("ix_person_identifier_pseudonym", "person_identifier", ["pseudonym"])


def _inbox_and_outbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("source", sa.String(80), nullable=False),
        sa.Column("message", sa.String(64), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("at", sa.String(30), nullable=False),
        sa.PrimaryKeyConstraint("source", "message", name="pk_inbox"),
    )
    op.create_table(
        "outbox",
        sa.Column("number", _BIG, autoincrement=False, nullable=False),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_outbox"),
    )
    op.create_table(
        "outbox_watermark",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("published", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox_watermark"),
    )


def _queues() -> None:
    op.create_table(
        "queue_message",
        sa.Column("seq", _BIG, autoincrement=True, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("available_at", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_queue_message"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_queue_message_next", "queue_message", ["queue", "available_at", "seq"])
    op.create_table(
        "queue_mark",
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("delivered", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("queue", name="pk_queue_mark"),
    )
    op.create_table(
        "dead_letter",
        sa.Column("number", _BIG, autoincrement=True, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_dead_letter"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_dead_letter_queue", "dead_letter", ["queue", "number"])
