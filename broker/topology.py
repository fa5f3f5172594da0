"""Every exchange, queue, user and message form of the hub in RabbitMQ, in one place.

All queues are quorum queues that refuse rather than drop. A message that the server itself gives up on goes
to the one queue of dead letters at least once. An agency that connects by AMQP publishes to one exchange
under its own name and reads one mailbox; it sees nothing else. Arguments that servers treat differently (3.10
to 4.x) are always written out.
"""

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import pika
import pika.exceptions
from pika.spec import BasicProperties

from broker.broker import SUBMISSIONS, Delivery, deliveries_to
from schemas.errors import BadSettings

DEAD_LETTERS = "dead-letters"
DEAD_LETTER_EXCHANGE = "isr.dead-letters"
DOOR = "door"  # native input of agencies that publish by AMQP; the routing key says whose
DOOR_EXCHANGE = "isr.submissions"

# The server's own stop to a message that is delivered and never settled, because it kills every process that
# takes it. The hub's own limit lies far below; this one also counts the neighbours of such a message, so it
# is generous.
_DELIVERY_LIMIT = 50
# Looking at a dead letter delivers it and gives it back, and 4.x would drop it after 20 looks. There is no
# way to say "no limit" that every version takes.
_LOOKS = 2**31 - 1
_ATTEMPTS, _NOT_BEFORE = "isr-attempts", "isr-not-before"


def is_shared(queue: str) -> bool:
    """Whether agencies themselves publish into *queue*, or read it."""
    return queue == DOOR or queue.startswith(mailbox_of(""))


def mailbox_of(party: str) -> str:
    """The queue that *party* itself reads by AMQP."""
    return f"mailbox.{party}"


class Declarer(Protocol):
    """What `declare` needs of pika's BlockingChannel."""

    def exchange_declare(self, exchange: str, exchange_type: Any = ..., *, durable: bool = ...) -> Any:
        """Declares an exchange."""
        ...

    def queue_declare(self, queue: str, *, durable: bool = ..., arguments: Any = ...) -> Any:
        """Declares a queue."""
        ...

    def queue_bind(self, queue: str, exchange: str, routing_key: str | None = ...) -> Any:
        """Binds a queue."""
        ...


def declare(channel: Declarer, parties: Iterable[str]) -> None:
    """Declares everything for *parties* on *channel*. Safe to repeat; the server closes the channel when
    something exists otherwise."""
    for name, kind in _exchanges().items():
        channel.exchange_declare(name, kind, durable=True)
    parties = sorted(set(parties))
    for name, arguments in _queues(parties).items():
        channel.queue_declare(name, durable=True, arguments=arguments)
    for exchange, queue, key in _bindings(parties):
        channel.queue_bind(queue, exchange, key)


def definitions(
    parties: Iterable[str], password_hashes: Mapping[str, str], virtual_host: str = "/"
) -> dict[str, Any]:
    """What `rabbitmqctl import_definitions` takes: the topology and one user per party that has one of
    *password_hashes* (`password_hash`).

    A party's user may publish to the submissions exchange under its own routing key, read its own mailbox,
    and configure nothing. The routing key is therefore proof of the sender; RabbitMQ also refuses a `user_id`
    property that is not the user's.
    """
    parties = sorted(set(parties))
    users = [party for party in parties if party in password_hashes]
    return {
        "vhosts": [{"name": virtual_host}],
        "users": [
            {
                "name": party,
                "password_hash": password_hashes[party],
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
            for party in users
        ],
        "permissions": [
            {
                "user": party,
                "vhost": virtual_host,
                "configure": "^$",
                "write": _exactly(DOOR_EXCHANGE),
                "read": _exactly(mailbox_of(party)),
            }
            for party in users
        ],
        "topic_permissions": [
            {
                "user": party,
                "vhost": virtual_host,
                "exchange": DOOR_EXCHANGE,
                "write": _exactly(party),
                "read": "^$",
            }
            for party in users
        ],
        "exchanges": [
            {
                "name": name,
                "vhost": virtual_host,
                "type": kind,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for name, kind in _exchanges().items()
        ],
        "queues": [
            {
                "name": name,
                "vhost": virtual_host,
                "durable": True,
                "auto_delete": False,
                "arguments": arguments,
            }
            for name, arguments in _queues(parties).items()
        ],
        "bindings": [
            {
                "source": exchange,
                "vhost": virtual_host,
                "destination": queue,
                "destination_type": "queue",
                "routing_key": key,
                "arguments": {},
            }
            for exchange, queue, key in _bindings(parties)
        ],
    }


def declare_at(url: str, parties: Iterable[str]) -> None:
    """Declares everything for *parties* in the RabbitMQ at *url*. Raises `BadSettings` when it cannot be
    reached, or holds one of the queues with other arguments."""
    try:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            declare(connection.channel(), parties)
    except pika.exceptions.ChannelClosedByBroker as error:
        # RabbitMQ's text names the queue and the argument, and nothing else.
        raise BadSettings(f"RabbitMQ refuses the topology: {error.reply_text}") from error
    except (pika.exceptions.AMQPError, OSError) as error:
        raise BadSettings(
            "RabbitMQ cannot be reached or used: check ISR_HUB_BROKER_URL, that the server runs, and its log"
        ) from error


def virtual_host_of(url: str) -> str:
    """The virtual host that *url* names; RabbitMQ's default when it names none."""
    return str(pika.URLParameters(url).virtual_host) if url else "/"


def hashed(passwords: Mapping[str, str]) -> dict[str, str]:
    """*passwords* (by party) as `definitions` takes them, each with a salt of its own."""
    return {party: password_hash(password, os.urandom(4)) for party, password in passwords.items()}


def password_hash(password: str, salt: bytes) -> str:
    """*password* as RabbitMQ stores it: base64 of *salt* (4 random bytes) and SHA-256 over salt and
    password."""
    if len(salt) != 4:
        raise ValueError("RabbitMQ's salt has 4 bytes")
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _exchanges() -> dict[str, str]:
    # Topic, because only topic exchanges can restrict a user to one routing key.
    return {DOOR_EXCHANGE: "topic", DEAD_LETTER_EXCHANGE: "fanout"}


def _queues(parties: Iterable[str]) -> dict[str, dict[str, Any]]:
    names = [DOOR]
    names += [name for party in parties for name in (deliveries_to(party), mailbox_of(party))]
    working = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # at-least-once dead-lettering requires it
        "x-delivery-limit": _DELIVERY_LIMIT,
    }
    # One consumer at a time, the others ready to take over: submissions are carried in the order they came.
    submissions = {**working, "x-single-active-consumer": True}
    dead = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-delivery-limit": _LOOKS}
    return {DEAD_LETTERS: dead, SUBMISSIONS: submissions, **{name: dict(working) for name in names}}


def _bindings(parties: Iterable[str]) -> list[tuple[str, str, str]]:
    """(exchange, queue, routing key)"""
    return [(DEAD_LETTER_EXCHANGE, DEAD_LETTERS, ""), *((DOOR_EXCHANGE, DOOR, party) for party in parties)]


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}$"


def properties_of(queue: str, headers: Mapping[str, str]) -> BasicProperties:
    """The properties of a message with *headers* for *queue*: persistent. In a mailbox the headers `id` and
    `media-type` are also where an AMQP client looks for them."""
    properties = BasicProperties(headers=dict(headers), delivery_mode=2)
    if queue.startswith(mailbox_of("")):
        properties.message_id, properties.content_type = headers.get("id"), headers.get("media-type")
    return properties


def copy_of(delivery: Delivery, due: int) -> BasicProperties:
    """The properties of *delivery*'s copy that is not to be delivered before *due* (milliseconds since
    1970)."""
    attempts = {_ATTEMPTS: str(delivery.attempts + 1), _NOT_BEFORE: str(due)}
    return properties_of(delivery.queue, {**delivery.headers, **attempts})


def understood(method: Any, properties: BasicProperties) -> tuple[dict[str, str], int, int]:
    """Headers, attempts and due time (milliseconds since 1970) of a message that came."""
    raw: Mapping[str, Any] = properties.headers or {}
    # Only on a redelivery is this the server's own: before, the sender may have written anything there.
    lost = int(raw.get("x-delivery-count", 0)) if method.redelivered else 0
    if method.exchange == DOOR_EXCHANGE:
        # An agency wrote this itself. Its routing key is the one thing that the server vouches for.
        return {"party": method.routing_key, "media-type": properties.content_type or ""}, lost, 0
    return plain(raw), lost + int(raw.get(_ATTEMPTS, "0")), int(raw.get(_NOT_BEFORE, "0"))


def plain(headers: Mapping[str, Any]) -> dict[str, str]:
    """*headers* without those that the server adds or that are the broker's own."""
    return {k: v for k, v in headers.items() if isinstance(v, str) and not k.startswith(("x-", "isr-"))}
