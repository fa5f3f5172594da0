"""A party that collects from its own queue in RabbitMQ, with its own user, beside one that has a folder; what
that user can do and what it cannot."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest
from joserfc import jwe
from joserfc.jwk import ECKey

from broker.broker import SUBMISSIONS, Outgoing, deliveries_to
from broker.rabbitmq import RabbitBroker
from broker.sealed import SealedBroker
from broker.topology import DEAD_LETTERS, DOOR, DOOR_EXCHANGE, mailbox_of
from gateway.hub import Hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from tests.processes import accepted_at_last, entries, moved_until_idle, until

COLLECTS, NEIGHBOUR = "corrections", "oranga-tamariki"
THEIRS = ECKey.generate_key("P-256")
Connect = Callable[[str], pika.BlockingConnection]
FORBIDDEN: dict[str, Callable[[Any], object]] = {
    "reads another's mailbox": lambda c: c.basic_get(mailbox_of(NEIGHBOUR)),
    "consumes another's mailbox": lambda c: c.basic_consume(mailbox_of(NEIGHBOUR), print),
    "empties another's mailbox": lambda c: c.queue_purge(mailbox_of(NEIGHBOUR)),
    "reads before it is sent": lambda c: c.basic_get(deliveries_to(COLLECTS)),
    "reads submissions": lambda c: c.basic_get(SUBMISSIONS),
    "reads what others sent": lambda c: c.basic_get(DOOR),
    "reads dead letters": lambda c: c.basic_get(DEAD_LETTERS),
    "sends as another": lambda c: c.basic_publish(DOOR_EXCHANGE, NEIGHBOUR, b"x"),
    "signs as another": lambda c: c.basic_publish(
        DOOR_EXCHANGE, COLLECTS, b"x", pika.BasicProperties(user_id=NEIGHBOUR)
    ),
    "sends past the door": lambda c: c.basic_publish("", SUBMISSIONS, b"x"),
    "writes into another's mailbox": lambda c: c.basic_publish("", mailbox_of(NEIGHBOUR), b"x"),
    "writes into its own": lambda c: c.basic_publish("", mailbox_of(COLLECTS), b"x"),
    "uses the server's exchanges": lambda c: c.basic_publish("amq.topic", "x", b"x"),
    "declares a queue": lambda c: c.queue_declare("own"),
    "declares a queue for itself alone": lambda c: c.queue_declare("", exclusive=True),
    "declares its mailbox anew": lambda c: c.queue_declare(mailbox_of(COLLECTS), durable=True),
    "declares an exchange": lambda c: c.exchange_declare("own"),
    "deletes its mailbox": lambda c: c.queue_delete(mailbox_of(COLLECTS)),
    "listens to what is sent": lambda c: c.queue_bind(mailbox_of(COLLECTS), DOOR_EXCHANGE, "#"),
    "cuts another off": lambda c: c.queue_unbind(DOOR, DOOR_EXCHANGE, NEIGHBOUR),
}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "recipients.yaml"
    (tmp_path / "neighbour.jwk").write_text(json.dumps(THEIRS.as_dict(private=False)), "utf-8")
    encrypted = f"  {NEIGHBOUR}:\n    mailbox:\n      encrypt_to: neighbour.jwk\n"
    file.write_text(f"recipients:\n  {COLLECTS}: mailbox\n{encrypted}others: folder\n", "utf-8")
    return dataclasses.replace(settings, recipients=file)


def collected(connection: pika.BlockingConnection, party: str) -> list[tuple[Any, bytes]]:
    """What lies in the mailbox of *party*: properties and body, acknowledged."""
    channel = connection.channel()
    found = []
    while True:
        method, properties, body = channel.basic_get(mailbox_of(party))
        if method is None:
            return found
        found.append((properties, body))
        channel.basic_ack(method.delivery_tag)


def opened(body: bytes) -> bytes:
    """What the neighbour reads in *body*."""
    found = jwe.decrypt_compact(body, THEIRS, algorithms=["ECDH-ES", "A256GCM"])
    assert found.protected["cty"] == "application/json"
    return found.plaintext or b""


def released(hub: Hub, party: str) -> list[str]:
    """The disclosures to *party* in the ledger."""
    return [e["disclosure"] for e in entries(hub) if e["kind"] == "disclosure" and e["party"] == party]


def test_party_collects_exactly_what_was_released_to_it(
    agencies: Connect, settings: Settings, hub: Hub
) -> None:
    """In its own format, encrypted where it gave a key, under the ids that the ledger has; nothing of it
    comes by another way.
    """
    natives = [five_f(i.family, i.episode) for i in stream(15, 12, days=30)]
    accepted_at_last(hub, "police", natives)
    moved_until_idle(settings, "exchange")
    moved_until_idle(settings, "adapters")

    for party in (COLLECTS, NEIGHBOUR):
        ids = released(hub, party)
        with contextlib.closing(agencies(party)) as connection:
            found = collected(connection, party)
        assert ids
        assert sorted(properties.message_id for properties, _ in found) == sorted(ids)
        kind = "application/jose" if party == NEIGHBOUR else "application/json"
        assert {(properties.delivery_mode, properties.content_type) for properties, _ in found} == {(2, kind)}
        bodies = [body if party == COLLECTS else opened(body) for _, body in found]
        assert all(isinstance(json.loads(body), dict) for body in bodies)
        delivered = [e["message"] for e in entries(hub) if e["kind"] == "delivery" and e["party"] == party]
        assert sorted(delivered) == sorted(ids)
        assert not (settings.data / "agencies" / party).exists()
    assert any((settings.data / "agencies").glob("*/received/*"))


def test_what_a_party_rejects_is_a_dead_letter_that_goes_back_into_its_mailbox(
    agencies: Connect, hub: Hub
) -> None:
    accepted_at_last(hub, "police", [five_f(i.family, i.episode) for i in stream(15, 4, days=30)])
    hub.exchange.carry()
    until(lambda: hub.exchange.deliver(COLLECTS) > 0)
    with contextlib.closing(agencies(COLLECTS)) as connection:
        channel = connection.channel()
        method, properties, body = channel.basic_get(mailbox_of(COLLECTS))
        channel.basic_reject(method.delivery_tag, requeue=False)
        before = collected(connection, COLLECTS)

        until(lambda: len(hub.broker.dead_letters()) == 1)
        [letter] = hub.broker.dead_letters()
        assert (letter.queue, letter.number) == (mailbox_of(COLLECTS), properties.message_id)
        hub.exchange.send_again(letter.number)
        [(again, same)] = collected(connection, COLLECTS)

    assert (again.message_id, again.content_type, same) == (
        properties.message_id,
        properties.content_type,
        body,
    )
    assert properties.message_id not in {seen.message_id for seen, _ in before}
    assert hub.broker.dead_letters() == []


def test_mailbox_waits_while_rabbitmq_does_not_confirm(hub: Hub, settings: Settings) -> None:
    """The release stays in its queue, and no outcome is written, when the mailbox is gone."""
    accepted_at_last(hub, "police", [five_f(i.family, i.episode) for i in stream(15, 4, days=30)])
    hub.exchange.carry()
    assert isinstance(hub.broker, SealedBroker)
    broker = hub.broker._inner
    assert isinstance(broker, RabbitBroker)
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(settings.broker_url))) as connection:
        connection.channel().queue_delete(mailbox_of(COLLECTS))

    until(lambda: hub.exchange.deliver(COLLECTS) == 0 and broker.depth(deliveries_to(COLLECTS)) > 0)

    assert released(hub, COLLECTS)
    assert [e for e in entries(hub) if e["kind"] == "delivery"] == []


def test_user_of_a_party_is_refused_everything_else(agencies: Connect, hub: Hub) -> None:
    """With the definitions as the command writes them."""
    hub.broker.publish([Outgoing(mailbox_of(NEIGHBOUR), b"for the neighbour", {"id": "d-1"})])
    answers: dict[str, object] = {}
    with contextlib.closing(agencies(COLLECTS)) as connection:
        for name, attempt in FORBIDDEN.items():
            channel = connection.channel()
            channel.confirm_delivery()
            try:
                answers[name] = attempt(channel)
            except pika.exceptions.ChannelClosedByBroker as refused:
                answers[name] = refused.reply_code

    signed_as_another = {"signs as another": 406}  # PRECONDITION_FAILED: RabbitMQ checks user-id
    assert answers == {**dict.fromkeys(FORBIDDEN, 403), **signed_as_another}
    assert hub.broker.depth(mailbox_of(NEIGHBOUR)) == 1


def test_user_of_a_party_sees_how_many_wait_in_another_mailbox(agencies: Connect, hub: Hub) -> None:
    """What RabbitMQ does not hide within a virtual host, as the documents say."""
    hub.broker.publish([Outgoing(mailbox_of(NEIGHBOUR), b"for the neighbour", {"id": "d-1"})])
    with contextlib.closing(agencies(COLLECTS)) as connection:
        seen = connection.channel().queue_declare(mailbox_of(NEIGHBOUR), passive=True)

    assert seen.method.message_count == 1
