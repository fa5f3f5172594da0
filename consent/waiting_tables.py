"""The tables of what waits for people."""

import sqlalchemy as sa

from consent.referral import REQUEST
from schemas.database import metadata, never_compressed

_IS_REQUEST = sa.text(f"kind = '{REQUEST}'")
referral = sa.Table(
    "referral",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("source", sa.String(80), nullable=False),  # who sent the message
    sa.Column("message", sa.String(64), nullable=False),
    sa.Column("party", sa.String(80), nullable=False),  # who would receive, or who asked
    sa.Column("holder", sa.String(60), nullable=False),  # the agency whose person decides
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("cells", sa.Text, nullable=False),  # [[role, class]]
    sa.Column("cases", sa.Text, nullable=False),
    sa.Column("mandatory", sa.Boolean, nullable=False),
    sa.Column("at", sa.String(30), nullable=False),
    sa.Column("due", sa.String(30), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("reason", sa.String(30), nullable=False),
    sa.Column("ended", sa.String(30), nullable=False),  # "" while it waits
    sa.Column("disclosure", sa.String(36), nullable=False),  # of a request: by which id the holder knows it
    sa.Column("answer", sa.String(64), nullable=False),
    sa.Index("ix_referral_message", "message"),
    sa.Index("ix_referral_state", "state", "due"),
    sa.Index("ix_referral_disclosure", "disclosure", sqlite_where=_IS_REQUEST, postgresql_where=_IS_REQUEST),
)
kept_submission = sa.Table(
    "kept_submission",
    metadata,
    sa.Column("source", sa.String(80), primary_key=True),
    sa.Column("message", sa.String(64), primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
never_compressed(kept_submission.c.sealed)
duty = sa.Table(
    "duty",
    metadata,
    sa.Column(
        "case_id", sa.String(64), primary_key=True
    ),  # first: a batch asks by case, and adds them by case
    sa.Column("kind", sa.String(8), primary_key=True),
    sa.Column("party", sa.String(80), primary_key=True),
    sa.Column("role", sa.String(12), primary_key=True),
    sa.Column("at", sa.String(30), nullable=False),  # the first release that brought it
    sa.Column("due", sa.String(30), nullable=False),
    sa.Column("state", sa.String(30), nullable=False),  # "" while nobody has recorded how it ended
    sa.Column("ended", sa.String(30), nullable=False),
    sa.Index("ix_duty_state", "state", "due"),
)
override = sa.Table(
    "override",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("party", sa.String(80), nullable=False),
    sa.Column("case_id", sa.String(64), nullable=False),
    sa.Column("clauses", sa.Text, nullable=False),
    sa.Column("threat", sa.String(20), nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),  # the reason, in the person's own words
    sa.Column("capacity", sa.String(20), nullable=False),
    sa.Column("person", sa.String(32), nullable=False),  # keyed digest
    sa.Column("at", sa.String(30), nullable=False),
    sa.Column("until", sa.String(30), nullable=False),  # "" while nobody has agreed
    sa.Column("minutes", sa.Integer, nullable=False),
    sa.Column("review_due", sa.String(30), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("finding", sa.String(20), nullable=False),
    sa.Index("ix_override_state", "state", "until"),
)
