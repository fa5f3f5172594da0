"""What the hub is compared with: relays that take a message from one queue and put one into each of six,
durable at every step, and do nothing else.

All queues are quorum queues; what leaves is confirmed before what came is acknowledged. The relays decide
nothing, write nothing and prove nothing: their rate is what the broker and its client library can do here.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import pika
from pika.spec import BasicProperties

SOURCE = "bench.in"
TARGETS = tuple(f"bench.out.{n}" for n in range(1, 7))
_WINDOW = 500  # inputs on their way; six times as many messages unconfirmed
_PREFETCH = 1000  # as the hub's own consumer
_PATIENCE_SECONDS = 300.0


@contextmanager
def queues(url: str) -> Iterator[None]:
    """The relays' queues in the virtual host of *url*, which go with the context."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel = connection.channel()
        for name in (SOURCE, *TARGETS):
            channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
    try:
        yield
    finally:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            for name in (SOURCE, *TARGETS):
                connection.channel().queue_delete(name)


def empty(url: str) -> None:
    """Empties the relays' queues."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        for name in (SOURCE, *TARGETS):
            connection.channel().queue_purge(name)


def pika_relay(url: str, leaving: bytes, count: int, fill: Callable[[], None]) -> float:
    """Relays *count* messages, *leaving* six times for each; returns seconds from the first to the last
    acknowledgement.

    *fill* puts them into `SOURCE`, after the relay has begun to consume: the hub's consumer, too, holds a
    prefetch full of messages when its time starts.
    """
    return _PikaRelay(url, leaving, count, fill).run()


class _PikaRelay:
    """One connection, two channels, confirms pipelined, acknowledgements gathered: as bare as pika can be."""

    def __init__(self, url: str, leaving: bytes, count: int, fill: Callable[[], None]) -> None:
        self._leaving, self._count, self._fill = leaving, count, fill
        self._arrived: deque[int] = deque()  # tags not yet relayed
        self._open: deque[list[int]] = deque()  # [tag, confirms outstanding] in order of arrival
        self._unconfirmed: dict[int, list[int]] = {}
        self._sent, self._oldest, self._acknowledged = 0, 1, 0
        self._started = self._seconds = 0.0
        self._channels: list[Any] = []
        self._persistent = BasicProperties(delivery_mode=2)
        self._connection = pika.SelectConnection(
            pika.URLParameters(url), on_open_callback=self._opened, on_close_callback=self._closed
        )

    def run(self) -> float:
        loop = self._connection.ioloop
        loop.call_later(_PATIENCE_SECONDS, loop.stop)
        loop.start()
        loop.close()
        if not self._seconds:
            raise TimeoutError("the relay did not end")
        return self._seconds

    def _opened(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._publishes)

    def _closed(self, connection: Any, _reason: BaseException) -> None:
        connection.ioloop.stop()

    def _publishes(self, channel: Any) -> None:
        self._channels.append(channel)
        channel.confirm_delivery(
            self._confirmed, callback=lambda _: self._connection.channel(on_open_callback=self._consumes)
        )

    def _consumes(self, channel: Any) -> None:
        self._channels.append(channel)
        channel.basic_qos(
            prefetch_count=_PREFETCH,
            callback=lambda _: channel.basic_consume(SOURCE, self._arrives, callback=self._consuming),
        )

    def _consuming(self, _frame: Any) -> None:
        self._fill()  # holds up this loop: what is pushed meanwhile waits in the socket, or at the server
        self._started = perf_counter()

    def _arrives(self, _channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        self._arrived.append(method.delivery_tag)
        self._relay()

    def _relay(self) -> None:
        publish = self._channels[0].basic_publish
        while self._arrived and len(self._open) < _WINDOW:
            entry = [self._arrived.popleft(), len(TARGETS)]
            self._open.append(entry)
            for name in TARGETS:
                self._sent += 1
                self._unconfirmed[self._sent] = entry
                publish("", name, self._leaving, self._persistent)

    def _confirmed(self, frame: Any) -> None:
        tag = frame.method.delivery_tag
        first = self._oldest if frame.method.multiple else tag
        for each in range(first, tag + 1):
            if (entry := self._unconfirmed.pop(each, None)) is not None:
                entry[1] -= 1
        if frame.method.multiple:
            self._oldest = tag + 1
        last = 0
        while self._open and not self._open[0][1]:
            last = self._open.popleft()[0]
            self._acknowledged += 1
        if last:
            self._channels[1].basic_ack(last, multiple=True)
        if self._acknowledged == self._count:
            self._seconds = perf_counter() - self._started
            self._connection.close()
        else:
            self._relay()


def faststream_relay(url: str, leaving: bytes, count: int) -> float:
    """Relays the *count* messages that wait in `SOURCE`, *leaving* six times for each; returns seconds.
    Raises `ImportError` when FastStream is not installed.
    """
    logging.getLogger("faststream").setLevel(logging.ERROR)
    return asyncio.run(_faststream(url, leaving, count))


async def _faststream(url: str, leaving: bytes, count: int) -> float:
    from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue  # noqa: PLC0415  # optional

    broker = RabbitBroker(url, default_channel=Channel(prefetch_count=_WINDOW), logger=None)
    ended, handled = asyncio.Event(), 0

    @broker.subscriber(RabbitQueue(SOURCE, durable=True, queue_type=QueueType.QUORUM))
    async def relay(_body: bytes) -> None:
        nonlocal handled
        await asyncio.gather(*(broker.publish(leaving, name, persist=True) for name in TARGETS))
        handled += 1
        if handled == count:
            ended.set()

    started = perf_counter()
    try:
        await broker.start()
        await asyncio.wait_for(ended.wait(), _PATIENCE_SECONDS)
        return perf_counter() - started
    finally:
        await broker.stop()


def typical(bodies: Sequence[bytes]) -> bytes:
    """Bytes of the mean length of *bodies*: what the relays send on."""
    return b"x" * (sum(map(len, bodies)) // max(1, len(bodies)))
