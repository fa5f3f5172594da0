"""What only a real RabbitMQ can show: lost connections, alarms, TLS, agencies' own users, and what the server
gives up on."""

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

import pika
import pika.exceptions
import pytest

from broker import rabbitmq, topology
from broker.broker import SUBMISSIONS, Delivery, Outgoing, deliveries_to
from broker.rabbitmq import RabbitBroker, _Session
from broker.wire import Connection
from schemas.errors import Unconfirmed
from tests import servers
from tests.faults.proxy import Proxy

PARTY, OTHER = "police#district", "ngo.aviva#ivs"
POLICE = deliveries_to(PARTY)
PATIENCE_SECONDS = 30.0
PASSWORD = "correct horse"


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[RabbitBroker]:
    broker = RabbitBroker(rabbitmq_url, [PARTY, OTHER])
    yield broker
    broker.close()


def take(broker: RabbitBroker, count: int, queue: str = POLICE) -> list[Delivery]:
    taken: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(taken) < count:
        assert time.monotonic() < deadline
        taken += broker.receive(queue, count - len(taken), 1.0)
    return taken


def publish_often(broker: RabbitBroker) -> None:
    """Again and again, because an alarm needs a moment to reach the connection."""
    for _ in range(1000):
        broker.publish([Outgoing(SUBMISSIONS, b"during", {})])


def test_broker_goes_on_when_its_connections_are_cut(
    broker: RabbitBroker, rabbitmq_server: servers.RabbitServer, rabbitmq_url: str
) -> None:
    """What was held comes again with one attempt more; what was acknowledged on the lost connection's tags
    removes nothing."""
    broker.publish([Outgoing(POLICE, b"%d" % n, {}) for n in range(3)])
    stale = take(broker, 3)

    rabbitmq_server.close_connections(rabbitmq_url)
    again = take(broker, 3)
    broker.ack(stale)

    assert sorted(d.body for d in again) == [b"0", b"1", b"2"]
    assert {d.attempts for d in again} == {1}
    assert broker.depth(POLICE) == 3
    broker.publish([Outgoing(POLICE, b"after", {})])
    assert take(broker, 1)[0].body == b"after"


def test_publish_waits_for_the_server_and_succeeds_when_it_comes_back_in_time(
    broker: RabbitBroker, rabbitmq_server: servers.RabbitServer, rabbitmq_url: str
) -> None:
    broker.publish([Outgoing(POLICE, b"before", {})])
    rabbitmq_server.close_connections(rabbitmq_url)

    published = False
    while not published:  # a batch that was on the wire when the cut came is honest about it
        try:
            broker.publish([Outgoing(POLICE, b"after", {})])
            published = True
        except Unconfirmed:
            continue

    assert {d.body for d in take(broker, 2)} == {b"before", b"after"}


def test_publish_raises_unconfirmed_when_no_server_answers() -> None:
    [port] = servers.free_ports(1)
    broker = RabbitBroker(f"amqp://guest:guest@127.0.0.1:{port}/%2F", publish_seconds=0.2)

    with pytest.raises(Unconfirmed):
        broker.publish([Outgoing(SUBMISSIONS, b"x", {})])
    assert broker.receive(SUBMISSIONS, 1, 0.1) == []
    started = time.monotonic()
    broker.close()

    assert time.monotonic() - started < PATIENCE_SECONDS


@pytest.fixture
def proxy(rabbitmq_url: str) -> Iterator[Proxy]:
    """What lies between a broker and the server."""
    with contextlib.closing(Proxy(urlsplit(rabbitmq_url).port or 5672)) as proxy:
        yield proxy


def through(proxy: Proxy, url: str) -> str:
    place = urlsplit(url)
    return place._replace(netloc=place.netloc.replace(f":{place.port}", f":{proxy.port}")).geturl()


def nothing_open(proxy: Proxy) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while proxy.connections:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_close_leaves_no_connection_to_a_server_that_answers_no_goodbye(
    rabbitmq_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "_CLOSE_SECONDS", 1.0)
    broker = RabbitBroker(through(proxy, rabbitmq_url), [PARTY])
    broker.publish([Outgoing(POLICE, b"x", {})])
    assert proxy.connections == 2

    with proxy.mute():
        broker.close()
        nothing_open(proxy)


@pytest.mark.parametrize("moment", ["_on_connection_start", "_on_connection_tune", "_on_connection_open_ok"])
def test_close_while_it_opens_leaves_no_connection(
    rabbitmq_url: str,
    proxy: Proxy,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reached, drain = threading.Event(), _Session.drain

    def closing(self: Connection, frame: object) -> None:
        getattr(super(Connection, self), moment)(frame)
        if not reached.is_set():
            reached.set()
            [session] = sessions
            session._broker._closing.set()
            session.drain()

    sessions: list[_Session] = []

    def noted(self: _Session) -> None:
        sessions[:] = [self]
        drain(self)

    monkeypatch.setattr(_Session, "drain", noted)  # the loop's first callback
    monkeypatch.setattr(Connection, moment, closing, raising=False)
    opening = RabbitBroker(through(proxy, rabbitmq_url), [PARTY])

    assert reached.wait(PATIENCE_SECONDS)
    opening.close()

    nothing_open(proxy)
    assert [r.getMessage() for r in caplog.records if r.name.startswith("isr_hub")] == []


def test_publish_raises_unconfirmed_when_one_queue_of_the_batch_does_not_exist(broker: RabbitBroker) -> None:
    batch = [Outgoing(POLICE, b"x", {}), Outgoing("deliver.nobody#x", b"x", {}), Outgoing(POLICE, b"y", {})]

    with pytest.raises(Unconfirmed, match="no such queue"):
        broker.publish(batch)


def test_publish_raises_unconfirmed_while_the_server_is_short_of_memory_and_consuming_goes_on(
    own_rabbitmq: servers.RabbitServer,
) -> None:
    with (
        own_rabbitmq.virtual_host() as url,
        contextlib.closing(RabbitBroker(url, [PARTY], publish_seconds=1.0)) as broker,
    ):
        broker.publish([Outgoing(POLICE, b"before", {})])
        try:
            own_rabbitmq.control("set_vm_memory_high_watermark", "0.0000001")
            with pytest.raises(Unconfirmed):
                publish_often(broker)

            broker.ack(take(broker, 1))
            assert broker.depth(POLICE) == 0
        finally:
            own_rabbitmq.control("set_vm_memory_high_watermark", "0.4")

        deadline = time.monotonic() + PATIENCE_SECONDS
        published = False
        while not published:
            assert time.monotonic() < deadline
            try:
                broker.publish([Outgoing(SUBMISSIONS, b"after", {})])
                published = True
            except Unconfirmed:
                continue


def test_messages_that_the_server_gives_up_on_are_dead_letters_too(
    broker: RabbitBroker, rabbitmq_url: str
) -> None:
    broker.publish([Outgoing(POLICE, b"poison", {"id": "1"})])
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        channel = connection.channel()
        method = None
        while method is None:
            method, _, _ = channel.basic_get(POLICE)
        channel.basic_reject(method.delivery_tag, requeue=False)

    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (letters := broker.dead_letters(POLICE)):
        assert time.monotonic() < deadline

    [letter] = letters
    assert (letter.queue, letter.body, dict(letter.headers)) == (POLICE, b"poison", {"id": "1"})
    assert (letter.error["code"], letter.error["detail"]) == ("given-up", "RabbitMQ gave up: rejected")
    assert letter.at.startswith("20")
    assert broker.take_dead_letter(letter.number) == letter


def test_broker_speaks_tls(own_rabbitmq: servers.RabbitServer) -> None:
    assert own_rabbitmq.tls_url is not None
    context = ssl.create_default_context(cafile=own_rabbitmq.certificate)
    broker = RabbitBroker(own_rabbitmq.tls_url, tls=context)

    broker.publish([Outgoing(SUBMISSIONS, b"\x01" * 300_000, {})] * 20)
    deliveries = take(broker, 20, SUBMISSIONS)
    broker.ack(deliveries)

    assert {len(d.body) for d in deliveries} == {300_000}
    broker.close()


def test_broker_does_not_speak_to_a_server_whose_certificate_it_does_not_trust(
    own_rabbitmq: servers.RabbitServer,
) -> None:
    assert own_rabbitmq.tls_url is not None
    broker = RabbitBroker(own_rabbitmq.tls_url, publish_seconds=0.5)

    with pytest.raises(Unconfirmed):
        broker.publish([Outgoing(SUBMISSIONS, b"x", {})])
    broker.close()


@pytest.fixture
def agency(
    rabbitmq_url: str, rabbitmq_server: servers.RabbitServer
) -> Iterator[Callable[[], pika.BlockingConnection]]:
    """Connects as the user that `definitions` gives to PARTY."""
    host = rabbitmq_url.rsplit("/", 1)[1]
    hashes = {PARTY: topology.password_hash(PASSWORD, b"salt")}
    definitions = topology.definitions([PARTY, OTHER], hashes, host)
    rabbitmq_server.call("POST", "/api/definitions", json.dumps(definitions).encode())
    parameters = pika.URLParameters(rabbitmq_url)
    parameters.credentials = pika.PlainCredentials(PARTY, PASSWORD)
    yield lambda: pika.BlockingConnection(parameters)
    rabbitmq_server.call("DELETE", f"/api/users/{quote(PARTY)}")


def test_declare_accepts_what_the_definitions_made(agency: object, broker: RabbitBroker) -> None:
    broker.publish([Outgoing(POLICE, b"x", {}), Outgoing(deliveries_to(OTHER), b"x", {})])

    assert broker.depth(POLICE) == 1


def test_agency_publishes_under_its_own_name_and_reads_its_own_mailbox(
    agency: Callable[[], pika.BlockingConnection], broker: RabbitBroker
) -> None:
    broker.publish([Outgoing(topology.mailbox_of(PARTY), b"for you", {})])
    with agency() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        forged = {
            "party": OTHER,
            "isr-attempts": "99",
            "isr-not-before": "99999999999999",
            "x-delivery-count": "many",
        }
        properties = pika.BasicProperties(user_id=PARTY, content_type="text/csv", headers=forged)
        channel.basic_publish(topology.DOOR_EXCHANGE, PARTY, b"from us", properties, mandatory=True)
        _, _, body = channel.basic_get(topology.mailbox_of(PARTY), auto_ack=True)
    [delivery] = take(broker, 1, topology.DOOR)

    assert body == b"for you"
    assert (delivery.body, dict(delivery.headers)) == (b"from us", {"party": PARTY, "media-type": "text/csv"})
    assert delivery.attempts == 0


def test_password_hash_is_rabbitmqs() -> None:
    """The example of RabbitMQ's own documentation: password test12, salt 908D C60A."""
    expected = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"

    assert topology.password_hash("test12", bytes.fromhex("908DC60A")) == expected


def test_password_hash_refuses_a_salt_of_another_length() -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        topology.password_hash("x", b"")
