"""What every broker promises, asked of each implementation in the same words."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from broker.broker import ACCEPT, SUBMISSIONS, Broker, Delivery, Outgoing, deliveries_to
from broker.embedded import EmbeddedBroker
from broker.rabbitmq import RabbitBroker
from broker.sealed import Seal, SealedBroker
from schemas import database
from schemas.errors import Unconfirmed
from tests import servers

POLICE = deliveries_to("police#district")
AVIVA = deliveries_to("ngo.aviva#ivs")
ERROR = {"code": "invalid-message", "detail": "1 problem", "problems": [{"pointer": "/a", "detail": "b"}]}
PARTIES = ("police#district", "ngo.aviva#ivs")
# How long a test waits for what must come; it returns as soon as it does.
PATIENCE_SECONDS = 20.0

# Runs in another process: opens the same broker, takes messages and is killed while it holds them.
HOLDER = """
import os, signal, sys
from schemas import database
from schemas.clock import utc_now
url, queue, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
if url.startswith("sqlite"):
    from broker.embedded import EmbeddedBroker
    broker = EmbeddedBroker(database.open_database(url), utc_now)
else:
    from broker.rabbitmq import RabbitBroker
    broker = RabbitBroker(url, prefetch=limit)
held = 0
while held < limit:
    held += len(broker.receive(queue, limit - held, 20))
os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass
class Site:
    """A place where a broker keeps its queues: instances are opened on it one after the other or side by
    side."""

    url: str
    make: Callable[["Site"], Broker]
    break_down: Callable[["Site"], None]
    now: datetime = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
    opened: list[Broker] = field(default_factory=list)

    def open(self) -> Broker:
        broker = self.make(self)
        self.opened.append(broker)
        return broker

    def clock(self) -> datetime:
        return self.now


@pytest.fixture
def embedded_site(tmp_path: Path) -> Iterator[Site]:
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    engine = database.open_database(url)
    database.metadata.create_all(engine)
    yield Site(
        url, lambda site: EmbeddedBroker(engine, site.clock), lambda _: database.metadata.drop_all(engine)
    )
    engine.dispose()


@pytest.fixture
def rabbitmq_site(rabbitmq_url: str, rabbitmq_server: servers.RabbitServer) -> Site:
    def lose_the_queues(_site: Site) -> None:
        host = rabbitmq_url.rsplit("/", 1)[1]
        for queue in json.loads(rabbitmq_server.call("GET", f"/api/queues/{host}")):
            rabbitmq_server.call("DELETE", f"/api/queues/{host}/{quote(queue['name'], safe='')}")

    return Site(rabbitmq_url, lambda site: RabbitBroker(site.url, PARTIES, clock=site.clock), lose_the_queues)


def sealed(inner: Site) -> Site:
    make = inner.make
    inner.make = lambda site: SealedBroker(make(site), Seal(lambda queue: sha256(queue.encode()).digest()))
    return inner


@pytest.fixture
def sealed_embedded_site(embedded_site: Site) -> Site:
    return sealed(embedded_site)


@pytest.fixture
def sealed_rabbitmq_site(rabbitmq_site: Site) -> Site:
    return sealed(rabbitmq_site)


@pytest.fixture(params=["embedded", "rabbitmq", "sealed_embedded", "sealed_rabbitmq"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    site: Site = request.getfixturevalue(f"{request.param}_site")
    yield site
    for broker in site.opened:
        broker.close()


@pytest.fixture
def broker(site: Site) -> Broker:
    return site.open()


def outgoing(count: int, queue: str = POLICE) -> list[Outgoing]:
    return [Outgoing(queue, f"body {n}".encode(), {"n": str(n)}) for n in range(count)]


def take(broker: Broker, count: int, queue: str = POLICE) -> list[Delivery]:
    """Exactly *count* deliveries, in as many batches as it takes."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(taken) < count:
        assert time.monotonic() < deadline, f"{len(taken)} of {count} came"
        taken += broker.receive(queue, count - len(taken), 1.0)
    return taken


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [d.body for d in deliveries]


def test_receive_gives_what_was_published_in_order(broker: Broker) -> None:
    messages = outgoing(250)

    broker.publish(messages[:100])
    broker.publish(messages[100:])

    deliveries = take(broker, 250)
    assert bodies(deliveries) == [m.body for m in messages]
    assert [dict(d.headers) for d in deliveries] == [m.headers for m in messages]
    assert {(d.queue, d.attempts) for d in deliveries} == {(POLICE, 0)}


def test_receive_gives_nothing_when_the_queue_is_empty(broker: Broker) -> None:
    assert broker.receive(POLICE, 10) == []


def test_receive_keeps_queues_apart(broker: Broker) -> None:
    broker.publish([Outgoing(POLICE, b"p", {}), Outgoing(AVIVA, b"a", {}), Outgoing(SUBMISSIONS, b"s", {})])

    assert [bodies(take(broker, 1, q)) for q in (SUBMISSIONS, AVIVA, POLICE)] == [[b"s"], [b"a"], [b"p"]]


def test_receive_never_gives_more_than_its_limit(broker: Broker) -> None:
    broker.publish(outgoing(50))

    take(broker, 1)
    assert len(broker.receive(POLICE, 7, PATIENCE_SECONDS)) <= 7


def test_receive_does_not_wait_to_fill_the_batch(broker: Broker) -> None:
    """One message is a batch of one: with a wait of a minute, a test that waited would not end in time."""
    broker.publish(outgoing(1))
    started = time.monotonic()

    deliveries = broker.receive(POLICE, 100, 60.0)

    assert len(deliveries) == 1
    assert time.monotonic() - started < PATIENCE_SECONDS


def test_receive_wakes_when_another_thread_publishes(broker: Broker) -> None:
    received: list[Delivery] = []
    waiting = threading.Thread(target=lambda: received.extend(broker.receive(POLICE, 1, PATIENCE_SECONDS)))
    waiting.start()

    broker.publish(outgoing(1))

    waiting.join(PATIENCE_SECONDS)
    assert bodies(received) == [b"body 0"]


def test_receive_sees_what_another_instance_published(site: Site) -> None:
    consumer, producer = site.open(), site.open()
    assert consumer.receive(POLICE, 1) == []

    producer.publish(outgoing(1))

    assert bodies(take(consumer, 1)) == [b"body 0"]


def test_receive_does_not_give_twice_what_is_held(broker: Broker) -> None:
    broker.publish(outgoing(3))
    take(broker, 3)

    assert broker.receive(POLICE, 10, 0.3) == []


def test_ack_removes_for_good(site: Site) -> None:
    first = site.open()
    first.publish(outgoing(10))
    first.ack(take(first, 10))
    until(lambda: first.depth(POLICE) == 0)
    first.close()

    assert site.open().receive(POLICE, 10, 0.3) == []


def test_ack_leaves_the_others_when_it_names_some_of_a_batch(site: Site) -> None:
    first = site.open()
    first.publish(outgoing(9))
    batch = take(first, 9)
    first.ack([batch[n] for n in (7, 0, 1, 4)])
    until(lambda: first.depth(POLICE) == 5)
    first.close()

    assert bodies(take(site.open(), 5)) == [f"body {n}".encode() for n in (2, 3, 5, 6, 8)]


def test_ack_does_no_harm_when_it_is_repeated(broker: Broker) -> None:
    broker.publish(outgoing(4))
    batch = take(broker, 4)

    broker.ack(batch[:2])
    broker.ack(batch[:2])
    broker.ack(batch[:1] * 3)

    until(lambda: broker.depth(POLICE) == 2)


def test_ack_of_nothing_does_nothing(broker: Broker) -> None:
    broker.publish([])
    broker.ack([])
    broker.requeue([])
    broker.bury([])
    broker.quarantine([])

    assert broker.depth(POLICE) == 0
    assert broker.dead_letters() == []


def test_requeue_gives_the_message_again_with_attempts_increased(broker: Broker) -> None:
    broker.publish(outgoing(1))

    for attempts in range(4):
        [delivery] = take(broker, 1)
        assert delivery.attempts == attempts
        assert (delivery.body, dict(delivery.headers)) == (b"body 0", {"n": "0"})
        broker.requeue([delivery])


def test_requeue_waits_for_its_delay(site: Site, broker: Broker) -> None:
    broker.publish(outgoing(2))
    slow, other = take(broker, 2)
    broker.requeue([slow], delay_seconds=60)
    broker.ack([other])
    site.now += timedelta(seconds=59)
    assert broker.receive(POLICE, 10, 0.5) == []

    site.now += timedelta(seconds=2)

    assert bodies(take(broker, 1)) == [b"body 0"]


def test_requeue_lets_newer_messages_pass(broker: Broker) -> None:
    broker.publish(outgoing(2))
    first, second = take(broker, 2)
    broker.requeue([first, second], delay_seconds=3600)

    broker.publish([Outgoing(POLICE, b"newer", {})])

    assert bodies(take(broker, 1)) == [b"newer"]


def test_requeue_keeps_delay_and_attempts_when_the_instance_is_closed(site: Site) -> None:
    first = site.open()
    first.publish(outgoing(1))
    first.requeue(take(first, 1), delay_seconds=600)
    first.close()
    second = site.open()
    assert second.receive(POLICE, 1, 0.5) == []

    site.now += timedelta(seconds=601)

    [delivery] = take(second, 1)
    assert delivery.attempts >= 1


def test_requeue_makes_an_earlier_delivery_of_the_message_stale(broker: Broker) -> None:
    """A late acknowledgement of the first delivery must not remove the message under its second."""
    broker.publish(outgoing(1))
    [stale] = take(broker, 1)
    broker.requeue([stale])
    [present] = take(broker, 1)

    broker.ack([stale])

    assert broker.depth(POLICE) == 1
    broker.ack([present])
    until(lambda: broker.depth(POLICE) == 0)


def test_close_gives_back_what_is_held(site: Site) -> None:
    first = site.open()
    first.publish(outgoing(5))
    held = take(first, 3)
    first.close()
    second = site.open()

    deliveries = take(second, 5)

    assert sorted(bodies(deliveries)) == [f"body {n}".encode() for n in range(5)]
    assert {d.attempts for d in deliveries if d.body in bodies(held)} == {1}


def test_ack_is_ignored_when_the_instance_was_closed(site: Site) -> None:
    first = site.open()
    first.publish(outgoing(1))
    held = take(first, 1)
    first.close()

    first.ack(held)

    assert bodies(take(site.open(), 1)) == [b"body 0"]


def test_messages_of_a_killed_process_are_delivered_again_with_attempts_increased(site: Site) -> None:
    producer = site.open()
    producer.publish(outgoing(6))
    producer.close()
    for _ in range(2):
        command = [sys.executable, "-c", HOLDER, site.url, POLICE, "3"]
        ended = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": os.getcwd()}, timeout=60, check=False
        )
        assert ended.returncode == -signal.SIGKILL

    deliveries = take(site.open(), 6)

    assert sorted(bodies(deliveries)) == [f"body {n}".encode() for n in range(6)]
    attempts = {d.body: d.attempts for d in deliveries}
    assert [attempts[f"body {n}".encode()] for n in range(3)] == [2, 2, 2]


def test_bury_moves_the_message_to_the_dead_letters(broker: Broker) -> None:
    broker.publish(outgoing(3))
    batch = take(broker, 3)

    broker.bury([(batch[1], ERROR)])
    broker.ack([batch[0], batch[2]])

    [letter] = broker.dead_letters()
    assert (letter.queue, letter.body, dict(letter.headers), dict(letter.error)) == (
        POLICE,
        b"body 1",
        {"n": "1"},
        ERROR,
    )
    assert datetime.fromisoformat(letter.at).utcoffset() == timedelta(0)
    until(lambda: broker.depth(POLICE) == 0)
    assert broker.receive(POLICE, 10, 0.2) == []


def test_delivery_settles_once_when_it_is_requeued_buried_and_acknowledged_again(broker: Broker) -> None:
    broker.publish(outgoing(2))
    first, second = take(broker, 2)

    broker.requeue([first, first])
    broker.requeue([first])
    broker.bury([(second, ERROR), (second, ERROR)])
    broker.bury([(second, ERROR), (first, ERROR)])
    broker.ack([first, second])

    assert [letter.body for letter in broker.dead_letters()] == [b"body 1"]
    assert bodies(take(broker, 1)) == [b"body 0"]
    until(lambda: broker.depth(POLICE) == 1)


def test_bury_keeps_each_error_with_its_message(broker: Broker) -> None:
    broker.publish(outgoing(30))
    batch = take(broker, 30)

    broker.bury([(d, {"code": "test", "detail": d.headers["n"]}) for d in reversed(batch)])

    letters = broker.dead_letters()
    assert len(letters) == 30
    assert all(letter.error["detail"] == letter.headers["n"] for letter in letters)


def test_quarantine_adds_dead_letters_that_were_never_delivered(broker: Broker) -> None:
    broker.quarantine([(Outgoing(ACCEPT, b"\xff\x00 not readable", {"party": "dhb"}), ERROR)])

    [letter] = broker.dead_letters(ACCEPT)
    assert (letter.queue, letter.body, dict(letter.headers)) == (
        ACCEPT,
        b"\xff\x00 not readable",
        {"party": "dhb"},
    )
    assert broker.depth(ACCEPT) == 0


def test_dead_letters_are_listed_oldest_first_by_queue_and_up_to_a_limit(broker: Broker) -> None:
    for n in range(6):
        queue = POLICE if n % 2 else ACCEPT
        broker.quarantine([(Outgoing(queue, f"{n}".encode(), {}), ERROR)])

    assert [d.body for d in broker.dead_letters()] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert [d.body for d in broker.dead_letters(ACCEPT)] == [b"0", b"2", b"4"]
    assert [d.body for d in broker.dead_letters(POLICE, limit=2)] == [b"1", b"3"]
    assert broker.dead_letters(AVIVA) == []


def test_dead_letters_do_not_change_when_looked_at(site: Site) -> None:
    broker = site.open()
    broker.quarantine([(m, ERROR) for m in outgoing(12)])
    first = broker.dead_letters()

    for _ in range(25):  # more often than any server's default limit of deliveries
        assert broker.dead_letters() == first
    broker.close()

    assert site.open().dead_letters() == first


def test_take_dead_letter_removes_the_one_named(broker: Broker) -> None:
    broker.quarantine([(m, ERROR) for m in outgoing(3)])
    letters = broker.dead_letters()

    assert broker.take_dead_letter(letters[1].number) == letters[1]
    assert broker.take_dead_letter(letters[1].number) is None
    assert broker.dead_letters() == [letters[0], letters[2]]


@pytest.mark.parametrize(
    "number", ["", "0", "-1", "12345678901234567890123", "nobody", "'; DROP TABLE x", "१२३"]
)
def test_take_dead_letter_gives_none_when_there_is_no_such_number(broker: Broker, number: str) -> None:
    assert broker.take_dead_letter(number) is None


def test_depth_counts_waiting_and_held(broker: Broker) -> None:
    broker.publish(outgoing(10))
    until(lambda: broker.depth(POLICE) == 10)
    take(broker, 4)

    until(lambda: broker.depth(POLICE) == 10)
    assert broker.depth(AVIVA) == 0


def test_depths_are_asked_together_and_a_queue_that_is_not_there_spoils_none(broker: Broker) -> None:
    broker.publish(outgoing(3))
    take(broker, 1)
    until(lambda: broker.depth(POLICE) == 3)

    asked = [deliveries_to("nobody-at-all"), POLICE, deliveries_to("nobody-either"), AVIVA]
    assert broker.depths(asked) == dict(zip(asked, (0, 3, 0, 0), strict=True))
    assert broker.depths([]) == {}


@pytest.mark.parametrize(
    "body",
    [b"", bytes(range(256)), "Rātā Ōtautahi".encode(), b"\x00" * 1_048_576],
    ids=["empty", "binary", "macrons", "1 MB"],
)
def test_body_arrives_byte_for_byte(broker: Broker, body: bytes) -> None:
    broker.publish([Outgoing(POLICE, body, {})])

    assert bodies(take(broker, 1)) == [body]


def test_headers_arrive_when_they_have_macrons_or_are_empty_or_long(broker: Broker) -> None:
    headers = {"kaupapa": "Whāngārei", "empty": "", "long": "ā" * 5000, "Ō": "x"}

    broker.publish([Outgoing(POLICE, b"", headers)])

    assert dict(take(broker, 1)[0].headers) == headers


def test_publish_takes_the_same_message_twice(broker: Broker) -> None:
    broker.publish(outgoing(1) * 2)

    assert bodies(take(broker, 2)) == [b"body 0", b"body 0"]


def test_twenty_thousand_messages_come_once_and_in_order(broker: Broker) -> None:
    count = 20_000
    broker.publish([Outgoing(SUBMISSIONS, b"%d" % n, {}) for n in range(count)])

    seen: list[int] = []
    while len(seen) < count:
        batch = broker.receive(SUBMISSIONS, 400, PATIENCE_SECONDS)
        assert 0 < len(batch) <= 400
        seen += [int(d.body) for d in batch]
        broker.ack(batch)

    assert seen == list(range(count))
    until(lambda: broker.depth(SUBMISSIONS) == 0)


def test_many_threads_publish_and_consume_without_loss(broker: Broker) -> None:
    queues = [POLICE, AVIVA, SUBMISSIONS]
    got: dict[str, list[bytes]] = {q: [] for q in queues}
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return run

    def produce(name: int) -> None:
        for n in range(20):
            broker.publish([Outgoing(q, f"{name}/{n}/{i}".encode(), {}) for q in queues for i in range(5)])

    def consume(queue: str) -> None:
        while len(got[queue]) < 4 * 100:
            batch = broker.receive(queue, 50, PATIENCE_SECONDS)
            assert batch
            got[queue] += bodies(batch)
            broker.ack(batch)

    threads = [threading.Thread(target=guarded(lambda n=n: produce(n))) for n in range(4)]
    threads += [threading.Thread(target=guarded(lambda q=q: consume(q))) for q in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failures == []
    for queue in queues:
        assert len(got[queue]) == len(set(got[queue])) == 400


def test_publish_raises_unconfirmed_when_the_store_does_not_take_it(site: Site) -> None:
    broker = site.open()
    broker.publish(outgoing(1))
    site.break_down(site)

    with pytest.raises(Unconfirmed):
        broker.publish(outgoing(3))
    with pytest.raises(Unconfirmed):
        broker.quarantine([(outgoing(1)[0], ERROR)])


def test_publish_raises_unconfirmed_when_the_broker_is_closed(broker: Broker) -> None:
    broker.close()

    with pytest.raises(Unconfirmed):
        broker.publish(outgoing(1))
    broker.close()


def test_unconfirmed_says_nothing_of_the_message(site: Site) -> None:
    broker = site.open()
    broker.publish(outgoing(1))
    site.break_down(site)

    with pytest.raises(Unconfirmed) as raised:
        broker.publish([Outgoing(POLICE, b"12 Rata Street", {"n": "secret"})])

    chain: list[Any] = [raised.value]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    assert not any("Rata" in str(error) or "secret" in str(error) for error in chain)
