"""What a worker keeps when something outside fails, and what it gives back."""

from collections.abc import Sequence
from typing import cast

import pytest
import sqlalchemy as sa

from broker.broker import Broker, Delivery
from broker.hand import Hand
from broker.retry import DELIVERY_LIMIT
from schemas.errors import AlreadyDecided, BadSettings, LedgerContradiction, Unconfirmed

AWAY = sa.exc.OperationalError("SELECT 1", {}, Exception())


class Queue:
    """A broker as far as a hand sees it: *ready* in order, and what was *requeued*."""

    def __init__(self, count: int) -> None:
        self.ready = [Delivery("submissions", b"%d" % n, {}, 0, n) for n in range(count)]
        self.requeued: list[Delivery] = []

    def receive(self, _queue: str, limit: int, _wait_seconds: float) -> list[Delivery]:
        batch, self.ready = self.ready[:limit], self.ready[limit:]
        return batch

    def requeue(self, deliveries: Sequence[Delivery], _delay_seconds: float = 0.0) -> None:
        self.requeued += deliveries


def hand(queue: Queue, *, database_answers: bool = True) -> Hand:
    return Hand(cast("Broker", queue), "submissions", lambda: database_answers)


@pytest.mark.parametrize("error", [AWAY, Unconfirmed(), LedgerContradiction(), BadSettings()], ids=repr)
def test_hand_keeps_a_batch_that_met_an_outage_and_gives_it_out_first(error: Exception) -> None:
    queue = Queue(4)
    mine = hand(queue)
    batch = mine.take(2, 0.0)

    mine.keep(batch, error)

    assert mine.take(2, 0.0) == batch
    assert [d.body for d in mine.take(2, 0.0)] == [b"2", b"3"]
    assert queue.requeued == []


@pytest.mark.parametrize("error", [KeyError("x"), AlreadyDecided(), KeyboardInterrupt()], ids=repr)
def test_hand_gives_back_what_may_be_at_fault_itself(error: BaseException) -> None:
    queue = Queue(2)
    mine = hand(queue)
    batch = mine.take(2, 0.0)

    mine.keep(batch, error)

    assert queue.requeued == batch
    assert mine.take(2, 0.0) == []


def test_hand_gives_back_what_a_database_that_answers_does_not_take() -> None:
    """A batch that the database will never take would hold up everything behind it."""
    queue = Queue(1)
    mine = hand(queue)
    for _ in range(DELIVERY_LIMIT - 1):
        mine.keep(mine.take(1, 0.0), AWAY)
    batch = mine.take(1, 0.0)
    assert batch

    mine.keep(batch, AWAY)

    assert queue.requeued == batch


def test_hand_keeps_a_batch_as_long_as_the_database_is_away() -> None:
    queue = Queue(1)
    mine = hand(queue, database_answers=False)
    for _ in range(DELIVERY_LIMIT * 10):
        mine.keep(mine.take(1, 0.0), AWAY)

    assert len(mine.take(1, 0.0)) == 1
    assert queue.requeued == []


def test_hand_counts_failures_anew_after_a_batch_that_went_well() -> None:
    queue = Queue(1)
    mine = hand(queue)
    for _ in range(DELIVERY_LIMIT * 3):
        batch = mine.take(1, 0.0)
        mine.keep(batch, AWAY)
        mine.settled()

    assert queue.requeued == []
