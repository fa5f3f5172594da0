"""The hub's processes on real servers, while processes, servers, the network and recipients break: what was
sent is decided once and logged, what was released is in the ledger before anybody has it, and every recipient
has exactly what was released to it. And the same checks on a hub that is made wrong on purpose: they find it.

`ISR_HUB_TEST_FAULTS=long` tries much longer; `ISR_HUB_TEST_FAULTS_SEED` sets the seed, and
`ISR_HUB_TEST_FAULTS_REPORT` names a file for the report as JSON. The seed fixes what is sent, how often, and
what is broken; the moment within a step is the machine's.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from schemas.database import in_sequence
from tests.faults import breakable
from tests.faults.conftest import SEED
from tests.faults.kinds import LONG, SHORT
from tests.faults.nursery import Nursery
from tests.faults.world import Row, World

KINDS = LONG if os.environ.get("ISR_HUB_TEST_FAULTS") == "long" else SHORT


@pytest.fixture(scope="module")
def worlds(
    breakable_servers: breakable.Servers,
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., World]]:
    """The world; a new one once it was spoiled."""
    opened: list[tuple[World, object]] = []

    def close() -> None:
        for _, context in opened:
            context.__exit__(None, None, None)  # type: ignore[attr-defined]
        opened.clear()

    def get(*, anew: bool = True) -> World:
        if anew and opened and opened[0][0].is_spoiled:
            close()
        if not opened:
            world = World(breakable_servers, nursery, tmp_path_factory.mktemp("world"), SEED)
            context = world.opened()
            context.__enter__()
            opened.append((world, context))
        world = opened[0][0]
        world.start_all()
        return world

    yield get
    close()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_doubled_or_unlogged(
    worlds: Callable[..., World], rows: list[Row], kind: str
) -> None:
    world = worlds()
    row = Row(kind, findings=["did not finish"])
    rows.append(row)
    world.is_spoiled = True

    tally = KINDS[kind](world)
    world.settle()
    found = world.check(kind, tally.tried, tally.messages)
    found.unlogged += tally.unlogged
    rows[-1] = found

    assert found.tried > 0
    assert found.is_clean, found
    world.is_spoiled = False


# --- Made wrong on purpose. What was spoiled before is in the counts, so what is asserted is that they grow.


@pytest.fixture
def spoilt(worlds: Callable[..., World]) -> World:
    """A world whose hub is about to be made wrong, with nothing left to move."""
    world = worlds(anew=False)
    world.settle(losing=True)
    world.is_spoiled = True
    return world


def test_release_that_leaves_before_its_decision_is_committed_is_found(spoilt: World) -> None:
    spoilt.children["exchange"].kill()
    wrong = spoilt.start("exchange", wrong="publish before commit", point="decisions", when="before")
    with spoilt.sending(3):
        spoilt.until(wrong.ended.is_set)
        assert wrong.status == -signal.SIGKILL, wrong.said()

        spoilt.until(lambda: spoilt.unlogged_now() > 0)


def test_submission_that_is_acknowledged_before_it_is_committed_is_found(spoilt: World) -> None:
    before = spoilt.check("", 0, 0).lost
    spoilt.children["exchange"].kill()
    wrong = spoilt.start("exchange", wrong="ack before commit", point="decisions", when="before")
    with spoilt.sending(3):
        spoilt.until(wrong.ended.is_set)
        spoilt.start("exchange")
    spoilt.settle(losing=True)

    assert spoilt.check("", 0, 0).lost > before


def test_sender_that_is_answered_before_rabbitmq_confirms_is_found(spoilt: World) -> None:
    before = spoilt.check("", 0, 0).lost
    spoilt.children["gateway"].kill()
    wrong = spoilt.start("gateway", wrong="answer before confirm")
    with spoilt.sending(3) as sender:
        spoilt.until(lambda: len(sender.answered) > 0)
    with spoilt.to_rabbitmq.mute(), spoilt.sending(6):
        pass
    wrong.kill()
    spoilt.settle(losing=True)

    assert spoilt.check("", 0, 0).lost > before


def test_exchange_that_does_not_wait_for_confirms_is_found(spoilt: World) -> None:
    """It has committed and signed, believes that everything was published, and drops the outbox."""
    before = spoilt.check("", 0, 0).lost
    spoilt.children["exchange"].kill()
    spoilt.start("exchange", wrong="answer before confirm")
    with spoilt.sending(3):
        pass
    spoilt.settle(losing=True)
    with contextlib.ExitStack() as held:
        in_sequence(held.enter_context(spoilt.hub.engine.begin()))  # so it waits with a batch in hand
        with spoilt.sending(3):
            spoilt.until(spoilt.waits_for_a_lock)
        taken = spoilt.taken_in()
        with spoilt.to_rabbitmq.mute():
            held.close()
            spoilt.until(lambda: spoilt.taken_in() > taken and "in the outbox" not in spoilt.state())
    spoilt.settle(losing=True)

    assert spoilt.check("", 0, 0).lost > before


def test_adapters_that_forget_what_they_delivered_are_found(spoilt: World) -> None:
    before = spoilt.check("", 0, 0).doubled
    spoilt.children["adapters"].kill()
    wrong = spoilt.start("adapters", wrong="forget outcomes", point="outcomes", when="after")
    with spoilt.sending(3):
        spoilt.until(wrong.ended.is_set)
        spoilt.start("adapters", wrong="forget outcomes")
        spoilt.until(lambda: spoilt.check("", 0, 0).doubled > before)
    spoilt.children["adapters"].kill()
