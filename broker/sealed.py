"""Sealed queues: what lies in a queue is encrypted, so that neither the broker's disk nor its operators hold
anybody's name or address.

A body is a JWE in compact form (RFC 7516: `dir`, A256GCM), its key that of its queue: moved to another queue,
it does not open. The form is written here and not by a library, because it is done twice for every message
and costs a fifth so; tests hold it to the library.
"""

import binascii
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pybase64
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.broker import Broker, DeadLetter, Delivery, Outgoing
from schemas.errors import Unsealed

_NONCE, _TAG = 12, 16  # bytes (RFC 7518 section 5.3)


class Seal:
    """Closes and opens bodies; *key_of* gives the key (32 bytes) of a queue. Safe for several threads."""

    def __init__(self, key_of: Callable[[str], bytes]) -> None:
        self._key_of = key_of
        self._known: dict[str, tuple[bytes, AESGCM]] = {}

    def close(self, queue: str, body: bytes) -> bytes:
        """*body* as a JWE that only the holder of the key of *queue* reads."""
        header, cipher = self._of(queue)
        nonce = os.urandom(_NONCE)
        closed = cipher.encrypt(nonce, body, header)
        return b"".join(
            (header, b"..", _text(nonce), b".", _text(closed[:-_TAG]), b".", _text(closed[-_TAG:]))
        )

    def open(self, queue: str, sealed: bytes) -> bytes:
        """The body in *sealed*. Raises `Unsealed` when it is no JWE, was made for another queue or with
        another key, or was changed.
        """
        header, cipher = self._of(queue)
        parts = sealed.split(b".")
        if len(parts) != 5 or parts[0] != header or parts[1]:
            raise Unsealed
        try:
            nonce, closed, tag = (_bytes(part) for part in parts[2:])
            return cipher.decrypt(nonce, closed + tag, header)
        except (InvalidTag, ValueError, binascii.Error):
            raise Unsealed from None

    def _of(self, queue: str) -> tuple[bytes, AESGCM]:
        found = self._known.get(queue)
        if found is None:
            header = _text(orjson.dumps({"alg": "dir", "enc": "A256GCM", "kid": queue}))
            found = self._known[queue] = (header, AESGCM(self._key_of(queue)))
        return found


class SealedBroker:
    """A broker whose queues hold sealed bodies, but for those *open_to* others, which publish or read there
    themselves.

    What does not open goes to the dead letters as it is: somebody who is not the hub put it there.
    """

    def __init__(self, inner: Broker, seal: Seal, open_to: Callable[[str], bool] = lambda _: False) -> None:
        self._inner, self._seal, self._open_to = inner, seal, open_to

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """See `Broker.publish`."""
        self._inner.publish([self._closed(m) for m in messages])

    def receive(self, queue: str, limit: int, wait_seconds: float = 0.0) -> list[Delivery]:
        """See `Broker.receive`."""
        deliveries = self._inner.receive(queue, limit, wait_seconds)
        if self._open_to(queue):
            return deliveries
        opened: list[Delivery] = []
        while deliveries and not opened:
            strange: list[tuple[Delivery, Mapping[str, Any]]] = []
            for delivery in deliveries:
                try:
                    opened.append(replace(delivery, body=self._seal.open(queue, delivery.body)))
                except Unsealed as error:
                    strange.append((delivery, error.as_json()))
            if strange:
                # ‖ Durable among the dead letters before it leaves the queue; a crash between leaves both.
                self._inner.bury(strange)
            if not opened:  # an answer without a message says that the queue is empty
                deliveries = self._inner.receive(queue, limit)
        return opened

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.ack`."""
        self._inner.ack(deliveries)

    def requeue(self, deliveries: Sequence[Delivery], delay_seconds: float = 0.0) -> None:
        """See `Broker.requeue`."""
        self._inner.requeue([self._held(d) for d in deliveries], delay_seconds)

    def bury(self, deliveries: Sequence[tuple[Delivery, Mapping[str, Any]]]) -> None:
        """See `Broker.bury`."""
        self._inner.bury([(self._held(d), error) for d, error in deliveries])

    def quarantine(self, messages: Sequence[tuple[Outgoing, Mapping[str, Any]]]) -> None:
        """See `Broker.quarantine`."""
        self._inner.quarantine([(self._closed(m), error) for m, error in messages])

    def dead_letters(self, queue: str | None = None, limit: int = 1000) -> list[DeadLetter]:
        """See `Broker.dead_letters`; what does not open is shown as it is."""
        return [self._letter(letter) for letter in self._inner.dead_letters(queue, limit)]

    def take_dead_letter(self, number: str) -> DeadLetter | None:
        """See `Broker.take_dead_letter`."""
        letter = self._inner.take_dead_letter(number)
        return None if letter is None else self._letter(letter)

    def depth(self, queue: str) -> int:
        """See `Broker.depth`."""
        return self._inner.depth(queue)

    def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """See `Broker.depths`."""
        return self._inner.depths(queues)

    def close(self) -> None:
        """See `Broker.close`."""
        self._inner.close()

    def _closed(self, message: Outgoing) -> Outgoing:
        if self._open_to(message.queue):
            return message
        return Outgoing(message.queue, self._seal.close(message.queue, message.body), message.headers)

    def _held(self, delivery: Delivery) -> Delivery:
        """*delivery* as the broker gave it: it may write the body again."""
        if self._open_to(delivery.queue):
            return delivery
        return replace(delivery, body=self._seal.close(delivery.queue, delivery.body))

    def _letter(self, letter: DeadLetter) -> DeadLetter:
        try:
            return replace(letter, body=self._seal.open(letter.queue, letter.body))
        except Unsealed:
            return letter


def _text(raw: bytes) -> bytes:
    return pybase64.urlsafe_b64encode(raw).rstrip(b"=")


def _bytes(text: bytes) -> bytes:
    return pybase64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


__all__ = ["Seal", "SealedBroker"]
