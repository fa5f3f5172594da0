"""Submissions that may be what ends processes: which have been carried alone, and how often nobody came back
from it.

A broker counts a delivery for everything that a process held when it died, so its count says only that a
message was near. What it makes suspect is carried alone, and each time is counted here first: only that is
evidence against one submission. A row lives as long as the doubt does.
"""

import hmac
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from schemas.clock import Clock, rfc3339
from schemas.database import metadata

suspect = sa.Table(
    "suspect",
    metadata,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),  # keyed: what was said cannot be guessed at
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("at", sa.String(30), nullable=False),  # when it was first carried alone
)
_INSERT = (
    "INSERT INTO suspect (digest, tries, at) VALUES (:digest, :tries, :at) ON CONFLICT (digest) DO UPDATE"
)
_ONE_MORE = sa.text(f"{_INSERT} SET tries = suspect.tries + 1 RETURNING tries")
_AS_BEFORE = sa.text(f"{_INSERT} SET tries = excluded.tries RETURNING tries")
# A row outlives its submission only when a process ended between setting that aside and forgetting it, or
# when somebody emptied the queue.
_KEPT = timedelta(days=30)


class Suspects:
    """The counts of suspects on *engine*, their digests under *key* (32 bytes). For one caller."""

    def __init__(self, engine: sa.Engine, key: bytes, clock: Clock) -> None:
        self._engine, self._key, self._clock = engine, key, clock
        # What this process counted, and has neither carried nor ended with: digest → tries before its own.
        # Numbers and not differences, because nobody can tell whether a commit that failed was made.
        self._before: dict[bytes, int] = {}

    def count(self, body: bytes) -> int:
        """Counts that this process carries *body* alone from now on; returns how often that was begun before
        and came to no end.

        A process counts once, however often it tries again. Raises the database's errors.
        """
        digest, now = self._digest(body), self._clock()
        before = self._before.get(digest)
        statement = _ONE_MORE if before is None else _AS_BEFORE
        row = {"digest": digest, "tries": (before or 0) + 1, "at": rfc3339(now)}
        with self._engine.begin() as connection:
            connection.execute(sa.delete(suspect).where(suspect.c.at < rfc3339(now - _KEPT)))
            tries: int = connection.execute(statement, row).scalar_one()
            self._before[digest] = tries - 1
        # ‖ It is counted. A crash from here until it is carried leaves the count to the next process, and
        # that is its purpose; a crash before leaves the delivery to be counted then.
        return tries - 1

    def carried(self, connection: sa.Connection, body: bytes) -> None:
        """Ends the doubt about *body* in the transaction that carries it."""
        connection.execute(sa.delete(suspect).where(suspect.c.digest == self._digest(body)))

    def committed(self, body: bytes) -> None:
        """The transaction of `carried` is committed."""
        self._before.pop(self._digest(body), None)

    def outlived(self, *, blamed: bool) -> None:
        """Handling failed, and the process goes on. Takes back what it counted, unless the submission itself
        is *blamed*: an outage, and whoever stops the hub in it, must count against nobody.
        """
        if self._before and not blamed:
            try:
                with self._engine.begin() as connection:
                    for digest, tries in self._before.items():
                        row = sa.update(suspect).where(suspect.c.digest == digest)
                        connection.execute(row.values(tries=tries))
            except sa.exc.SQLAlchemyError:
                return  # the outage lasts; this process does not count them again
            # ‖ A crash before leaves one try too many, which alone is far from the limit.
        self._before.clear()

    def set_aside(self, bodies: Sequence[bytes]) -> None:
        """Forgets *bodies*, which are among the dead letters now."""
        if not bodies:
            return
        digests = [self._digest(body) for body in bodies]
        with self._engine.begin() as connection:
            connection.execute(sa.delete(suspect).where(suspect.c.digest.in_(digests)))
        # ‖ A crash before leaves rows that nothing asks for; `count` drops them when they are old.
        for digest in digests:
            self._before.pop(digest, None)

    def _digest(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")


__all__ = ["Suspects", "suspect"]
