"""What a process of the hub comes to in the fault suite: it is killed at one durable boundary, or works in a
way that is wrong on purpose. Lives in the tests alone; the product has no hook for it.

    {"point": "decisions", "when": "before"}   SIGKILL there
    {"wrong": "publish before commit"}         a sabotage that the suite must find
    {"poison": "<message id>"}                 SIGKILL whenever this message is handled
"""

import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from broker import retry
from broker.broker import SUBMISSIONS, Delivery, Outgoing
from broker.outbox import Outbox
from broker.rabbitmq import RabbitBroker, _Batch
from broker.topology import mailbox_of
from consent.ledger import Ledger
from gateway.exchange import Exchange
from gateway.recipients import Ways
from tests.acceptance.faults import forget, note, point_of

# Each durable boundary of each process, in the order of the journey: what is written there, and what it
# leaves, say the comments marked ‖ in gateway/exchange.py.
BOUNDARIES = {
    "gateway": ("publish submissions", "ack"),
    "exchange": ("decisions", "checkpoint", "publish deliveries", "watermark", "ack"),
    "adapters": ("send", "outcomes", "ack"),
}
# Of the same kind, but only where something is set aside.
QUARANTINE = ("quarantine", "ack")
_COPY = re.compile(r'\s*COPY\s+"?(\w+)', re.I)
_SHORT_SECONDS = 0.05  # the pauses of an hour's outage, in a test


def prepare(harm: Mapping[str, Any]) -> None:
    """Makes this process come to *harm*. Pauses are shortened: how long a hub waits is not what is tried."""
    retry.FIRST_DELAY_SECONDS, retry.LONGEST_DELAY_SECONDS = _SHORT_SECONDS, 0.5
    retry.LONGEST_RECONNECT_SECONDS = retry.RESUBSCRIBE_SECONDS = 0.5
    if "wrong" in harm:
        WRONG[harm["wrong"]]()
    if "point" in harm:
        _Boundary(harm["point"], harm["when"]).watch()
    if "poison" in harm:
        _poisoned(harm["poison"])


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal is on its way


class _Boundary:
    """Kills this process *when* (before, after) it does the first durable write at *point*."""

    def __init__(self, point: str, when: str) -> None:
        self._point, self._when = point, when

    def _around(self, point: str, act: Callable[[], Any]) -> Any:
        if point == self._point and self._when == "before":
            _die()
        answer = act()
        if point == self._point:
            _die()
        return answer

    def watch(self) -> None:
        """Puts itself around every durable write: commits, what is told the broker, what is sent."""
        event.listen(sa.Engine, "begin", forget)
        event.listen(sa.Engine, "before_cursor_execute", note)
        copied: dict[int, dict[str, Any]] = {}  # what SQLAlchemy does not see: rows that went in by COPY
        commit, rollback = PGDialect_psycopg.do_commit, PGDialect_psycopg.do_rollback

        def do_commit(dialect: Any, connection: Any) -> None:
            written = (connection.info.get("written") or {}) | copied.pop(_driver(connection), {})
            point = point_of(written) if written else "nothing"
            self._around(point, lambda: commit(dialect, connection))

        def do_rollback(dialect: Any, connection: Any) -> None:
            copied.pop(_driver(connection), None)
            rollback(dialect, connection)

        def copy(act: Callable[[], Any], cursor: psycopg.Cursor[Any], statement: str) -> Any:
            if found := _COPY.match(statement):
                noted = copied.setdefault(id(cursor.connection), {})
                noted[f"INSERT {found[1]}"] = (statement, None)
            return act()

        PGDialect_psycopg.do_commit = do_commit  # type: ignore[method-assign]  # this process is ours
        PGDialect_psycopg.do_rollback = do_rollback  # type: ignore[method-assign]  # likewise
        _wrap(psycopg.Cursor, "copy", copy)
        _wrap(RabbitBroker, "publish", lambda act, broker, said: self._around(_publish(said), act))
        for name in ("ack", "quarantine"):
            _wrap(
                RabbitBroker, name, lambda act, broker, said, n=name: self._around(n, act) if said else act()
            )
        _wrap(Ways, "send", lambda act, ways, party, said: self._around("send", act) if said else act())


def _driver(connection: Any) -> int:
    return id(getattr(connection, "driver_connection", connection))


def _publish(messages: Sequence[Outgoing]) -> str:
    if not messages:
        return "nothing"
    if messages[0].queue.startswith(mailbox_of("")):
        return "publish into a mailbox"
    return "publish submissions" if messages[0].queue == SUBMISSIONS else "publish deliveries"


def _wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
    real = getattr(owner, name)

    def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
        return around(lambda: real(self, *arguments, **named), self, *arguments)

    setattr(owner, name, wrapped)


def _poisoned(message: str) -> None:
    """A message that ends the process: nobody can catch what it does."""

    def around(act: Callable[[], Any], _exchange: Exchange, deliveries: Sequence[Delivery]) -> Any:
        if any(d.headers.get("id") == message for d in deliveries):
            _die()
        return act()

    _wrap(Exchange, "_commit", around)


def _publish_before_commit() -> None:
    """Releases leave while their decisions are not committed yet: what a crash takes back has left."""

    def around(
        act: Callable[[], Any],
        outbox: Outbox,
        _connection: sa.Connection,
        releases: Sequence[tuple[int, Outgoing]],
    ) -> Any:
        if releases:
            outbox._broker.publish([outgoing for _, outgoing in releases])
        return act()

    _wrap(Outbox, "enqueue", around)


def _ack_before_commit() -> None:
    """Submissions are gone from their queue while what follows from them is not committed yet."""

    def around(act: Callable[[], Any], exchange: Exchange, deliveries: Sequence[Delivery]) -> Any:
        exchange._broker.ack(deliveries)
        time.sleep(0.3)  # until RabbitMQ has read it; the point is that it was said too early
        return act()

    _wrap(Exchange, "_commit", around)


def _answer_before_confirm() -> None:
    """Whoever publishes is told that the messages are safe when they have only been handed to the socket."""

    def publish(broker: RabbitBroker, messages: list[Any]) -> None:
        for _, _, properties in messages:
            properties.message_id = properties.message_id or uuid.uuid4().hex
        batch = _Batch(messages)
        if messages:
            broker._call(lambda session: session.publish(batch))

    RabbitBroker._publish = publish  # type: ignore[method-assign]  # this process is ours


def _forget_outcomes() -> None:
    """Whoever comes after a crash sends and records again what was delivered and recorded."""
    Ledger.delivered = lambda *_: set()  # type: ignore[method-assign]  # this process is ours


WRONG: dict[str, Callable[[], None]] = {
    "publish before commit": _publish_before_commit,
    "ack before commit": _ack_before_commit,
    "answer before confirm": _answer_before_confirm,
    "forget outcomes": _forget_outcomes,
}
__all__ = ["BOUNDARIES", "QUARANTINE", "WRONG", "prepare"]
