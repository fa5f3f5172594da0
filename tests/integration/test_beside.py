"""On PostgreSQL the releases of a full batch leave while the next one is being decided."""

import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from broker.broker import SUBMISSIONS, Outgoing, deliveries_to
from gateway import exchange
from gateway.hub import Hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from schemas.errors import Unconfirmed
from tests.integration.test_workers import EPISODES, assert_everything_once, taken_in
from tests.processes import accepted_at_last, entries, moved_until_idle, running, until

COUNT, BATCH = 30, 10
PATIENCE_SECONDS = 60


@pytest.fixture
def full(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub for which ten submissions are a full batch, with three of them waiting."""
    monkeypatch.setattr(exchange, "BATCH", BATCH)
    natives = [five_f(i.family, i.episode) for i in stream(3, COUNT + 1, days=1)]
    hub.exchange.accept("police", natives[:1])
    while hub.exchange.carry():  # what ended a process before would be alone in the first batch
        pass
    hub.exchange.accept("police", natives[1:])
    arrived = vars(hub.broker)["_inner"]._consumers[SUBMISSIONS].ready
    until(
        lambda: len(arrived) == COUNT
    )  # RabbitMQ pushes them in its own time, and a batch takes what is there
    return hub


def complete(hub: Hub) -> None:
    """Everything was carried once, is signed, and waits for its recipients or was acknowledged."""
    found = entries(hub)
    released = [body for body in found if body["kind"] == "disclosure"]
    decided = {
        (b["message"], b["party"]) for b in found if b["kind"] in ("disclosure", "refusal", "referral")
    }
    assert len({message for message, _ in decided}) == COUNT + 1
    assert hub.broker.depth(SUBMISSIONS) == 0
    queued = [
        delivery.headers["id"]
        for party in hub.agreements.parties
        for delivery in hub.broker.receive(deliveries_to(party), 10_000)
    ]
    assert sorted(set(queued)) == sorted(body["disclosure"] for body in released)
    newest = hub.ledger.checkpoint()
    assert newest is not None
    assert newest.size == hub.ledger.head().size


def test_next_batch_is_committed_while_releases_wait_for_their_confirms(
    full: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, may, began = full.broker.publish, threading.Event(), threading.Event()

    def slow(messages: Sequence[Outgoing]) -> None:
        began.set()
        assert may.wait(PATIENCE_SECONDS)
        publish(messages)

    monkeypatch.setattr(full.broker, "publish", slow)
    assert full.exchange.carry(BATCH, 5.0) == BATCH
    assert began.wait(PATIENCE_SECONDS)
    signed, committed = full.ledger.checkpoint(), full.ledger.head().size
    second: list[int] = []
    worker = threading.Thread(target=lambda: second.append(full.exchange.carry(BATCH, 5.0)))
    worker.start()
    watch = threading.Event()
    for _ in range(PATIENCE_SECONDS * 20):
        if full.ledger.head().size > committed:
            break
        watch.wait(0.05)
    assert full.ledger.head().size > committed, "the second batch waits for the first to leave"
    assert full.ledger.checkpoint() == signed
    assert not second, "a third batch could begin before the first has left"
    may.set()
    worker.join(PATIENCE_SECONDS)
    assert second == [BATCH]
    while full.exchange.carry(BATCH, 1.0):
        pass
    complete(full)


def test_releases_that_could_not_leave_are_in_hand_again(full: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    publish, failures = full.broker.publish, [Unconfirmed("away"), Unconfirmed("still away")]

    def away(messages: Sequence[Outgoing]) -> None:
        if failures:
            raise failures.pop()
        publish(messages)

    monkeypatch.setattr(full.broker, "publish", away)
    raised = 0
    moved: Any = True
    while moved:
        try:
            moved = full.exchange.carry(BATCH, 1.0)
        except Unconfirmed:
            raised += 1
    assert raised == 2
    complete(full)


def test_closing_waits_for_what_is_on_its_way(full: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    publish, ended = full.broker.publish, []

    def slow(messages: Sequence[Outgoing]) -> None:
        threading.Event().wait(0.5)
        publish(messages)
        ended.append(len(messages))

    monkeypatch.setattr(full.broker, "publish", slow)
    assert full.exchange.carry(BATCH, 5.0) == BATCH
    full.exchange.close()
    assert ended


# Five are a full batch, and what leaves takes its time: a kill nearly always comes while a batch is leaving
# and the next one is being decided.
SLOW = """
import time
from broker import sealed
from gateway import exchange
exchange.BATCH = 5
exchange.Exchange.carry.__defaults__ = (5, 0.0)
publish = sealed.SealedBroker.publish
def slow(self, messages):
    publish(self, messages[: len(messages) // 2])
    time.sleep(0.1)
    publish(self, messages[len(messages) // 2 :])
    time.sleep(0.1)
sealed.SealedBroker.publish = slow
"""


def test_exchange_killed_again_and_again_while_releases_leave_loses_nothing(
    settings: Settings, hub: Hub
) -> None:
    """Killed between commit, signature, each half of the confirms, watermark and acknowledgement of one
    batch, with the next one anywhere.
    """
    rng = random.Random(17)
    natives = [five_f(i.family, i.episode) for i in stream(17, EPISODES, days=300)]
    sent = [native for native in natives for _ in range(rng.randint(1, 2))]
    accepted: set[str] = set()
    for start in range(0, len(sent), 10):
        accepted.update(accepted_at_last(hub, "police", sent[start : start + 10]))
    kills = 0
    while taken_in(hub) < len(accepted) and kills < 14:
        before = taken_in(hub)
        with running(settings, "exchange", before=SLOW) as exchange_process:
            until(lambda before=before: taken_in(hub) > before, exchange_process)
            threading.Event().wait(rng.uniform(0.0, 0.6))
            exchange_process.kill()
        kills += 1
    assert kills >= 3
    moved_until_idle(settings, "exchange")
    moved_until_idle(settings, "adapters")
    moved_until_idle(settings, "exchange")  # a recall that a delivery brought
    moved_until_idle(settings, "adapters")
    assert_everything_once(hub, accepted)
