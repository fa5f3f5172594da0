"""The contract of a broker: durable queues between the steps of the journey. Two implementations, one
conformance suite.

A queue holds messages until they are acknowledged. Order is kept per queue for messages that are not
requeued. Nothing here looks inside a body.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SUBMISSIONS = "submissions"
ACCEPT = "accept"  # holds only dead letters: native input that could not be read


def deliveries_to(party: str) -> str:
    """The queue that holds the disclosures released to *party*."""
    return f"deliver.{party}"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be queued. *headers* hold no personal detail: they are visible to operators."""

    queue: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message taken from a queue and not yet acknowledged. *attempts* counts earlier deliveries; *tag* is
    the broker's own handle.
    """

    queue: str
    body: bytes
    headers: Mapping[str, str]
    attempts: int
    tag: Any


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message set aside with the *error* (`HubError.as_json`) that says why. *number* names it to an
    operator.
    """

    number: str
    queue: str
    body: bytes
    headers: Mapping[str, str]
    error: Mapping[str, Any]
    at: str


class Broker(Protocol):
    """Durable queues."""

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Queues all *messages*. When it returns, every one survives a power cut. MUST raise `Unconfirmed`
        when that is not certain; then any of them MAY have been queued, and the caller publishes all again
        (consumers drop what they have seen).
        """
        ...

    def receive(self, queue: str, limit: int, wait_seconds: float = 0.0) -> list[Delivery]:
        """Up to *limit* messages that are there now; waits at most *wait_seconds* for the first, never to
        fill the batch. They stay with this consumer until settled or until the consumer is gone; then they
        are delivered again with `attempts` increased.
        """
        ...

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Removes *deliveries* for good. One round for all. A delivery whose connection was lost meanwhile is
        delivered again instead.
        """
        ...

    def requeue(self, deliveries: Sequence[Delivery], delay_seconds: float = 0.0) -> None:
        """Puts *deliveries* back to be delivered again, not before *delay_seconds*."""
        ...

    def bury(self, deliveries: Sequence[tuple[Delivery, Mapping[str, Any]]]) -> None:
        """Moves each to its queue's dead letters with the error beside it. Durable before the original is
        removed.
        """
        ...

    def quarantine(self, messages: Sequence[tuple[Outgoing, Mapping[str, Any]]]) -> None:
        """Adds each to its queue's dead letters with the error beside it. Durable when it returns."""
        ...

    def dead_letters(self, queue: str | None = None, limit: int = 1000) -> list[DeadLetter]:
        """Dead letters of *queue* or of all, oldest first. Looking does not change them."""
        ...

    def take_dead_letter(self, number: str) -> DeadLetter | None:
        """Removes and returns one, for whoever will publish it again; None when it is gone. MUST be called
        after the new publication is confirmed, so that a crash between leaves both rather than neither.
        """
        ...

    def depth(self, queue: str) -> int:
        """How many messages wait in *queue*, the unacknowledged included."""
        ...

    def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """The `depth` of each of *queues*: one question for all of them."""
        ...

    def close(self) -> None:
        """Gives back what is not settled and closes."""
        ...
