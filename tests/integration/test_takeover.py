"""Several writers of one ledger, alive at once in processes of their own: killed, stopped and cut off in the
middle of a transaction, they never fork it, and what one had committed is there once.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from consent.ledger import Ledger
from consent.repair import check
from consent.tiles import Edge
from schemas.database import open_database
from tests import servers
from tests.unit.test_ledger import ORIGIN, SIGNER, clock

PATIENCE_SECONDS = 90.0
# A writer: appends, signs and says what it has committed, for ever, or once and then hangs before its commit.
WRITER = """
import json, sys
from datetime import UTC, datetime
import sqlalchemy as sa
from consent.ledger import Ledger, Signer, Entry
from schemas.database import open_database
from schemas.errors import HubError
url, worker, hangs = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "hangs"
engine = open_database(url, lock_timeout_seconds=0.5)
signer = Signer("isr.test/ledger", bytes(range(32)))
ledger = Ledger(engine, signer, signer.name, lambda: datetime(2026, 11, 22, tzinfo=UTC))
count = sa.text("SELECT count(*) FROM ledger_entry WHERE message = :m")
def entry(number):
    said = {"kind": "refusal", "source": "police", "message": f"m{number}", "party": "msd"}
    return Entry(**said, body={**said, "at": "2026-11-22T00:00:00.000Z"})
number = worker * 1_000_000
while True:
    batch = [entry(number + i) for i in range(1 + number % 50)]
    try:
        with engine.begin() as connection:
            ledger.append(connection, batch)
            if hangs:
                hangs = False
                print(json.dumps({"hangs": len(batch)}), flush=True)
                sys.stdin.readline()
        signed = ledger.sign()
    except (sa.exc.DBAPIError, HubError) as error:
        print(json.dumps({"failed": type(error).__name__}), flush=True)
        if isinstance(error, HubError) and not error.retryable and "head" not in str(error):
            raise
        signed = None
        while signed is None:  # the answer may be cut off too
            try:
                with engine.connect() as connection:
                    known = connection.execute(count, {"m": f"m{number}"}).scalar()
                if not known:
                    break
                signed = ledger.sign()
            except sa.exc.DBAPIError:
                pass
        if signed is None:
            continue
    said = {"first": number, "count": len(batch), "size": signed.size, "root": signed.root.hex()}
    print(json.dumps(said), flush=True)
    number += len(batch)
"""


class Writer:
    """A writer's process, and what it has said so far."""

    def __init__(self, url: str, worker: int, *, hangs: bool = False) -> None:
        command = [sys.executable, "-c", WRITER, url, str(worker), "hangs" if hangs else "writes"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.said: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # cut off by the kill
                self.said.append(json.loads(line))

    def committed(self) -> list[dict[str, Any]]:
        return [said for said in self.said if "size" in said]

    def until(self, key: str, count: int = 1) -> None:
        """Waits until it has said *key* that often."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sum(key in said for said in list(self.said)) < count:
            assert self._process.poll() is None
            assert time.monotonic() < deadline, self.said[-3:]
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def go_on(self) -> None:
        """Lets one that hangs in its transaction commit."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def url(postgresql_database: str) -> str:
    engine = open_database(postgresql_database)
    Ledger(engine, SIGNER, ORIGIN, clock).start()
    engine.dispose()
    return postgresql_database


@contextlib.contextmanager
def writers(*started: Writer) -> Iterator[None]:
    try:
        yield
    finally:
        for writer in started:
            writer.kill()


def assert_one_history(url: str, *started: Writer) -> list[str]:
    """Nothing contradicts anything, every checkpoint that anybody ever signed is on one line, and what a
    writer knew as committed is there once. Returns the messages, in order.
    """
    engine = open_database(url)
    try:
        ledger = Ledger(engine, SIGNER, ORIGIN, clock)
        ledger.start()
        ledger.sign()
        assert check(engine, SIGNER, ORIGIN) == []
        with engine.connect() as connection:
            query = sa.text("SELECT message, leaf FROM ledger_entry ORDER BY idx")
            rows = connection.execute(query).all()
    finally:
        engine.dispose()
    roots, edge = {0: b""}, Edge()
    for row in rows:
        edge.extend([bytes(row.leaf)])
        roots[edge.size] = edge.root()
    counts = Counter(row.message for row in rows)
    for writer in started:
        for said in writer.committed():
            assert roots[said["size"]].hex() == said["root"]
            assert all(counts[f"m{said['first'] + i}"] == 1 for i in range(said["count"]))
    assert max(counts.values()) == 1
    return [row.message for row in rows]


def test_writer_killed_within_its_transaction_leaves_the_head_to_the_next(url: str) -> None:
    first, second = Writer(url, 1, hangs=True), Writer(url, 2)
    with writers(first, second):
        first.until("hangs")
        first.kill()
        second.until("size", 5)
    messages = assert_one_history(url, first, second)
    assert not any(message.startswith("m1") and len(message) == 8 for message in messages)


def test_writer_cut_off_within_its_transaction_comes_back_to_a_ledger_that_went_on(url: str) -> None:
    """It is stopped holding the head; the server ends its session; another takes over; then it wakes up and
    believes to be the writer still.
    """
    first = Writer(url, 1, hangs=True)
    second = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(writers(first))
        first.until("hangs")
        first.signal(signal.SIGSTOP)
        second = Writer(url, 2)
        stack.enter_context(writers(second))
        second.until("failed")  # the head is locked
        second.until("size", 5)
        first.signal(signal.SIGCONT)
        first.go_on()
        first.until("failed")
        first.until("size", 5)
        second.until("size", 8)
    assert_one_history(url, first, second)


def test_writers_alive_at_once_never_fork_whoever_is_stopped_and_cut_off(url: str) -> None:
    random_ = random.Random(7)
    started = [Writer(url, worker) for worker in (1, 2, 3)]
    with writers(*started):
        for writer in started:
            writer.until("size")
        for _ in range(8):
            stopped = random_.choice(started)
            stopped.signal(signal.SIGSTOP)
            with psycopg.connect(servers.driver_url(url), autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.5"
                )
            stopped.signal(signal.SIGCONT)
            started[0].until("size", len(started[0].committed()) + 2)
        for writer in started:
            writer.until("size", len(writer.committed()) + 1)
    messages = assert_one_history(url, *started)
    assert len({message[:2] for message in messages}) == 3
