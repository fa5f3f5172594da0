"""The AMQP door: what agencies publish to the hub's exchange in RabbitMQ enters the journey at `accept`.

Who sent it is the routing key, for which RabbitMQ vouches. Nobody waits for an answer, so what cannot be read
goes to the dead letters with its reason, and what is taken twice is carried once.

RabbitMQ writes bodies to its disk, so they come encrypted to the hub's key; in production nothing else is
taken.
"""

import itertools
from collections.abc import Sequence

from adapters.adapter import Native
from broker.broker import Delivery
from broker.topology import DOOR
from gateway.hub import Hub
from gateway.intake import JOSE, MAX_BODY, media_type_of, natives_of
from gateway.quarantine import packed
from schemas.errors import HubError, Problem, TooLarge, Unencrypted

LIMIT = 100


def take_in(hub: Hub, limit: int = LIMIT, wait_seconds: float = 0.0) -> int:
    """Accepts up to *limit* inputs that agencies published; returns how many. Safe to repeat at any point."""
    deliveries = hub.broker.receive(DOOR, limit, wait_seconds)
    try:
        for party, group in itertools.groupby(deliveries, key=lambda d: d.headers["party"]):
            _accept(hub, party, list(group))
    except BaseException:
        hub.broker.requeue(deliveries)
        raise
    # ‖ All of it is submitted or quarantined. A crash before this accepts it again: the inbox drops the
    # submissions, and the dead letters may hold an input twice.
    hub.broker.ack(deliveries)
    return len(deliveries)


def _accept(hub: Hub, party: str, deliveries: Sequence[Delivery]) -> None:
    natives: list[Native] = []
    for delivery in deliveries:
        media_type = delivery.headers["media-type"]
        try:
            natives += _natives(hub, media_type, delivery.body)
        except HubError as error:
            native = Native(delivery.body, media_type or "application/octet-stream")
            hub.broker.quarantine([(packed(party, native), error.as_json())])
    hub.exchange.accept(party, natives)


def _natives(hub: Hub, media_type: str, body: bytes) -> list[Native]:
    if media_type_of(media_type) != JOSE:
        if hub.settings.production:
            raise Unencrypted(
                "the input came through RabbitMQ unencrypted, and lay there for its operators to read",
                Problem("", "is no JWE", f"encrypt it to the key of GET /v1/encryption-key, and send {JOSE}"),
            )
        if len(body) > MAX_BODY:
            raise TooLarge(
                "the input is too large", Problem("", f"has more than {MAX_BODY} bytes", "send parts")
            )
    return natives_of(*hub.encryption.opened(media_type, body))
