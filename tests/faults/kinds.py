"""The kinds of faults: each breaks something while senders send, mends it, and says how often it broke it, on
how many messages, and what recipients had meanwhile that the ledger did not hold."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple
from urllib.parse import urlsplit

import pika
import psycopg
import sqlalchemy as sa

from broker.broker import SUBMISSIONS, deliveries_to
from broker.topology import DOOR_EXCHANGE
from schemas.database import in_sequence
from tests import servers
from tests.faults import breakable
from tests.faults.harm import BOUNDARIES
from tests.faults.world import FOLDER, PARTS, SERVICES, Sender, World, message_id


class Tally(NamedTuple):
    """What a kind of fault did."""

    tried: int
    messages: int
    unlogged: int = 0


Kind = Callable[[World], Tally]
_CHAIN = 3  # a message whose handling ended the process again and again is suspected, and rightly


def killed_at_every_boundary(part: str) -> Kind:
    """SIGKILL before and after every durable write of *part*; the next one to be killed goes on from it."""

    def kind(world: World) -> Tally:
        world.children[part].kill()
        senders: list[Sender] = []
        unlogged, messages, steps = 0, 0, [(p, w) for p in BOUNDARIES[part] for w in ("before", "after")]
        for number, (point, when) in enumerate(steps, start=1):
            child = world.start(part, point=point, when=when)
            senders.append(world.send(3))
            messages += 3
            world.until(child.ended.is_set)
            assert child.status == -signal.SIGKILL, child.said()
            unlogged += world.unlogged_now()
            if number % _CHAIN == 0:
                _finish(world, senders)
                world.children[part].kill()
        _finish(world, senders)
        return Tally(len(steps), messages, unlogged)

    return kind


def _finish(world: World, senders: list[Sender]) -> None:
    world.start_all()
    while senders:
        world.answer(senders.pop())
    world.settle()


def killed_at_random(kills: int) -> Kind:
    """SIGKILL of any process at any moment, *kills* times, a second exchange among them."""

    def kind(world: World) -> Tally:
        world.start("exchange", "second exchange")
        unlogged, count = 0, 3 * kills
        with world.sending(count):
            for _ in range(kills):
                name = world.rng.choice([*PARTS, "second exchange"])
                time.sleep(world.rng.uniform(0.0, 0.4))
                world.children[name].kill()
                unlogged += world.unlogged_now()
                world.start(name.removeprefix("second "), name)
        world.children.pop("second exchange").kill()
        return Tally(kills, count, unlogged)

    return kind


def broken(times: int, breaking: Callable[[World], AbstractContextManager[None]], seconds: float) -> Kind:
    """*breaking* holds for *seconds*, *times* times, while senders send."""

    def kind(world: World) -> Tally:
        count = 5 * times + 5
        with world.sending(count) as sender:
            for turn in range(times):
                sender.wait(turn / (times + 1))
                with breaking(world):
                    time.sleep(seconds)
        return Tally(times, count, world.unlogged_now())

    return kind


@contextlib.contextmanager
def rabbitmq_killed(world: World) -> Iterator[None]:
    """RabbitMQ dies at once and comes back."""
    world.rabbitmq.stop(signal.SIGKILL)
    yield
    world.rabbitmq.start(lambda: breakable.rabbitmq_answers(world.settings.broker_url))


@contextlib.contextmanager
def rabbitmq_stopped(world: World) -> Iterator[None]:
    """RabbitMQ is stopped by its operator and started again."""
    world.rabbit.control("stop_app")
    yield
    world.rabbit.control("start_app")
    world.until(lambda: breakable.rabbitmq_answers(world.settings.broker_url))


@contextlib.contextmanager
def rabbitmq_closes_connections(world: World) -> Iterator[None]:
    """RabbitMQ closes every connection of the hub."""
    host = urlsplit(world.settings.broker_url).path[1:]
    world.rabbit.control("close_all_connections", "--vhost", host, "a test closes them")
    yield


@contextlib.contextmanager
def memory_alarm(world: World) -> Iterator[None]:
    """RabbitMQ is short of memory: it reads from nobody who publishes."""
    world.rabbit.control("set_vm_memory_high_watermark", "0.0000001")
    try:
        yield
    finally:
        world.rabbit.control("set_vm_memory_high_watermark", "0.4")


@contextlib.contextmanager
def disk_alarm(world: World) -> Iterator[None]:
    """RabbitMQ is short of disk: likewise."""
    world.rabbit.control("set_disk_free_limit", "1000000GB")
    try:
        yield
    finally:
        world.rabbit.control("set_disk_free_limit", "50MB")


@contextlib.contextmanager
def rabbitmq_paused(world: World) -> Iterator[None]:
    """RabbitMQ does nothing for a while and is not gone."""
    world.rabbitmq.pause(signal.SIGSTOP)
    try:
        yield
    finally:
        world.rabbitmq.pause(signal.SIGCONT)


@contextlib.contextmanager
def postgresql_killed(world: World) -> Iterator[None]:
    """PostgreSQL stops at once, without a checkpoint ("immediate"), and recovers from its log."""
    world.postgresql.stop(signal.SIGQUIT)
    yield
    world.postgresql.start(lambda: breakable.postgresql_answers(world.settings.database_url))


@contextlib.contextmanager
def postgresql_ends_connections(world: World) -> Iterator[None]:
    """PostgreSQL ends every connection of the hub."""
    _terminate(world, "true")
    yield


@contextlib.contextmanager
def postgresql_paused(world: World) -> Iterator[None]:
    """PostgreSQL does nothing for a while and is not gone."""
    world.postgresql.pause(signal.SIGSTOP)
    try:
        yield
    finally:
        world.postgresql.pause(signal.SIGCONT)


def _terminate(world: World, which: str) -> int:
    with psycopg.connect(servers.driver_url(world.settings.database_url), autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND {which}"
        ).fetchall()
    return len(ended)


def terminated_in_transaction(times: int) -> Kind:
    """The exchange loses its connection with a transaction open and a batch in hand."""

    def kind(world: World) -> Tally:
        with world.sending(3 * times) as sender:
            for turn in range(times):
                with world.hub.engine.begin() as connection:
                    in_sequence(connection)  # so it waits, with a batch in hand
                    sender.wait((turn + 1) / times)
                    world.until(lambda: _terminate(world, "wait_event_type = 'Lock'") > 0)
        return Tally(times, 3 * times, world.unlogged_now())

    return kind


def lock_held(seconds: float) -> Kind:
    """Somebody holds what the exchange needs for longer than it waits."""

    def kind(world: World) -> Tally:
        with world.sending(6) as sender, world.hub.engine.begin() as connection:
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            in_sequence(connection)
            sender.wait()
            time.sleep(seconds)
        return Tally(1, 6, world.unlogged_now())

    return kind


def rabbitmq_unreachable(world: World) -> AbstractContextManager[None]:
    """The network to RabbitMQ is cut."""
    return world.to_rabbitmq.away()


def postgresql_unreachable(world: World) -> AbstractContextManager[None]:
    """The network to PostgreSQL is cut."""
    return world.to_postgresql.away()


def rabbitmq_unheard(world: World) -> AbstractContextManager[None]:
    """Nothing gets through to RabbitMQ or back, and no connection ends until later."""
    return world.to_rabbitmq.mute()


def postgresql_unheard(world: World) -> AbstractContextManager[None]:
    """Nothing gets through to PostgreSQL or back, and no connection ends until later."""
    return world.to_postgresql.mute()


@contextlib.contextmanager
def network_slow(world: World) -> Iterator[None]:
    """Every piece on its way to a server or back is late."""
    with world.to_rabbitmq.slow(0.05), world.to_postgresql.slow(0.01):
        yield


def recipients(behaviour: str, seconds: float) -> Kind:
    """The parties' services behave so for *seconds*, while deliveries for them come in."""

    def kind(world: World) -> Tally:
        agencies = [world.services.agencies[party] for party in SERVICES]
        before = sum(agency.misbehaved for agency in agencies)
        with world.sending(6) as sender:
            for agency in agencies:
                agency.behaviour = behaviour
            sender.wait()
            world.until(lambda: all(agency.misbehaved for agency in agencies))
            time.sleep(seconds)
            for agency in agencies:
                agency.behaviour = "takes"
        return Tally(sum(a.misbehaved for a in agencies) - before, 6, world.unlogged_now())

    return kind


def poison(world: World) -> Tally:
    """What nobody can handle, past every check of the door: in the submissions, in a party's deliveries, at
    the AMQP door. Each is set aside, and its neighbours go on."""
    bodies = (b"\x00", b"[]", b'{"specversion": "1.0"}')
    world.set_aside |= {f"poison-{n}" for n in range(len(bodies))}
    with world.sending(6), contextlib.closing(world.amqp()) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for n, body in enumerate(bodies):
            headers = {"id": f"poison-{n}", "type": "t", "source": "police", "party": FOLDER, "entry": "0"}
            properties = pika.BasicProperties(headers=headers, delivery_mode=2)
            for queue in (SUBMISSIONS, deliveries_to(FOLDER)):
                channel.basic_publish("", queue, body, properties, mandatory=True)
            channel.basic_publish(DOOR_EXCHANGE, "police", body, mandatory=True)
    world.until(lambda: len(world.hub.broker.dead_letters()) >= 3 * len(bodies))
    return Tally(3 * len(bodies), 6, world.unlogged_now())


def killing_poison(world: World) -> Tally:
    """A message that ends whichever exchange handles it, again and again: in the end it is set aside, and its
    neighbours are not."""
    [native] = world.next_natives(1)
    world.set_aside.add(poisoned := message_id(native))
    world.children["exchange"].kill()
    deaths = 0
    with world.sending(5):
        world.hub.exchange.accept("police", [native])
        while not any(d.headers.get("id") == poisoned for d in world.hub.broker.dead_letters()):
            child = world.start("exchange", poison=poisoned)
            world.until(
                lambda c=child: (
                    c.ended.is_set()  # type: ignore[misc]  # bound at once
                    or any(d.headers.get("id") == poisoned for d in world.hub.broker.dead_letters())
                )
            )
            deaths += child.ended.is_set()
    world.children["exchange"].kill()
    return Tally(deaths, 6, world.unlogged_now())


SHORT: dict[str, Kind] = {
    **{f"{part} killed at every boundary": killed_at_every_boundary(part) for part in PARTS},
    "any process killed at random": killed_at_random(6),
    "RabbitMQ killed": broken(1, rabbitmq_killed, 0.3),
    "RabbitMQ closes connections": broken(2, rabbitmq_closes_connections, 0.2),
    "RabbitMQ short of memory": broken(1, memory_alarm, 0.5),
    "RabbitMQ short of disk": broken(1, disk_alarm, 0.5),
    "PostgreSQL killed": broken(1, postgresql_killed, 0.2),
    "PostgreSQL ends connections": broken(3, postgresql_ends_connections, 0.1),
    "PostgreSQL ends a transaction": terminated_in_transaction(3),
    "network to RabbitMQ cut": broken(3, rabbitmq_unreachable, 0.2),
    "network to PostgreSQL cut": broken(3, postgresql_unreachable, 0.2),
    "network slow": broken(1, network_slow, 0.5),
    "recipient is away": recipients("is away", 0.6),
    "recipient is slow": recipients("is slow", 0.3),
    "recipient answers wrongly": recipients("answers wrongly", 0.6),
    "recipient dies after taking": recipients("dies after taking", 0.3),
    "poison": poison,
}
LONG: dict[str, Kind] = {
    **SHORT,
    "poison that kills": killing_poison,
    "any process killed at random": killed_at_random(60),
    "RabbitMQ killed": broken(6, rabbitmq_killed, 1.0),
    "RabbitMQ stopped": broken(4, rabbitmq_stopped, 1.0),
    "RabbitMQ paused": broken(3, rabbitmq_paused, 20.0),
    "RabbitMQ closes connections": broken(20, rabbitmq_closes_connections, 0.2),
    "RabbitMQ short of memory": broken(2, memory_alarm, 40.0),
    "RabbitMQ short of disk": broken(2, disk_alarm, 40.0),
    "PostgreSQL killed": broken(20, postgresql_killed, 0.5),
    "PostgreSQL paused": broken(3, postgresql_paused, 20.0),
    "PostgreSQL ends connections": broken(60, postgresql_ends_connections, 0.1),
    "PostgreSQL ends a transaction": terminated_in_transaction(20),
    "somebody holds the lock": lock_held(30.0),
    "network to RabbitMQ cut": broken(40, rabbitmq_unreachable, 0.3),
    "network to PostgreSQL cut": broken(40, postgresql_unreachable, 0.3),
    "network to RabbitMQ mute": broken(3, rabbitmq_unheard, 20.0),
    "network to PostgreSQL mute": broken(3, postgresql_unheard, 20.0),
    "network slow": broken(2, network_slow, 20.0),
    "recipient is away": recipients("is away", 60.0),
    "recipient is slow": recipients("is slow", 20.0),
    "recipient answers wrongly": recipients("answers wrongly", 60.0),
    "recipient dies after taking": recipients("dies after taking", 20.0),
}
