"""RabbitMQ counts a delivery for everything that a killed exchange had prefetched. Only what ends exchanges
when it is carried alone is set aside for it."""

import signal

import pytest
import sqlalchemy as sa

from broker.broker import SUBMISSIONS
from broker.retry import DELIVERY_LIMIT
from broker.suspects import suspect
from consent.entry import DECISION_KINDS
from gateway.hub import Hub, open_hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from tests.integration.test_workers import taken_in
from tests.processes import (
    NOW,
    PATIENCE_SECONDS,
    accepted_at_last,
    entries,
    moved_until_idle,
    running,
    until,
)

COUNT = 40
DEATHS = 2 * DELIVERY_LIMIT + 2

# An exchange that ends itself whenever a batch with one of these is handled; nobody can catch it.
POISONED = """
import os, signal
from gateway.exchange import Exchange
commit = Exchange._commit
def poisoned(self, deliveries):
    if any(d.headers["id"] in {ids!r} for d in deliveries):
        os.kill(os.getpid(), signal.SIGKILL)
    return commit(self, deliveries)
Exchange._commit = poisoned
"""


def backlog(hub: Hub) -> list[str]:
    """The ids of submissions that wait, in their order."""
    return accepted_at_last(hub, "police", [five_f(i.family, i.episode) for i in stream(23, COUNT, days=60)])


def decided(hub: Hub) -> set[str]:
    return {e["message"] for e in entries(hub) if e["kind"] in DECISION_KINDS}


def suspects(hub: Hub) -> list[int]:
    with hub.engine.connect() as connection:
        return list(connection.execute(sa.select(suspect.c.tries)).scalars())


def test_innocents_are_carried_however_often_exchanges_ended_over_them(settings: Settings, hub: Hub) -> None:
    waiting = backlog(hub)
    for died in range(DEATHS):
        with open_hub(settings, clock=lambda: NOW) as other:
            held = other.broker.receive(SUBMISSIONS, COUNT, PATIENCE_SECONDS)
            assert {d.attempts for d in held} == {died}

    moved_until_idle(settings, "exchange")

    assert decided(hub) == set(waiting)
    assert taken_in(hub) == COUNT
    assert hub.broker.dead_letters() == []
    assert suspects(hub) == []


@pytest.mark.parametrize("places", [(0,), (COUNT // 2,), (0, COUNT // 2)], ids=["head", "middle", "two"])
def test_only_what_ends_exchanges_alone_is_set_aside(
    settings: Settings, hub: Hub, places: tuple[int, ...]
) -> None:
    waiting = backlog(hub)
    poison = {waiting[place] for place in places}
    bound = DELIVERY_LIMIT - 1 + DELIVERY_LIMIT * len(poison)  # each takes its own lives, but for the first

    def done() -> bool:
        return taken_in(hub) + len(hub.broker.dead_letters()) >= COUNT

    deaths = 0
    while not done() and deaths <= bound:
        with running(settings, "exchange", before=POISONED.format(ids=sorted(poison))) as exchange:
            until(lambda e=exchange: e.poll() is not None or done())
            deaths += exchange.poll() == -signal.SIGKILL

    assert deaths == bound
    letters = hub.broker.dead_letters()
    assert {d.headers["id"] for d in letters} == poison
    assert {d.error["code"] for d in letters} == {"exhausted"}
    assert decided(hub) == set(waiting) - poison
    assert suspects(hub) == []
