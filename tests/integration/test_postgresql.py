"""What only a real PostgreSQL can show: other processes that commit between two reads, connections that end
in the middle of a transaction, and processes that stop there."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from broker import retry
from broker.broker import deliveries_to
from consent.ledger import Ledger, Signer
from gateway.hub import Hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from schemas.clock import utc_now
from schemas.database import in_sequence, open_database, reading
from tests import servers
from tests.processes import accepted_at_last, entries, until
from tests.unit.test_ledger import entry

PARTY = "corrections"


@pytest.fixture
def engine(postgresql_database: str) -> Iterator[sa.Engine]:
    engine = open_database(postgresql_database)
    yield engine
    engine.dispose()


def ended(url: str, which: str) -> int:
    """Ends the connections to the database of *url* of which *which* is true; returns how many."""
    with psycopg.connect(servers.driver_url(url), autocommit=True) as connection:
        found = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND {which}".encode()
        ).fetchall()
    return len(found)


def test_ledger_starts_while_another_process_appends(engine: sa.Engine, postgresql_database: str) -> None:
    """Between the reads of head, tiles and last entry somebody commits: that is no contradiction."""
    signer = Signer.generate("ledger.test")
    other = open_database(postgresql_database)
    busy = Ledger(other, signer, "ledger.test", utc_now)
    busy.start()
    appended = 0

    def append(*_: object) -> None:
        nonlocal appended
        appended += 1
        with other.begin() as connection:
            busy.append(connection, [entry(appended)])
        busy.sign()

    append()
    event.listen(engine, "after_cursor_execute", append)
    Ledger(engine, signer, "ledger.test", utc_now).start()
    event.remove(engine, "after_cursor_execute", append)
    other.dispose()

    assert appended > 3


def test_reading_sees_one_moment(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE note (n integer)")
    with reading(engine).begin() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM note").scalar_one()
        with engine.begin() as writing:
            writing.exec_driver_sql("INSERT INTO note VALUES (1)")
        after = connection.exec_driver_sql("SELECT count(*) FROM note").scalar_one()

    assert (before, after) == (0, 0)


def test_transactions_of_one_name_take_turns_and_others_do_not_wait(engine: sa.Engine) -> None:
    with engine.begin() as first:
        in_sequence(first, of="a")
        with engine.begin() as other:
            in_sequence(other, of="b")
            in_sequence(other)
        with engine.begin() as same:
            same.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                in_sequence(same, of="a")
            same.rollback()


def test_process_that_stops_in_a_transaction_is_cut_off(postgresql_database: str) -> None:
    """Its locks would keep every other one waiting; and when it goes on, no message is to blame."""
    engine, other = open_database(postgresql_database), open_database(postgresql_database)
    stopped = engine.connect()
    in_sequence(stopped)
    stopped.exec_driver_sql("SET idle_in_transaction_session_timeout = 50")

    with other.begin() as connection:
        in_sequence(connection)  # waits until the stopped one is cut off
    with pytest.raises(sa.exc.DBAPIError) as caught:
        stopped.exec_driver_sql("SELECT 1")
    stopped.invalidate()
    stopped.close()

    assert retry.is_outside(caught.value)
    for each in (engine, other):
        each.dispose()


def test_connection_has_a_limit_for_every_silence(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        shown = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in (
                "lock_timeout",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
                "tcp_user_timeout",
                "tcp_keepalives_idle",
            )
        }
        driver = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]

    assert "0" not in shown.values()
    assert {"connect_timeout", "tcp_user_timeout", "keepalives_idle"} <= driver.keys()


def test_outcome_is_recorded_once_when_two_processes_had_the_same_delivery(hub: Hub) -> None:
    """RabbitMQ took the first one for dead and gave its deliveries to the second, which was faster."""
    accepted_at_last(hub, "police", [five_f(i.family, i.episode) for i in stream(16, 3, days=3)])
    hub.exchange.carry()
    deliveries: list[Any] = []
    until(lambda: bool(deliveries.extend(hub.broker.receive(deliveries_to(PARTY), 10)) or deliveries))
    settled = [(delivery, None) for delivery in deliveries]

    threads = [threading.Thread(target=hub.exchange._record, args=(PARTY, settled, 0)) for _ in range(2)]
    with hub.engine.begin() as connection:
        in_sequence(connection, of=deliveries_to(PARTY))  # so both have looked before either writes
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()

    recorded = [e["message"] for e in entries(hub) if e["kind"] == "delivery"]
    assert sorted(recorded) == sorted(d.headers["id"] for d in deliveries)


def test_carry_goes_on_after_its_connection_ended_in_a_transaction(hub: Hub) -> None:
    """The batch stays in hand, the pool forgets the dead connection, and no attempt is counted."""
    accepted = accepted_at_last(hub, "police", [five_f(i.family, i.episode) for i in stream(17, 3, days=3)])
    url = hub.settings.database_url
    failures: list[BaseException] = []

    def carry() -> None:
        try:
            hub.exchange.carry(wait_seconds=10.0)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=carry)
    with hub.engine.begin() as connection:
        in_sequence(connection)
        thread.start()
        until(lambda: ended(url, "wait_event_type = 'Lock'") > 0)
    thread.join()
    assert [type(error) for error in failures] == [sa.exc.OperationalError]

    while hub.exchange.carry(wait_seconds=0.1):
        pass

    assert {e["message"] for e in entries(hub) if e["source"] == "police"} == set(accepted)
    assert hub.broker.dead_letters() == []
