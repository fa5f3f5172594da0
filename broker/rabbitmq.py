"""RabbitMQ behind the broker's contract.

One thread owns pika: two connections on one I/O loop, one that publishes and one that consumes, because a
server short of memory stops reading from a connection that publishes and must still read our
acknowledgements. Callers only leave commands for that thread and wait for its answer.

Publishing is pipelined: a batch goes out at once, and one wait serves all its confirms. Consuming is pushed
into a local buffer per queue, bounded by the prefetch. A delivery belongs to the channel it came on; when
that is lost its tag is void, and RabbitMQ delivers the message again. A requeued message is a confirmed copy
with its attempts and due time in the headers, so both outlive this process, and the server's own delivery
count is left for what it is good at: messages whose consumers die.
"""

import contextlib
import functools
import heapq
import itertools
import logging
import queue
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pika
import pika.exceptions
from pika.adapters.select_connection import IOLoop
from pika.spec import Basic, BasicProperties

from broker import letters, retry, topology
from broker.broker import DeadLetter, Delivery, Outgoing
from broker.wire import Connection
from schemas.clock import Clock, rfc3339, utc_now
from schemas.errors import Unconfirmed

log = logging.getLogger("isr_hub.rabbitmq")

_WINDOW = 2000  # unconfirmed messages on the wire; beyond that nothing is gained and a reconnect repeats more
_POLL_SECONDS = 0.2  # how late a requeued message that became due is noticed
_CLOSE_SECONDS = 10.0
_CUT_SECONDS = 1.0  # after the half of them, for the sockets of a server that answers no goodbye
_ANSWER_SECONDS = 5.0  # a server that does not answer a question about a queue within this has no answer


class _ClosedError(Exception):
    """The broker is being closed."""


@dataclass(slots=True, eq=False)
class _Batch:
    """Messages on their way out. *done* is set once all are confirmed or one of them cannot be any more;
    *failure* says why."""

    messages: list[tuple[str, bytes, BasicProperties]]
    done: threading.Event = field(default_factory=threading.Event)
    failure: str = ""
    sent: int = 0
    open: int = 0

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.done.set()


class _Consumer:
    """One queue's local state. The I/O thread fills it; receiving threads empty it."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.changed = threading.Condition()
        self.ready: deque[Delivery] = deque()  # appended without the lock: a deque's append is atomic
        self.later: list[tuple[int, int, Delivery]] = []  # heap by due time
        self.handed: set[Any] = set()  # tags given to callers and not yet settled
        self.waiting = 0
        # The I/O thread's own:
        self.generation = 0
        self.channel: Any = None
        self.is_subscribed = False
        self.unacked: dict[Any, None] = {}  # in order of delivery, which is the order of tags
        self.when_subscribed: list[Callable[[], None]] = []

    def take(self, limit: int, now: int) -> list[Delivery]:
        with self.changed:
            batch: list[Delivery] = []
            while self.later and self.later[0][0] <= now and len(batch) < limit:
                batch.append(heapq.heappop(self.later)[2])
            while self.ready and len(batch) < limit:
                batch.append(self.ready.popleft())
            self.handed.update(d.tag for d in batch)
            return batch

    def wait(self, seconds: float) -> None:
        """Until something arrives, at most *seconds*."""
        with self.changed:
            self.waiting += 1
            if not self.ready:  # looked at after *waiting* was raised, so an arrival is not missed
                self.changed.wait(seconds)
            self.waiting -= 1

    def release(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Those of *deliveries* that are still ours to settle, each once."""
        with self.changed:
            released = []
            for delivery in deliveries:
                if delivery.tag in self.handed:
                    self.handed.discard(delivery.tag)
                    released.append(delivery)
            return released

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """Takes *deliveries* back into the caller's hands, unless their channel was lost meanwhile."""
        with self.changed:
            self.handed.update(d.tag for d in deliveries if d.tag[0] == self.generation)

    def lose(self) -> None:
        """Voids every tag: RabbitMQ delivers those messages again on another channel."""
        with self.changed:
            self.generation += 1
            self.ready.clear()
            self.later.clear()
            self.handed.clear()
            self.unacked.clear()
            self.channel = None
            self.is_subscribed = False
            self.when_subscribed.clear()
            self.changed.notify_all()


class RabbitBroker:
    """Durable queues in RabbitMQ 3.10 to 4.x at *url* (`amqp://` or `amqps://`). Safe for several threads.

    Declares the topology for *parties* on every connection. Connects and reconnects by itself: nothing here
    fails because the server is away, except that `publish` raises `Unconfirmed` when *publish_seconds* pass
    without every confirm. *prefetch* messages per queue are held in memory at most. *tls* replaces the
    default context, which trusts the system's authorities.
    """

    def __init__(
        self,
        url: str,
        parties: Iterable[str] = (),
        *,
        clock: Clock = utc_now,
        prefetch: int = 600,
        publish_seconds: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._parameters = pika.URLParameters(url)
        # A host that is gone is noticed after two of them: so long its submissions wait for another exchange.
        self._parameters.heartbeat = 15
        self._parameters.client_properties = {"connection_name": "isr-hub"}
        if tls is not None:
            self._parameters.ssl_options = pika.SSLOptions(tls, self._parameters.host)
        self._parties = tuple(parties)
        self._clock, self._prefetch, self._publish_seconds = clock, prefetch, publish_seconds
        self._name = uuid.uuid4().hex
        self._consumers: dict[str, _Consumer] = {}
        self._commands: deque[Callable[[_Session], None]] = deque()
        self._session: _Session | None = None
        self._batches: set[_Batch] = set()
        self._numbers = itertools.count()
        self._closing = threading.Event()
        self._usable = threading.Event()  # set while a session is open
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)
        self._thread.start()

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Queues all *messages* and waits once for all confirms. Raises `Unconfirmed` when one was refused,
        has no queue, or did not get its confirm in time."""
        self._publish([(m.queue, m.body, topology.properties_of(m.queue, m.headers)) for m in messages])

    def receive(self, queue: str, limit: int, wait_seconds: float = 0.0) -> list[Delivery]:
        """Up to *limit* messages of *queue* that have arrived here; without a wait, the server is asked
        whether there are any."""
        consumer = self._consumer(queue)
        deadline = time.monotonic() + wait_seconds
        while not self._closing.is_set():
            if batch := consumer.take(limit, self._now()):
                return batch
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            consumer.wait(min(remaining, _POLL_SECONDS) if consumer.later else remaining)
        if wait_seconds <= 0 and self._arriving(consumer):
            return consumer.take(limit, self._now())
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Removes *deliveries*. AMQP does not confirm it: those whose acknowledgement is lost with the
        connection come again."""
        for consumer, held in self._held(deliveries):
            self._settle(consumer, held)

    def requeue(self, deliveries: Sequence[Delivery], delay_seconds: float = 0.0) -> None:
        """Puts a copy of each at the end of its queue, with attempts and due time, then removes the original;
        at worst both come."""
        due = self._now() + round(delay_seconds * 1000) if delay_seconds > 0 else 0
        for consumer, held in self._held(deliveries):
            copies = [(d.queue, d.body, topology.copy_of(d, due)) for d in held]
            try:
                self._publish(copies)
            except Unconfirmed:
                # The server can give the originals back itself; only the delay is lost.
                self._settle(consumer, held, back=True)
            else:
                # ‖ The copies are confirmed. A crash here leaves both.
                self._settle(consumer, held)

    def bury(self, deliveries: Sequence[tuple[Delivery, Mapping[str, Any]]]) -> None:
        """Publishes each to the dead letters, confirmed, then removes the original; at worst both are left.
        Raises `Unconfirmed`; then the deliveries can be settled again."""
        errors = {id(delivery): error for delivery, error in deliveries}
        at = rfc3339(self._clock())
        for consumer, held in self._held(delivery for delivery, _ in deliveries):
            try:
                self._publish([letters.letter(d.queue, d.body, d.headers, errors[id(d)], at) for d in held])
            except Unconfirmed:
                consumer.hold(held)
                raise
            # ‖ The dead letters are confirmed. A crash here delivers the originals again.
            self._settle(consumer, held)

    def quarantine(self, messages: Sequence[tuple[Outgoing, Mapping[str, Any]]]) -> None:
        """Publishes each to the dead letters, confirmed. Raises `Unconfirmed`."""
        at = rfc3339(self._clock())
        self._publish([letters.letter(m.queue, m.body, m.headers, error, at) for m, error in messages])

    def dead_letters(self, queue: str | None = None, limit: int = 1000) -> list[DeadLetter]:
        """The oldest *limit* dead letters of *queue* or of all. All are taken and given back: for that moment
        others do not see them."""
        with self._looking, self._asking() as channel:
            return letters.oldest(channel, queue, limit)

    def take_dead_letter(self, number: str) -> DeadLetter | None:
        """Removes and returns the dead letter *number*; looks through the others until it comes."""
        with self._looking, self._asking() as channel:
            return letters.take(channel, number)

    def depth(self, queue: str) -> int:
        """How many messages of *queue* wait at the server or are held by this instance; AMQP does not tell
        what other consumers hold."""
        return self.depths([queue])[queue]

    def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """`depth` of each of *queues*, asked on one connection."""
        waiting: dict[str, int] = {}
        with self._asking() as channel:
            for name in queues:
                try:
                    waiting[name] = int(channel.queue_declare(name, passive=True).method.message_count)
                except pika.exceptions.ChannelClosedByBroker:
                    waiting[name] = 0  # no such queue
                    channel = channel.connection.channel()  # noqa: PLW2901  # the wrong question closed it
        consumers = self._consumers
        return {q: n + len(consumers[q].unacked) if q in consumers else n for q, n in waiting.items()}

    def close(self) -> None:
        """Sends what is left of acknowledgements, closes both connections (which gives back what is held) and
        ends every wait."""
        self._closing.set()
        if session := self._session:
            session.loop.add_callback_threadsafe(session.drain)
        self._thread.join(_CLOSE_SECONDS)
        for consumer in list(self._consumers.values()):
            consumer.lose()
        for batch in list(self._batches):
            batch.fail("the broker is closed")

    def _run(self) -> None:
        """The I/O thread: one session after the other, until closed."""
        with contextlib.suppress(_ClosedError):
            while not self._closing.is_set():
                retry.reconnecting(self._pause)(self._serve)

    def _serve(self) -> None:
        """Runs one session. Raises when it could not be opened, so that the pauses grow; returns when it was
        open and is lost, so that they start anew."""
        if self._closing.is_set():
            raise _ClosedError
        try:
            with contextlib.closing(pika.BlockingConnection(self._parameters)) as connection:
                topology.declare(connection.channel(), self._parties)
            self._session = _Session(self, self._parameters)
            self._session.run()
        except (pika.exceptions.AMQPError, OSError) as error:
            if not self._closing.is_set():  # else it was us who broke the opening off
                log.warning("RabbitMQ cannot be used: %s", type(error).__name__)
            raise
        # a fault of ours in a callback: without this thread every caller would hang
        except Exception as error:
            # may hold input
            log.error("the RabbitMQ session failed: %s", type(error).__name__)  # noqa: TRY400
            raise pika.exceptions.AMQPConnectionError from error
        finally:
            self._session = None
            self._usable.clear()

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise _ClosedError

    def _call(self, command: "Callable[[_Session], None]") -> None:
        """Leaves *command* for the I/O thread; it runs when a session is open, this one or the next."""
        self._commands.append(command)
        if session := self._session:
            session.loop.add_callback_threadsafe(session.drain)

    def _publish(self, messages: list[tuple[str, bytes, BasicProperties]]) -> None:
        if not messages:
            return
        for _, _, properties in messages:
            properties.message_id = properties.message_id or f"{self._name}-{next(self._numbers)}"
        batch = _Batch(messages)
        self._batches.add(batch)
        if self._closing.is_set():  # after the batch is known to `close`, so that one of the two fails it
            batch.fail("the broker is closed")
        self._call(lambda session: session.publish(batch))
        if not batch.done.wait(self._publish_seconds):
            batch.fail("RabbitMQ did not confirm in time")
        self._batches.discard(batch)
        if batch.failure:
            raise Unconfirmed(batch.failure)

    def _consumer(self, queue: str) -> _Consumer:
        if (known := self._consumers.get(queue)) is not None:
            return known
        fresh = _Consumer(queue)
        consumer = self._consumers.setdefault(queue, fresh)
        if consumer is fresh:
            self._call(lambda session: session.subscribe(consumer))
        return consumer

    def _held(self, deliveries: Iterable[Delivery]) -> Iterator[tuple[_Consumer, list[Delivery]]]:
        """*deliveries* by their consumer, without those that are settled already."""
        groups: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            groups.setdefault(delivery.queue, []).append(delivery)
        for name, group in groups.items():
            consumer = self._consumer(name)
            if held := consumer.release(group):
                yield consumer, held

    def _settle(self, consumer: _Consumer, deliveries: Sequence[Delivery], *, back: bool = False) -> None:
        tags = [d.tag for d in deliveries]
        self._call(lambda session: session.settle(consumer, tags, back))

    def _arriving(self, consumer: _Consumer) -> bool:
        """Whether something of the queue has arrived or arrives in a moment: asks the server behind what it
        already pushed."""
        answer: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._call(lambda session: session.look(consumer, answer.put))
        try:
            waiting = answer.get(timeout=_ANSWER_SECONDS)
        except queue.Empty:
            return False
        if waiting and len(consumer.unacked) < self._prefetch:
            consumer.wait(_ANSWER_SECONDS)
        return bool(consumer.ready or consumer.later)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Any]:
        """A channel of its own for a question, so that a wrong one closes nothing else."""
        self._usable.wait(_ANSWER_SECONDS)  # the topology is declared by then
        try:
            connection = pika.BlockingConnection(self._parameters)
        except (pika.exceptions.AMQPError, OSError) as error:
            raise Unconfirmed("RabbitMQ cannot be reached") from error
        with contextlib.closing(connection):
            yield connection.channel()

    def _now(self) -> int:
        return int(self._clock().timestamp() * 1000)


class _Session:
    """Two connections on one loop, from opening until one of them is lost. Only the I/O thread calls it,
    except for *loop*."""

    def __init__(self, broker: RabbitBroker, parameters: pika.URLParameters) -> None:
        self.loop = IOLoop()
        self._broker = broker
        self._failure: BaseException | None = None
        self._is_open = self._is_ending = self._is_blocked = False
        self._channel: Any = None  # the publisher's, once confirms are selected
        self._tag, self._oldest = 0, 1
        self._unconfirmed: dict[int, _Batch] = {}
        self._pending: deque[_Batch] = deque()
        opened = functools.partial(pika.SelectConnection.channel, on_open_callback=self._channel_opened)
        self._publishing = Connection(parameters, opened, self._lost, self._lost, custom_ioloop=self.loop)
        self._consuming = Connection(
            parameters, self._consumer_opened, self._lost, self._lost, custom_ioloop=self.loop
        )
        self._alive: set[Any] = {self._publishing, self._consuming}
        self._publishing.add_on_connection_blocked_callback(lambda *_: self._block(True))
        self._publishing.add_on_connection_unblocked_callback(lambda *_: self._block(False))

    def run(self) -> None:
        """Serves until both connections are gone. Raises what kept them from opening."""
        self.loop.add_callback_threadsafe(self.drain)  # the broker may be closing already
        try:
            self.loop.start()
        finally:
            for batch in {*self._unconfirmed.values(), *self._pending}:
                batch.fail("the connection to RabbitMQ was lost before it confirmed")
            for consumer in list(self._broker._consumers.values()):
                consumer.lose()
            self.loop.close()
        if self._failure is not None and not self._is_open:
            raise self._failure

    def drain(self) -> None:
        """Runs the commands that callers left; ends the session when the broker is closing."""
        if self._is_open and not self._is_ending:
            commands = self._broker._commands
            while commands:
                commands.popleft()(self)
        if self._broker._closing.is_set():
            self._end()

    def publish(self, batch: _Batch) -> None:
        """Sends *batch* behind what is already on its way."""
        batch.open = len(batch.messages)
        self._pending.append(batch)
        self._pump()

    def subscribe(self, consumer: _Consumer) -> None:
        """Has the server push the consumer's queue to it."""
        if consumer.channel is not None or self._is_ending:
            return
        generation, order, clock = consumer.generation, itertools.count(), self._broker._now

        def opened(channel: Any) -> None:
            channel.add_on_cancel_callback(lambda _frame: channel.close())  # the queue was deleted or moved
            channel.basic_qos(prefetch_count=self._broker._prefetch, callback=consume)

        def consume(_frame: Any) -> None:
            consumer.channel.basic_consume(consumer.queue, arrived, callback=subscribed)

        def subscribed(_frame: Any) -> None:
            consumer.is_subscribed = True
            for ask in consumer.when_subscribed:
                ask()
            consumer.when_subscribed.clear()

        def arrived(_channel: Any, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
            tag = method.delivery_tag
            consumer.unacked[tag] = None
            headers, attempts, due = topology.understood(method, properties)
            delivery = Delivery(consumer.queue, body, headers, attempts, (generation, tag))
            if due > clock():
                with consumer.changed:
                    heapq.heappush(consumer.later, (due, next(order), delivery))
            else:
                consumer.ready.append(delivery)
            if consumer.waiting:
                with consumer.changed:
                    consumer.changed.notify_all()

        def closed(_channel: Any, reason: BaseException) -> None:
            if consumer.generation != generation:
                return
            consumer.lose()
            if not self._is_ending:
                log.warning("RabbitMQ closed the channel of %s: %s", consumer.queue, type(reason).__name__)
                self.loop.call_later(retry.RESUBSCRIBE_SECONDS, lambda: self.subscribe(consumer))

        consumer.channel = self._consuming.channel(on_open_callback=opened)
        consumer.channel.add_on_close_callback(closed)

    def look(self, consumer: _Consumer, answer: Callable[[int], None]) -> None:
        """Answers how many messages are ready at the server, after everything that it had pushed by then has
        arrived."""
        channel = consumer.channel

        def ask() -> None:
            channel.queue_declare(consumer.queue, passive=True, callback=counted)

        def counted(frame: Any) -> None:
            # One more round: a push that was under way while the server counted comes before this answer.
            count = frame.method.message_count
            channel.basic_qos(prefetch_count=self._broker._prefetch, callback=lambda _frame: answer(count))

        if channel is not None and not channel.is_closed:
            if consumer.is_subscribed:
                ask()
            else:
                consumer.when_subscribed.append(ask)

    def settle(self, consumer: _Consumer, tags: Sequence[tuple[int, int]], back: bool) -> None:
        """Acknowledges *tags* that came on the present channel, or gives them back; the oldest outstanding
        ones with one frame."""
        unacked, channel = consumer.unacked, consumer.channel
        mine = {tag for generation, tag in tags if generation == consumer.generation and tag in unacked}
        if not mine or channel is None or not channel.is_open:
            return
        last = max(itertools.takewhile(mine.__contains__, unacked), default=0)
        settle = functools.partial(channel.basic_nack, requeue=True) if back else channel.basic_ack
        if last:
            settle(last, multiple=True)  # everything up to here is named or was settled before
        for tag in sorted(mine):
            if tag > last:
                settle(tag)
            del unacked[tag]

    def _pump(self) -> None:
        """Sends what is pending, as far as the window and the server allow; goes on when confirms come in."""
        while self._pending and (room := _WINDOW - len(self._unconfirmed)) > 0:
            if self._is_blocked or self._is_ending:
                return
            batch = self._pending[0]
            if not batch.failure:  # else nobody waits for it any more
                part = batch.messages[batch.sent : batch.sent + room]
                for queue, body, properties in part:
                    self._tag += 1
                    self._unconfirmed[self._tag] = batch
                    self._channel.basic_publish("", queue, body, properties, mandatory=True)
                batch.sent += len(part)
            if batch.failure or batch.sent == len(batch.messages):
                self._pending.popleft()

    def _confirmed(self, frame: Any) -> None:
        tag, refused = frame.method.delivery_tag, isinstance(frame.method, Basic.Nack)
        tags: Iterable[int] = (tag,)
        if frame.method.multiple:
            tags = range(self._oldest, tag + 1)
            self._oldest = tag + 1
        for each in tags:
            if (batch := self._unconfirmed.pop(each, None)) is None:
                continue
            batch.open -= 1
            if refused:
                batch.fail("RabbitMQ refused a message; a queue may be full")
            elif not batch.open:
                batch.done.set()
        self._pump()

    def _returned(self, _channel: Any, _method: Any, properties: BasicProperties, _body: bytes) -> None:
        # Comes before the confirm of the same message, so its batch is still open.
        for batch in set(self._unconfirmed.values()):
            if any(p.message_id == properties.message_id for _, _, p in batch.messages):
                batch.fail("RabbitMQ has no such queue; declare the topology")

    def _block(self, is_blocked: bool) -> None:
        log.warning(
            "RabbitMQ takes %s", "nothing: memory or disk is short" if is_blocked else "messages again"
        )
        self._is_blocked = is_blocked
        self._pump()

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._lost)
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._confirmed, callback=lambda _frame: self._publisher_ready(channel))

    def _publisher_ready(self, channel: Any) -> None:
        self._channel = channel
        self._consumer_opened(self._consuming)

    def _consumer_opened(self, _connection: Any) -> None:
        if self._channel is not None and self._consuming.is_open and not self._is_ending:
            self._is_open = True
            self._broker._usable.set()
            for consumer in list(self._broker._consumers.values()):
                self.subscribe(consumer)
            self.drain()

    def _lost(self, gone: Any, error: BaseException | str) -> None:
        """A connection could not be opened or is closed, or the publisher's channel is closed: then none of
        it can be relied on."""
        known = error if isinstance(error, BaseException) else pika.exceptions.AMQPConnectionError()
        self._failure = self._failure or known
        self._alive.discard(gone)
        self._end()

    def _end(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            self.loop.call_later(_CLOSE_SECONDS / 2, self._cut)  # a dead peer does not answer a close
            for connection in list(self._alive):
                if not (connection.is_closing or connection.is_closed):
                    connection.close()
        if not self._alive:
            self.loop.stop()

    def _cut(self) -> None:
        for connection in self._alive:
            connection.cut()
        self.loop.call_later(_CUT_SECONDS, self.loop.stop)
