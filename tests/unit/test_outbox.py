"""What waits to leave: the database alone says what, and what is at hand is only a copy of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker import outbox as module
from broker.broker import Outgoing
from broker.embedded import EmbeddedBroker
from broker.outbox import Leaving, Outbox
from broker.sealed import Seal
from schemas.clock import utc_now
from schemas.database import metadata, open_database
from schemas.errors import Unconfirmed

QUEUE = "deliver.corrections"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'hub.db'}")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


class Counting(Seal):
    """Counts what is read back."""

    opened = 0

    def open(self, queue: str, sealed: bytes) -> bytes:
        self.opened += 1
        return super().open(queue, sealed)


def finished(leaving: Sequence[Leaving]) -> list[bytes]:
    return [b"%d:" % one.number + one.body + b":" + (one.entry or b"") for one in leaving]


def made(engine: sa.Engine) -> tuple[Outbox, EmbeddedBroker, Counting]:
    broker, seal = EmbeddedBroker(engine, utc_now), Counting(lambda _: b"k" * 32)
    outbox = Outbox(engine, broker, seal, finished)
    outbox.start()
    return outbox, broker, seal


def release(number: int) -> tuple[int, Outgoing]:
    return number, Outgoing(QUEUE, b"body %d" % number, {"id": f"d{number}", "entry": str(number)})


def bodies(broker: EmbeddedBroker) -> list[bytes]:
    return [d.body for d in broker.receive(QUEUE, 10_000)]


def test_what_is_at_hand_is_not_read_back(engine: sa.Engine) -> None:
    outbox, broker, seal = made(engine)
    with engine.begin() as connection:
        outbox.enqueue(connection, [release(n) for n in (3, 5)])
    outbox.committed([(*release(n), b"entry %d" % n) for n in (3, 5)])

    assert outbox.relay(below=9) == 2
    assert seal.opened == 0
    assert bodies(broker) == [b"3:body 3:entry 3", b"5:body 5:entry 5"]
    assert outbox.relay(below=9) == 0


def test_what_others_committed_leaves_in_order_with_what_is_at_hand(engine: sa.Engine) -> None:
    outbox, broker, seal = made(engine)
    with engine.begin() as connection:
        outbox.enqueue(connection, [release(n) for n in range(1, 6)])
    outbox.committed([(*release(n), b"e") for n in (2, 4)])

    assert outbox.relay(below=5) == 4
    assert [b.split(b":")[0] for b in bodies(broker)] == [b"1", b"2", b"3", b"4"]
    assert seal.opened >= 2
    assert outbox.relay(below=6) == 1


def test_what_was_rolled_back_does_not_leave_though_it_is_at_hand(engine: sa.Engine) -> None:
    """Nobody should say so before the commit; if somebody does, the database still decides."""
    outbox, broker, _ = made(engine)
    outbox.committed([(*release(1), b"never committed")])

    assert outbox.relay(below=9) == 0
    assert bodies(broker) == []


def test_what_could_not_be_published_is_published_later(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, broker, seal = made(engine)
    with engine.begin() as connection:
        outbox.enqueue(connection, [release(n) for n in (1, 2)])
    outbox.committed([(*release(n), b"e") for n in (1, 2)])
    with monkeypatch.context() as away:
        away.setattr(broker, "publish", lambda _: (_ for _ in ()).throw(Unconfirmed("away")))
        with pytest.raises(Unconfirmed):
            outbox.relay(below=9)

    assert outbox.relay(below=9) == 2
    assert bodies(broker) == [b"1:body 1:", b"2:body 2:"]  # read back: the entry is read by whoever proves
    assert seal.opened == 2


def test_at_hand_is_bounded(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_HAND", 10)
    outbox, broker, seal = made(engine)
    with engine.begin() as connection:
        outbox.enqueue(connection, [release(n) for n in range(30)])
    outbox.committed([(*release(n), b"e") for n in range(30)])

    assert outbox.relay(below=30) == 30
    assert seal.opened == 20
    assert len(bodies(broker)) == 30
