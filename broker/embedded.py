"""The broker without a server: durable queues in the hub's own SQLite file.

A row is a message, the order of `seq` the order of the queue, a deleted row an acknowledged message. Which
messages are held by a consumer is known only to the instance that handed them out, so a killed process leaves
every one of them to the next. One mark per queue, *delivered*, remembers how far messages were handed out for
the first time; it is what lets the next process count a delivery that nobody lived to acknowledge.

Any number of processes may publish into one file; each queue has one consuming process.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa

from broker.broker import DeadLetter, Delivery, Outgoing
from schemas import database
from schemas.clock import Clock, rfc3339
from schemas.errors import Unconfirmed

queue_message = sa.Table(
    "queue_message",
    database.metadata,
    sa.Column("seq", database.BigInt, primary_key=True, autoincrement=True),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    # Milliseconds since 1970 before which a requeued message is not delivered; 0 for one that was never
    # requeued.
    sa.Column("available_at", database.BigInt, nullable=False),
    sa.Index("ix_queue_message_next", "queue", "available_at", "seq"),
    # a number is never used twice: a late acknowledgement must not meet a newer message
    sqlite_autoincrement=True,
)
queue_mark = sa.Table(
    "queue_mark",
    database.metadata,
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("delivered", database.BigInt, nullable=False),
)
dead_letter = sa.Table(
    "dead_letter",
    database.metadata,
    sa.Column("number", database.BigInt, primary_key=True, autoincrement=True),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Index("ix_dead_letter_queue", "queue", "number"),
    sqlite_autoincrement=True,
)

# Written out because these five run for every message of the year; Core's own statements cost three times as
# much.
_INSERT = "INSERT INTO queue_message (queue, body, headers, attempts, available_at) VALUES (?, ?, ?, 0, 0)"
_DELETE = "DELETE FROM queue_message WHERE seq = ?"
_NEW = (
    "SELECT seq, body, headers, attempts FROM queue_message"
    " WHERE queue = ? AND available_at = 0 AND seq > ? ORDER BY seq LIMIT ?"
)
_DUE = (
    "SELECT seq, body, headers, attempts FROM queue_message"
    " WHERE queue = ? AND available_at BETWEEN 1 AND ? ORDER BY available_at, seq LIMIT ?"
)
_MARK = (
    "INSERT INTO queue_mark (queue, delivered) VALUES (?, ?)"
    " ON CONFLICT (queue) DO UPDATE SET delivered = excluded.delivered"
)

_POLL_SECONDS = 0.2  # how late a message published by another process, or one that became due, is seen
_BATCH_BYTES = 16 * 1_048_576  # a batch of the largest messages must still fit in memory


@dataclass(slots=True)
class _Reader:
    """What this instance knows of one queue: *position* is the last `seq` handed out for the first time,
    *held* what is not yet settled (`seq` → attempts), *arrivals* counts publications, so that a waiting
    thread notices one between looking and waiting."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    position: int | None = None
    held: dict[int, int] = field(default_factory=dict)
    arrivals: int = 0
    arrived: threading.Condition = field(default_factory=threading.Condition)


class EmbeddedBroker:
    """Durable queues on *engine* (SQLite, tables created); *clock* says when a requeued message is due. Safe
    for several threads."""

    def __init__(self, engine: sa.Engine, clock: Clock) -> None:
        self._engine = engine
        self._reading = database.reading(engine)
        self._clock = clock
        self._readers: dict[str, _Reader] = {}
        self._closed = False
        # SQLite's wait for the write lock is a blind sleep that starves somebody when many threads write;
        # ours is a queue.
        self._writing = threading.Lock()

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Queues all *messages* in one transaction: all or none. Raises `Unconfirmed` when the database did
        not take them."""
        if self._closed:
            raise Unconfirmed("the broker is closed")
        if not messages:
            return
        rows = [(m.queue, m.body, _json(m.headers)) for m in messages]
        try:
            with self._transaction() as connection:
                connection.exec_driver_sql(_INSERT, rows)
                # A crash before this commit leaves nothing, and the caller publishes again; after it,
                # everything.
        except sa.exc.DBAPIError as error:
            raise Unconfirmed("the database did not confirm the messages") from error
        self._wake({m.queue for m in messages})

    def receive(self, queue: str, limit: int, wait_seconds: float = 0.0) -> list[Delivery]:
        """Up to *limit* messages of *queue*, requeued ones that are due first; fewer when they are very
        large."""
        reader = self._reader(queue)
        deadline = time.monotonic() + wait_seconds
        while not self._closed:
            arrivals = reader.arrivals
            if batch := self._take(queue, reader, limit):
                return batch
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            with reader.arrived:
                if not self._closed and reader.arrivals == arrivals:
                    reader.arrived.wait(min(remaining, _POLL_SECONDS))
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Removes *deliveries* in one transaction; those that this instance does not hold any more are left
        alone."""
        if held := self._release(deliveries):
            with self._keeping(held), self._transaction() as connection:
                connection.exec_driver_sql(_DELETE, [(d.tag,) for d in held])
                # A crash before this commit leaves them to be delivered again with one attempt more.

    def requeue(self, deliveries: Sequence[Delivery], delay_seconds: float = 0.0) -> None:
        """Puts *deliveries* back, due *delay_seconds* from now by the clock; the delay and the attempts
        survive a restart."""
        if not (held := self._release(deliveries)):
            return
        due = max(1, self._now() + round(delay_seconds * 1000))
        update = "UPDATE queue_message SET available_at = ?, attempts = ? WHERE seq = ?"
        try:
            with self._transaction() as connection:
                connection.exec_driver_sql(update, [(due, d.attempts + 1, d.tag) for d in held])
                # A crash before this commit loses the delay alone: they are delivered again at once.
        except BaseException:
            # Whoever gives back has nothing further to try: held, they would wait for the next process.
            self._give_back(held)
            raise
        finally:
            self._wake({d.queue for d in held})

    def bury(self, deliveries: Sequence[tuple[Delivery, Mapping[str, Any]]]) -> None:
        """Moves each to its queue's dead letters, in one transaction: a crash leaves it in exactly one
        place."""
        errors = {id(delivery): error for delivery, error in deliveries}
        if not (held := self._release([delivery for delivery, _ in deliveries])):
            return
        with self._keeping(held), self._transaction() as connection:
            self._add_dead_letters(connection, ((d.queue, d.body, d.headers, errors[id(d)]) for d in held))
            connection.exec_driver_sql(_DELETE, [(d.tag,) for d in held])

    def quarantine(self, messages: Sequence[tuple[Outgoing, Mapping[str, Any]]]) -> None:
        """Adds each to its queue's dead letters. Raises `Unconfirmed` when the database did not take them."""
        if not messages:
            return
        try:
            with self._transaction() as connection:
                self._add_dead_letters(
                    connection, ((m.queue, m.body, m.headers, error) for m, error in messages)
                )
        except sa.exc.DBAPIError as error:
            raise Unconfirmed("the database did not confirm the dead letters") from error

    def dead_letters(self, queue: str | None = None, limit: int = 1000) -> list[DeadLetter]:
        """The oldest *limit* dead letters of *queue* or of all."""
        statement = sa.select(dead_letter).order_by(dead_letter.c.number).limit(limit)
        if queue is not None:
            statement = statement.where(dead_letter.c.queue == queue)
        with self._reading.begin() as connection:
            return [_dead_letter(row) for row in connection.execute(statement)]

    def take_dead_letter(self, number: str) -> DeadLetter | None:
        """Removes and returns the dead letter *number*; None when there is none."""
        if not (number.isascii() and number.isdigit() and len(number) < 19):  # else no 64-bit integer
            return None
        statement = (
            sa.delete(dead_letter).where(dead_letter.c.number == int(number)).returning(*dead_letter.c)
        )
        with self._transaction() as connection:
            row = connection.execute(statement).one_or_none()
            return None if row is None else _dead_letter(row)

    def depth(self, queue: str) -> int:
        """How many messages of *queue* are not acknowledged."""
        return self.depths([queue])[queue]

    def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """How many messages of each of *queues* are not acknowledged, at one moment; counts along the
        index."""
        statement = (
            sa.select(sa.func.count())
            .select_from(queue_message)
            .where(queue_message.c.queue == sa.bindparam("name"))
        )
        with self._reading.begin() as connection:
            return {name: connection.execute(statement, {"name": name}).scalar_one() for name in queues}

    def close(self) -> None:
        """Forgets what is held, which gives it back, and ends every wait. The engine stays open: it belongs
        to the caller."""
        self._closed = True
        for reader in list(self._readers.values()):
            reader.held.clear()
            with reader.arrived:
                reader.arrived.notify_all()

    def _take(self, queue: str, reader: _Reader, limit: int) -> list[Delivery]:
        with reader.lock:
            if reader.position is None:
                self._recover(queue)
                reader.position = 0
            with self._reading.begin() as connection:
                # What is due is read past what is held of it: a consumer holds a few batches at most.
                due = connection.exec_driver_sql(_DUE, (queue, self._now(), limit + len(reader.held)))
                again = [d for d in _deliveries(queue, due) if d.tag not in reader.held][:limit]
                due.close()
                fresh: list[Delivery] = []
                if (room := limit - len(again)) > 0:
                    # Nothing past the position is held, except where it went back.
                    rows = connection.exec_driver_sql(_NEW, (queue, reader.position, room + len(reader.held)))
                    fresh = [d for d in _deliveries(queue, rows) if d.tag not in reader.held][:room]
                    rows.close()
            if not (batch := again + fresh):
                return []
            with self._transaction() as connection:
                if fresh:
                    connection.exec_driver_sql(_MARK, (queue, fresh[-1].tag))
                if again:
                    update = "UPDATE queue_message SET attempts = attempts + 1 WHERE seq = ?"
                    connection.exec_driver_sql(update, [(d.tag,) for d in again])
                # A crash before this commit: nothing was handed out. After it: the next process counts these
                # as delivered once more.
            if fresh:
                reader.position = fresh[-1].tag
            reader.held.update((d.tag, d.attempts) for d in batch)
            return batch

    def _recover(self, queue: str) -> None:
        """Counts the deliveries that an earlier process did not live to settle, once: the mark goes back to
        the start with them."""
        with self._transaction() as connection:
            mark = sa.select(queue_mark.c.delivered).where(queue_mark.c.queue == queue)
            if delivered := connection.execute(mark).scalar():
                connection.exec_driver_sql(
                    "UPDATE queue_message SET attempts = attempts + 1"
                    " WHERE queue = ? AND available_at = 0 AND seq <= ?",
                    (queue, delivered),
                )
                connection.exec_driver_sql(_MARK, (queue, 0))

    def _reader(self, queue: str) -> _Reader:
        return self._readers.get(queue) or self._readers.setdefault(queue, _Reader())

    def _release(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those of *deliveries* that are held here, each once, and no longer held. The attempts tell an old
        delivery of a message from the present one."""
        released = []
        for delivery in deliveries:
            held = self._reader(delivery.queue).held
            if held.get(delivery.tag) == delivery.attempts and held.pop(delivery.tag, None) is not None:
                released.append(delivery)
        return released

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Lets *deliveries*, no longer held, be found again by this instance, though nothing could be
        written.
        """
        for delivery in deliveries:
            reader = self._reader(delivery.queue)
            with reader.lock:
                if reader.position is not None:
                    reader.position = min(reader.position, delivery.tag - 1)

    @contextlib.contextmanager
    def _keeping(self, deliveries: Sequence[Delivery]) -> Iterator[None]:
        """Holds *deliveries* again when the settling failed, so that the caller can settle them once more."""
        try:
            yield
        except BaseException:
            for delivery in deliveries:
                self._reader(delivery.queue).held[delivery.tag] = delivery.attempts
            raise

    def _add_dead_letters(
        self,
        connection: sa.Connection,
        letters: Iterable[tuple[str, bytes, Mapping[str, str], Mapping[str, Any]]],
    ) -> None:
        at = rfc3339(self._clock())
        insert = "INSERT INTO dead_letter (queue, body, headers, error, at) VALUES (?, ?, ?, ?, ?)"
        rows = [(queue, body, _json(headers), _json(error), at) for queue, body, headers, error in letters]
        connection.exec_driver_sql(insert, rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._writing, self._engine.begin() as connection:
            yield connection

    def _wake(self, queues: set[str]) -> None:
        for reader in map(self._reader, queues):
            with reader.arrived:
                reader.arrivals += 1
                reader.arrived.notify_all()

    def _now(self) -> int:
        return int(self._clock().timestamp() * 1000)


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(value)).decode()


def _deliveries(queue: str, rows: Iterable[Any]) -> Iterator[Delivery]:
    size = 0
    for seq, body, headers, attempts in rows:
        yield Delivery(queue, bytes(body), orjson.loads(headers), attempts, seq)
        size += len(body)
        if size > _BATCH_BYTES:
            return


def _dead_letter(row: Any) -> DeadLetter:
    return DeadLetter(
        str(row.number),
        row.queue,
        bytes(row.body),
        orjson.loads(row.headers),
        orjson.loads(row.error),
        row.at,
    )
