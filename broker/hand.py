"""What a worker has in hand: a batch that failed because something outside was away stays there and is tried
again first.

Giving it back instead would put it behind what came after it, and count an outage as attempts of messages
that are not at fault. A hand is memory only: whoever dies with one leaves the batch to the broker, which
delivers it again.
"""

import threading
from collections.abc import Callable

from broker.broker import Broker, Delivery
from broker.retry import DELIVERY_LIMIT, is_database_error, is_outside


class Hand:
    """The hand of a worker on *queue*. *database_answers* says whether the database does anything at all.
    Safe for several threads: each batch is in one thread's hands.
    """

    def __init__(self, broker: Broker, queue: str, database_answers: Callable[[], bool]) -> None:
        self._broker, self._queue, self._database_answers = broker, queue, database_answers
        self._lock = threading.Lock()
        self._kept: list[Delivery] = []
        self._failures = 0

    def take(self, limit: int, wait_seconds: float) -> list[Delivery]:
        """The batch that was kept, else up to *limit* messages of the queue (`Broker.receive`)."""
        with self._lock:
            kept, self._kept = self._kept, []
        return kept or self._broker.receive(self._queue, limit, wait_seconds)

    def settled(self) -> None:
        """The batch taken last is done."""
        self._failures = 0

    def keep(self, deliveries: list[Delivery], error: BaseException) -> bool:
        """Keeps *deliveries*, whose handling raised *error*, for the next `take`; gives them back to the
        broker, with one attempt more, when they themselves may be at fault. Returns whether it kept them.

        A database error is believed to come from outside a few times, and as long as the database answers
        nobody: a batch that it will never take must not be kept for ever.
        """
        self._failures += 1
        if is_outside(error) and not (
            is_database_error(error) and self._failures >= DELIVERY_LIMIT and self._database_answers()
        ):
            with self._lock:
                self._kept += deliveries
            return True
        self._failures = 0
        self._broker.requeue(deliveries)
        return False
