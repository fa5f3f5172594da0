"""Outbox and inbox: the two tables that join the database's transaction to the broker's queues.

What a batch releases is written beside its ledger entries, in their transaction, under the entry's number; a
watermark says up to which number everything is confirmed by the broker. What a batch took in is remembered by
source and id, so that a submission has one effect however often it arrives.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson
import sqlalchemy as sa

from broker.broker import Broker, Outgoing
from broker.sealed import Seal
from schemas.database import BigInt, add_rows, metadata, never_compressed, reading, rows_named

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("number", BigInt, primary_key=True, autoincrement=False),  # the ledger entry's index
    sa.Column("queue", sa.String(100), nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
never_compressed(outbox.c.body)
outbox_watermark = sa.Table(
    "outbox_watermark",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column(
        "published", BigInt, nullable=False
    ),  # every row up to this number is confirmed; -1 at the start
)
inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("source", sa.String(80), primary_key=True),
    sa.Column("message", sa.String(64), primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("at", sa.String(30), nullable=False),
)
_RELAY = 1000  # rows held in memory at a time, however far the relay is behind
_AT_HAND = 4000  # releases of the newest batches, a few KB each


class Leaving(NamedTuple):
    """A release on its way: the ledger's index of its entry, what is to be queued, and the entry itself where
    it is at hand.
    """

    number: int
    queue: str
    headers: Mapping[str, str]
    body: bytes
    entry: bytes | None


class Outbox:
    """Releases on their way from the database to the broker."""

    def __init__(
        self,
        engine: sa.Engine,
        broker: Broker,
        seal: Seal,
        finish: Callable[[Sequence[Leaving]], Sequence[bytes]],
    ) -> None:
        """Bodies lie in the database closed by *seal*. *finish* gives the bodies of releases, in order, what
        could be known only after they were committed: their proofs.
        """
        self._engine, self._broker, self._seal, self._finish = engine, broker, seal, finish
        self._at_hand: dict[int, Leaving] = {}
        self._handing = threading.Lock()

    def start(self) -> None:
        """Creates the watermark when the database is new. Several processes may start at once."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO outbox_watermark (id, published) VALUES (1, -1) ON CONFLICT DO NOTHING"
            )

    def enqueue(self, connection: sa.Connection, releases: Sequence[tuple[int, Outgoing]]) -> None:
        """Adds *releases* (ledger index, message) in the caller's transaction."""
        rows = [
            (n, o.queue, orjson.dumps(dict(o.headers)).decode(), self._seal.close(o.queue, o.body))
            for n, o in releases
        ]
        add_rows(connection, outbox, ("number", "queue", "headers", "body"), rows)

    def committed(self, releases: Sequence[tuple[int, Outgoing, bytes]]) -> None:
        """Keeps *releases* (ledger index, message, entry) at hand, so that `relay` need not read back what
        this process has just written. Call it after the commit, never before: what was rolled back must not
        leave. Nothing depends on it: what is not at hand is read.
        """
        with self._handing:
            for number, out, entry in releases:
                self._at_hand[number] = Leaving(number, out.queue, out.headers, out.body, entry)
            for number in list(self._at_hand)[:-_AT_HAND]:
                del self._at_hand[number]

    def relay(self, below: int) -> int:
        """Publishes everything above the watermark and *below* a ledger index, in order, then raises the
        watermark and drops what it covers; returns how many.

        *below* is the size of the newest signed checkpoint: nothing leaves before its entry is under a
        signature.

        Any worker may call it at any time. A crash after the broker's confirm and before the new watermark
        publishes those messages again; their recipients' adapters drop what they have delivered.
        """
        total = 0
        while (done := self._relay_part(below)) > 0:
            total += done
            if done < _RELAY:
                break
        return total

    def _relay_part(self, below: int) -> int:
        # SQLite has one writer, and the embedded broker writes to the same file: holding the row would lock
        # us out of our own queue.
        if self._engine.dialect.name == "sqlite":
            with reading(self._engine).begin() as connection:
                published = connection.execute(sa.select(outbox_watermark.c.published)).scalar_one()
                leaving = self._waiting(connection, published, below)
            self._publish(leaving)
            if leaving:
                with self._engine.begin() as connection:
                    self._raise(connection, leaving[-1].number)
            return len(leaving)
        with self._engine.begin() as connection:
            locked = sa.select(outbox_watermark.c.published).with_for_update()
            leaving = self._waiting(connection, connection.execute(locked).scalar_one(), below)
            self._publish(leaving)
            if leaving:
                self._raise(connection, leaving[-1].number)
        return len(leaving)

    def _waiting(self, connection: sa.Connection, published: int, below: int) -> list[Leaving]:
        """What is to be published next, in order. The database alone says which; what each is may be at
        hand.
        """
        beyond = (outbox.c.number > published, outbox.c.number < below)
        query = sa.select(outbox.c.number).where(*beyond).order_by(outbox.c.number).limit(_RELAY)
        numbers = connection.execute(query).scalars().all()
        with self._handing:
            found = {n: self._at_hand.pop(n) for n in numbers if n in self._at_hand}
        missing = [n for n in numbers if n not in found]
        if missing:
            rows = connection.execute(
                sa.select(outbox).where(outbox.c.number.between(missing[0], missing[-1]))
            )
            for row in rows:
                if row.number not in found:
                    body = self._seal.open(row.queue, bytes(row.body))
                    headers = orjson.loads(row.headers)
                    found[row.number] = Leaving(row.number, row.queue, headers, body, None)
        return [found[n] for n in numbers]

    def _publish(self, leaving: Sequence[Leaving]) -> None:
        if leaving:
            bodies = self._finish(leaving)
            self._broker.publish(
                [Outgoing(one.queue, body, one.headers) for one, body in zip(leaving, bodies, strict=True)]
            )

    def _raise(self, connection: sa.Connection, number: int) -> None:
        """Everything up to *number* is confirmed, and goes: somebody's address stays no longer than
        needed, also when this was the last batch of the day.
        """
        statement = (
            sa.update(outbox_watermark).where(outbox_watermark.c.published < number).values(published=number)
        )
        connection.execute(statement)
        connection.execute(sa.delete(outbox).where(outbox.c.number <= number))


def seen(connection: sa.Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Which of *keys* (source, id) have been taken in, with the digest of what they said."""
    rows = rows_named(connection, inbox, ("source", "message", "digest"), ("source", "message"), keys)
    return {(source, message): bytes(digest) for source, message, digest in rows}


def remember(connection: sa.Connection, taken: Mapping[tuple[str, str], bytes], at: str) -> None:
    """Records *taken* (source, id → digest) in the caller's transaction."""
    rows = [(source, message, digest, at) for (source, message), digest in taken.items()]
    add_rows(connection, inbox, ("source", "message", "digest", "at"), rows)
