"""Faults at durable writes: what the hub is told, and what is on the disk, when a write fails.

On the embedded engine every durable write is either a commit on the hub's one database file or files put
into an agency's folder. So two hooks reach all of them: one around the driver's commit, which says by the
tables that a transaction wrote which step of the journey it belongs to, and one around the transport.

A write fails in two ways: nothing of it was kept, or all of it was kept and the writer is told that it
failed (the answer got lost). Either it ends the process, or the process hears an error and goes on.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event

from adapters.adapter import Native
from adapters.transport import FileDrop
from broker.broker import SUBMISSIONS
from schemas.errors import HubError, NotSent, RefusedByRecipient

ANY = "any write"
SEND = "send"
_WRITE = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)")
T = TypeVar("T")


class Crash(BaseException):
    """The process ends here: not even a handler of `Exception` runs."""


@dataclass(slots=True)
class Fault:
    """The *nth* write at *point* fails, and the *times* - 1 after it. *kept*: it is on the disk all the
    same. *ends*: with the process, which from then on writes nothing more."""

    point: str
    kept: bool = False
    ends: bool = True
    nth: int = 1
    times: int = 1
    met: int = 0

    def meets(self, point: str) -> bool:
        """Whether this write, the next at *point*, fails."""
        if self.point not in (point, ANY):
            return False
        self.met += 1
        return self.nth <= self.met < self.nth + self.times

    @property
    def struck(self) -> bool:
        """Whether everything that was to fail has failed."""
        return self.met >= self.nth + self.times - 1


@dataclass(slots=True)
class Faults:
    """The faults of one process, and the *writes* that it did or tried, by point, in order."""

    faults: Sequence[Fault] = ()
    writes: list[str] = field(default_factory=list)
    dead: bool = False

    def write(self, point: str, act: Callable[[], T], error: type[Exception]) -> T:
        """Does *act*, unless a fault meets it."""
        if self.dead:
            raise Crash
        self.writes.append(point)
        fault = next((f for f in self.faults if f.meets(point)), None)
        if fault is None:
            return act()
        self.dead = fault.ends
        if fault.kept:
            act()
        if fault.ends:
            raise Crash
        raise error(f"{point} failed")

    @property
    def all_struck(self) -> bool:
        """Whether every fault met its write; a test of a fault that never came proves nothing."""
        return all(fault.struck for fault in self.faults)

    def wrap(self, engine: sa.Engine) -> None:
        """Puts the faults around the commits of *engine* (SQLite)."""
        event.listen(engine, "begin", forget)
        event.listen(engine, "before_cursor_execute", note)
        commit = engine.dialect.do_commit

        def do_commit(connection: Any) -> None:
            written = connection.info.get("written")
            if not written:
                commit(connection)
            else:
                self.write(point_of(written), lambda: commit(connection), sqlite3.OperationalError)

        engine.dialect.do_commit = do_commit  # type: ignore[assignment,method-assign]  # this engine's own dialect


def forget(connection: sa.Connection) -> None:
    """Begins to note what a transaction writes."""
    connection.info["written"] = {}


def note(
    connection: sa.Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
) -> None:
    if found := _WRITE.match(statement):
        first = parameters[0] if many else parameters
        connection.info["written"].setdefault(f"{found[1].split()[0]} {found[2]}", (statement, first))


def point_of(written: dict[str, tuple[str, Any]]) -> str:
    """The step of the journey whose transaction wrote *written* (verb and table → statement, first row)."""
    if "INSERT queue_message" in written:
        queue = written["INSERT queue_message"][1][0]
        return "publish submissions" if queue == SUBMISSIONS else "publish deliveries"
    if "UPDATE queue_message" in written:
        return "requeue" if "SET available_at" in written["UPDATE queue_message"][0] else "receive"
    for mark, point in (
        ("INSERT ledger_checkpoint", "checkpoint"),
        ("UPDATE outbox_watermark", "watermark"),
        ("INSERT inbox", "decisions"),
        ("INSERT suspect", "count"),
        ("INSERT ledger_entry", "outcomes"),
        ("INSERT dead_letter", "bury" if "DELETE queue_message" in written else "quarantine"),
        ("DELETE dead_letter", "take dead letter"),
        ("DELETE queue_message", "ack"),
        ("INSERT queue_mark", "receive"),
        ("INSERT person_key", "decisions"),  # of a batch of which nothing could be carried
    ):
        if mark in written:
            return point
    return "start"


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A new folder, in memory where there is room for one: these tests end processes, not the power."""
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as made:
        yield Path(made)


class Recipients:
    """The agencies' systems behind a transport of files: some of them *refusing* or *away* for now, and
    *faults* around what is put into their folders."""

    def __init__(self, root: Path, faults: Faults) -> None:
        self._drop, self.faults = FileDrop(root), faults
        self.refusing: set[str] = set()
        self.away: set[str] = set()

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        """As `FileDrop.send`, unless *party* is refusing or away."""
        if party in self.refusing:
            return [RefusedByRecipient("will never take it") for _ in deliveries]
        if party in self.away:
            return [NotSent("is away") for _ in deliveries]
        if not deliveries:
            return []
        return self.faults.write(SEND, lambda: self._drop.send(party, deliveries), ConnectionError)
