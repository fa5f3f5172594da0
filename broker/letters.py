"""Dead letters in RabbitMQ: their form, and looking at a queue that can only be taken from.

One queue holds all of them: those that the hub set aside, in the form of `letter`, and those that the server
gave up on, as they were. AMQP has no way to look without taking, so a look takes everything and gives it
back. Meant for operators: its cost grows with the number of letters.
"""

import heapq
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from pika.spec import BasicProperties

from broker.broker import DeadLetter
from broker.topology import DEAD_LETTERS, plain
from schemas.clock import rfc3339

_LETTER = "application/x.isr-dead-letter"  # first line: JSON about the letter; after it: the body as it was
_RETURN_SECONDS = 5.0


def letter(
    queue: str, body: bytes, headers: Mapping[str, str], error: Mapping[str, Any], at: str
) -> tuple[str, bytes, BasicProperties]:
    """The message (queue, body, properties) that sets *body* of *queue* aside with its *error*."""
    # In the body, because the frame that carries headers is bounded and an error with many problems is not.
    about = {"queue": queue, "headers": dict(headers), "error": dict(error), "at": at}
    return (
        DEAD_LETTERS,
        orjson.dumps(about) + b"\n" + body,
        BasicProperties(content_type=_LETTER, delivery_mode=2),
    )


def dead_letter(properties: BasicProperties, body: bytes) -> DeadLetter:
    """The dead letter in a message that `letter` made or that the server set aside itself."""
    number = properties.message_id or uuid.uuid5(uuid.NAMESPACE_OID, body.hex()).hex
    if properties.content_type == _LETTER:
        line, _, rest = body.partition(b"\n")
        about = orjson.loads(line)
        return DeadLetter(number, about["queue"], rest, about["headers"], about["error"], about["at"])
    raw: Mapping[str, Any] = properties.headers or {}
    death: dict[str, Any] = (raw.get("x-death") or [{}])[0]
    headers = plain(raw)
    detail = f"RabbitMQ gave up: {death.get('reason', 'unknown')}"
    # AMQP's times are UTC without saying so
    at = death.get("time", datetime.fromtimestamp(0, UTC)).replace(tzinfo=UTC)
    error = {"code": "given-up", "detail": detail, "problems": []}
    return DeadLetter(number, str(death.get("queue", "")), body, headers, error, rfc3339(at))


def oldest(channel: Any, queue: str | None, limit: int) -> list[DeadLetter]:
    """The oldest *limit* dead letters of *queue* or of all, on a blocking *channel* of their own."""
    kept: set[int] = set()
    wanted = (letter for letter, _ in _taken(channel, kept) if queue is None or letter.queue == queue)
    # What is given back goes to the end of a quorum queue, so the order of the queue says nothing.
    found = heapq.nsmallest(limit, wanted, key=_age)
    _give_back(channel, kept)
    return found


def take(channel: Any, number: str) -> DeadLetter | None:
    """Removes and returns the dead letter *number*; looks through the others until it comes."""
    kept: set[int] = set()
    found = None
    for letter, tag in _taken(channel, kept):
        if letter.number == number:
            channel.basic_ack(tag)
            kept.discard(tag)
            found = letter
            break
    _give_back(channel, kept)
    return found


def _taken(channel: Any, kept: set[int]) -> Iterator[tuple[DeadLetter, int]]:
    while True:
        method, properties, body = channel.basic_get(DEAD_LETTERS)
        if method is None:
            return
        kept.add(method.delivery_tag)
        yield dead_letter(properties, body), method.delivery_tag


def _give_back(channel: Any, kept: set[int]) -> None:
    expected = _waiting(channel) + len(kept)
    if kept:
        channel.basic_nack(0, multiple=True, requeue=True)
    deadline = time.monotonic() + _RETURN_SECONDS
    while _waiting(channel) < expected and time.monotonic() < deadline:  # else the next look would miss some
        channel.connection.sleep(0.005)


def _waiting(channel: Any) -> int:
    return int(channel.queue_declare(DEAD_LETTERS, passive=True).method.message_count)


def _age(letter: DeadLetter) -> tuple[str, int, str]:
    """Sorts dead letters by time, those of one instant by the number their publisher gave them."""
    publisher, _, number = letter.number.rpartition("-")
    return letter.at, int(number) if number.isdigit() else 0, publisher
