"""On PostgreSQL the releases of a full batch leave while the next one is being decided."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from broker.broker import SUBMISSIONS, Outgoing, deliveries_to
from gateway import exchange
from gateway.hub import Hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from schemas.errors import Unconfirmed
from tests.processes import entries

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
