"""How often processes ended with one submission alone: counted once a process, taken back when it is not the
submission's doing, and forgotten with the doubt."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.suspects import Suspects, suspect
from schemas.database import metadata, open_database

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
ONE, OTHER = b'{"id": "one"}', b'{"id": "other"}'


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path / 'hub.db'}")
        metadata.create_all(engine)
    else:
        engine = open_database(request.getfixturevalue("postgresql_database"))
    yield engine
    engine.dispose()


def process(engine: sa.Engine, *, days: int = 0) -> Suspects:
    """A new process, *days* later."""
    return Suspects(engine, b"k" * 32, lambda: NOW + timedelta(days=days))


def tries(engine: sa.Engine) -> list[int]:
    with engine.connect() as connection:
        return sorted(connection.execute(sa.select(suspect.c.tries)).scalars())


def test_each_process_that_does_not_come_back_counts_once(engine: sa.Engine) -> None:
    for ended in range(4):
        suspects = process(engine)
        assert [suspects.count(ONE) for _ in range(3)] == [ended] * 3


def test_two_submissions_do_not_share_a_count(engine: sa.Engine) -> None:
    for ended in range(3):
        assert process(engine).count(ONE) == ended
    assert process(engine).count(OTHER) == 0
    assert tries(engine) == [1, 3]


def test_row_goes_in_the_transaction_that_carries_it_or_stays_with_its_failure(engine: sa.Engine) -> None:
    suspects = process(engine)
    for body in (ONE, OTHER):
        suspects.count(body)
    with engine.connect() as connection, connection.begin() as transaction:
        suspects.carried(connection, ONE)
        transaction.rollback()
    assert tries(engine) == [1, 1]

    with engine.begin() as connection:
        suspects.carried(connection, ONE)
    suspects.committed(ONE)

    assert tries(engine) == [1]
    assert process(engine).count(ONE) == 0


def test_row_goes_when_it_is_set_aside(engine: sa.Engine) -> None:
    suspects = process(engine)
    for body in (ONE, OTHER):
        suspects.count(body)

    suspects.set_aside([ONE])

    assert (process(engine).count(ONE), process(engine).count(OTHER)) == (0, 1)


def test_failure_outside_is_taken_back_and_no_death_before_it(engine: sa.Engine) -> None:
    for _ in range(2):
        process(engine).count(ONE)
    suspects = process(engine)
    for _ in range(5):
        suspects.count(ONE)
        suspects.outlived(blamed=False)

    assert process(engine).count(ONE) == 2


def test_failure_that_is_its_own_counts_each_time(engine: sa.Engine) -> None:
    suspects = process(engine)
    for failed in range(3):
        assert suspects.count(ONE) == failed
        suspects.outlived(blamed=True)


def test_count_that_could_not_be_taken_back_is_not_counted_again(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspects = process(engine)
    suspects.count(ONE)

    def away() -> None:
        raise sa.exc.OperationalError("UPDATE", {}, Exception())

    with monkeypatch.context() as patch:
        patch.setattr(engine, "begin", away)
        suspects.outlived(blamed=False)

    assert suspects.count(ONE) == 0
    assert tries(engine) == [1]
    suspects.outlived(blamed=False)
    assert tries(engine) == [0]


def test_row_that_nobody_asks_for_goes_when_it_is_old(engine: sa.Engine) -> None:
    process(engine).count(ONE)
    process(engine, days=29).count(OTHER)
    assert tries(engine) == [1, 1]

    process(engine, days=31).count(OTHER)

    assert tries(engine) == [2]


def test_digest_is_keyed(engine: sa.Engine) -> None:
    process(engine).count(ONE)
    assert Suspects(engine, b"o" * 32, lambda: NOW).count(ONE) == 0


def test_processes_that_count_at_once_each_count(engine: sa.Engine) -> None:
    start, found = threading.Barrier(4), list[int]()

    def count() -> None:
        suspects = process(engine)
        start.wait()
        found.append(suspects.count(ONE))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == [0, 1, 2, 3]
