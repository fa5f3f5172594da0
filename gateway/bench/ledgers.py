"""The ledger by itself: appending beside plain rows, what it holds in memory, what a proof reads, and
verifying all of it from outside.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import orjson
import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from consent.ledger import Entry, Ledger, Signer, Written
from consent.verify import verify
from gateway.bench.figures import Side, median
from gateway.bench.journey import NO_SERVERS
from gateway.bench.load import NOW, accepted, carried, embedded_hub
from gateway.bench.run import Run
from gateway.hub import migrate
from gateway.sandbox.servers import driver_url
from gateway.settings import Settings
from schemas.canonical import canonical_trusted
from schemas.database import open_database, reading

_ORIGIN = "isr-hub.example.nz/bench"
_PART = 20_000  # entries held in memory at a time
_BATCH = 2000  # as 200 messages to ten parties make
_PLAIN = (
    "CREATE TABLE plain (idx bigint PRIMARY KEY, leaf bytea NOT NULL, entry bytea NOT NULL, "
    "source text NOT NULL, message text NOT NULL, party text NOT NULL, kind text NOT NULL)"
)
_INDEXES = (
    "CREATE INDEX plain_message ON plain (message)",
    "CREATE UNIQUE INDEX plain_decision ON plain (source, message, party)",
)
_INSERT = "INSERT INTO plain VALUES (%s, %s, %s, %s, %s, %s, %s)"
_COPY = "COPY plain FROM STDIN WITH (FORMAT BINARY)"


def measure_append(run: Run) -> None:
    """R5-append: entries into PostgreSQL beside the same rows without a tree; memory and reads of a growing
    ledger.
    """
    bodies = _bodies(run)
    if run.servers is None:
        run.findings.missing("R5-append", NO_SERVERS)
    else:
        run.step("appending to the ledger, beside plain rows")
        n = run.size.repetitions
        ours, inserted, copied = [], [], []
        with run.own_folder() as folder, run.servers.settings(folder) as settings:
            engine = open_database(settings.database)
            ledger = _ledger(engine)
            with psycopg.connect(driver_url(settings.database_url)) as plain:
                for statement in (_PLAIN, *_INDEXES):
                    plain.execute(statement)
                plain.commit()
                for repetition in range(n):
                    fresh = _entries(bodies, run.size.appended, repetition)
                    ours.append(len(fresh) / _append(engine, ledger, fresh))
                    inserted.append(len(fresh) / _rows(plain, fresh, repetition * 2, _executed))
                    copied.append(len(fresh) / _rows(plain, fresh, repetition * 2 + 1, _copied))
            engine.dispose()
        run.findings.ratio(
            "R5-append",
            median(ours) / median(inserted),
            Side("append, signed never", median(ours), "entries/s"),
            Side("INSERT of the same rows, indexed alike", median(inserted), "rows/s"),
            n,
        )
        run.findings.figure("ledger", "COPY of the same rows, indexed alike", median(copied), "rows/s", n)
    _growing(run, bodies)


def _growing(run: Run, bodies: Sequence[dict[str, Any]]) -> None:
    """What the sequencer holds, and what a proof reads, as the ledger grows."""
    sizes = [s for s in (1_000, 10_000, 100_000, 1_000_000) if s <= run.size.entries]
    with run.own_folder() as folder:
        engine = _database(folder)
        ledger = _ledger(engine)
        held, round_ = 0, 0
        for size in sizes:
            run.step(f"a ledger of {size:,} entries")
            while held < size:
                part = _entries(bodies, min(_PART, size - held), 1000 + round_)
                _append(engine, ledger, part)
                held += len(part)
                round_ += 1
            ledger.sign()
            with _reads(engine) as statements:
                ledger.inclusion_proof(size // 3, size)
            run.findings.figure(
                "ledger", f"reads for the proof of one of {size:,} entries", len(statements), "reads"
            )
            run.findings.figure(
                "ledger", f"sequencer's state at {size:,} entries", _held_bytes(ledger) / 1024, "KiB"
            )
        engine.dispose()


def _held_bytes(ledger: Ledger) -> int:
    """The bytes of every hash and text that *ledger* reaches, itself alone: what grows if anything does."""
    seen: set[int] = set()

    def size(value: Any) -> int:
        if id(value) in seen or isinstance(value, sa.Engine | Signer | type) or callable(value):
            return 0
        seen.add(id(value))
        total = sys.getsizeof(value)
        if isinstance(value, dict):
            total += sum(size(k) + size(v) for k, v in value.items())
        elif isinstance(value, list | tuple | set | frozenset):
            total += sum(map(size, value))
        elif hasattr(value, "__dict__"):
            total += size(vars(value))
        for name in getattr(type(value), "__slots__", ()):
            total += size(getattr(value, name, None))
        return total

    return size({name: value for name, value in vars(ledger).items() if name not in ("_reading",)})


@contextmanager
def _reads(engine: sa.Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def measure_verify(run: Run) -> None:
    """R8: the whole ledger verified from a data folder, beside SHA-256 over the same bytes."""
    run.step(f"making a ledger of {run.size.entries:,} entries")
    bodies = _bodies(run)
    with run.own_folder() as folder:
        settings = Settings(data=folder, origin=_ORIGIN)
        migrate(settings)
        engine = open_database(settings.database)
        signer = Signer.generate(_ORIGIN)
        ledger = Ledger(engine, signer, _ORIGIN, lambda: NOW)
        ledger.start()
        held = 0
        while held < run.size.entries:
            part = _entries(bodies, min(_PART, run.size.entries - held), held)
            _append(engine, ledger, part)
            held += len(part)
            ledger.sign()
        with reading(engine).connect() as connection:
            table = sa.text("SELECT entry FROM ledger_entry ORDER BY idx")
            stored = [bytes(row[0]) for row in connection.execute(table)]
        engine.dispose()
        rates, hashes = [], []
        for n in range(1, run.size.repetitions + 1):
            run.step(f"verifying {held:,} entries, {n} of {run.size.repetitions}")
            started = process_time()  # one thread's work: what a core does, whoever else is on the machine
            report = verify(folder, signer.vkey())
            if not report.ok or report.size != held:
                raise AssertionError("the bench's own ledger does not verify")
            rates.append(held / (process_time() - started))
            started = process_time()
            for data in stored:
                hashlib.sha256(data).digest()
            hashes.append(held / (process_time() - started))
    run.findings.ratio(
        "R8",
        median(rates),
        Side(f"verify, {held:,} entries", median(rates), "entries/s"),
        Side("SHA-256 over the same bytes", median(hashes), "entries/s"),
        run.size.repetitions,
    )
    run.findings.figure("ledger", "verify ÷ bare SHA-256", median(rates) / median(hashes), "of its rate")


class _Keeping(Ledger):
    """A ledger that keeps a copy of what it was given."""

    def __init__(self, ledger: Ledger) -> None:
        self.__dict__.update(ledger.__dict__)
        self.made: list[bytes] = []

    def append(self, connection: sa.Connection, entries: Sequence[Entry | Written]) -> range:
        self.made += [entry.encode() for entry in entries]
        return super().append(connection, entries)


def _bodies(run: Run) -> list[dict[str, Any]]:
    """Entries such as the exchange writes."""
    with run.own_folder() as folder, embedded_hub(folder, _Keeping) as hub:
        accepted(hub, run.natives(min(300, run.size.episodes)))
        carried(hub)
        made = hub.ledger.made if isinstance(hub.ledger, _Keeping) else []
    return [orjson.loads(data) for data in made]


def _entries(bodies: Sequence[dict[str, Any]], count: int, round_: int) -> list[Written]:
    """*count* entries like *bodies*, about other messages: a decision is recorded once."""
    made = []
    for n in range(count):
        body = bodies[n % len(bodies)]
        message = f"{body['message']}.{round_}.{n}"
        data = canonical_trusted({**body, "message": message})
        made.append(Written(body["kind"], body["source"], message, body["party"], data))
    return made


def _database(folder: Path) -> sa.Engine:
    settings = Settings(data=folder)
    migrate(settings)
    return open_database(settings.database)


def _ledger(engine: sa.Engine) -> Ledger:
    ledger = Ledger(engine, Signer.generate(_ORIGIN), _ORIGIN, lambda: NOW)
    ledger.start()
    return ledger


def _append(engine: sa.Engine, ledger: Ledger, entries: Sequence[Written]) -> float:
    started = perf_counter()
    for start in range(0, len(entries), _BATCH):
        with engine.begin() as connection:
            ledger.append(connection, entries[start : start + _BATCH])
    return perf_counter() - started


def _rows(
    plain: "psycopg.Connection[Any]",
    entries: Sequence[Written],
    round_: int,
    put: Callable[["psycopg.Cursor[Any]", Sequence[tuple[Any, ...]]], None],
) -> float:
    """Seconds to insert what the ledger inserts, encoded like there, under numbers of their own."""
    base = round_ * len(entries)
    started = perf_counter()
    for start in range(0, len(entries), _BATCH):
        rows = [
            (base + start + n, bytes(32), e.encode(), e.source, f"{e.message}.{round_}", e.party, e.kind)
            for n, e in enumerate(entries[start : start + _BATCH])
        ]
        with plain.cursor() as cursor:
            put(cursor, rows)
        plain.commit()
    return perf_counter() - started


def _executed(cursor: "psycopg.Cursor[Any]", rows: Sequence[tuple[Any, ...]]) -> None:
    cursor.executemany(_INSERT, rows)


def _copied(cursor: "psycopg.Cursor[Any]", rows: Sequence[tuple[Any, ...]]) -> None:
    with cursor.copy(_COPY) as copy:
        copy.set_types(["int8", "bytea", "bytea", "text", "text", "text", "text"])
        for row in rows:
            copy.write_row(row)
