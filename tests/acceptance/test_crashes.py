"""Nothing is lost, nothing has two effects, and nothing leaves without a committed entry, whichever durable
write fails and whether or not it was kept."""

import contextlib
import copy
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from adapters.adapter import Native
from adapters.registry import adapter_of
from broker.broker import SUBMISSIONS, Delivery, Outgoing
from broker.embedded import queue_message
from broker.retry import DELIVERY_LIMIT
from broker.suspects import suspect
from gateway.exchange import Exchange
from gateway.hub import Hub, open_hub
from gateway.settings import Settings
from schemas.errors import HubError, NotFound, Unconfirmed
from schemas.message import CONTENT_TYPE, Message
from tests.acceptance.check import Disk, Key, releases, settled, stuck, unpublished
from tests.acceptance.faults import ANY, SEND, Crash, Fault, Faults, Recipients, folder_in_memory
from tests.format_examples import NOW
from tests.serving import episode, own_message

# What stays set aside in the end: no operator can mend it.
HOPELESS = {("accept", "invalid-message"), ("accept", "identity-reused"), (SUBMISSIONS, "identity-reused")}
WAITING = (SUBMISSIONS, "case-unknown")  # for an episode that its sender has not sent yet
REFUSING, AWAY = "health", "fss"
T = TypeVar("T")


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as made:
        yield made


def police(number: int) -> Native:
    """An episode; each *number* is another family."""
    record = copy.deepcopy(episode())
    record["eventNumber"] = f"P06623456{number}"
    for person in record["persons"]:
        if "personRecordId" in person:
            person["personRecordId"] = f"PR10000{number}{person['line']}"
        if "name" in person:
            person["name"]["surname"] += "abcdefgh"[number]
            person.pop("aliases", None)
    return Native(json.dumps(record).encode(), "application/json", f"{number}.json")


def custody(number: int, event: str = "bailed") -> Native:
    """A change of custody of the perpetrator of episode *number*."""
    message = own_message("corrections", f"custody of {number}")
    message["data"]["custody"]["event"] = event
    name = {"given": "Rāwiri", "family": "Example" + "abcdefgh"[number]}
    message["data"]["people"][0] |= {"name": name, "birthDate": "1991-02-03"}
    return Native(json.dumps(message).encode(), CONTENT_TYPE)


UNREADABLE = Native(b'{"form": "5F"', "application/json", "cut.json")
FIRST: tuple[tuple[str, list[Native]], ...] = (
    ("police", [police(0), UNREADABLE, police(1), police(0)]),
    ("corrections", [custody(0), custody(1), custody(0, "escaped"), custody(2), custody(1)]),
)
SECOND: tuple[tuple[str, list[Native]], ...] = (("police", [police(2), police(1)]),)


class World:
    """The agencies and an operator around a hub that may fail; *told* is what they were told is accepted."""

    def __init__(self, folder: Path, make: type[Exchange] = Exchange) -> None:
        self.folder, self._make = folder, make
        self.told: set[Key] = set()
        self.wrong: list[str] = []  # found while the hub went on
        self.time = NOW.astimezone(UTC)
        self.faults = Faults()
        self.recipients = Recipients(folder / "agencies", self.faults)

    def clock(self) -> datetime:
        return self.time

    @contextmanager
    def hub(self, *faults: Fault) -> Iterator[Hub]:
        """The hub as its processes start it. *faults* apply from then on."""
        self.faults = Faults(faults)
        self.recipients = Recipients(self.folder / "agencies", self.faults)
        with open_hub(Settings(data=self.folder), clock=self.clock, transport=self.recipients) as hub:
            exchange = self._make(
                hub.engine,
                hub.broker,
                hub.ledger,
                hub.catalogue,
                hub.register,
                hub.keys,
                adapter_of,
                self.recipients,
                hub.telemetry,
                self.clock,
            )
            exchange.publish()
            self.faults.wrap(hub.engine)
            yield dataclasses.replace(hub, exchange=exchange)

    def play(self, crash: Fault, after_crash: bool) -> None:
        """A day that ends at *crash*; *after_crash* the recovery comes first."""
        with self.hub(crash) as hub:
            if after_crash:
                self.mend(hub, finish)
            self.day(hub, finish)

    def day(self, hub: Hub, settle: Callable[[Hub], object]) -> None:
        """What the agencies send, with one recipient that refuses and one that is away; then both are
        mended and the operator sends again what was set aside."""
        self.recipients.refusing, self.recipients.away = {REFUSING}, {AWAY}
        self.submit(hub, FIRST)
        settle(hub)
        self.submit(hub, SECOND)
        settle(hub)
        self.mend(hub, settle)

    def submit(self, hub: Hub, batches: Sequence[tuple[str, list[Native]]]) -> None:
        """Every agency sends its batch, and again when it got no answer."""
        for party, natives in batches:
            receipts = self.insist(hub.exchange.accept, party, natives)
            self.told.update((party, name) for receipt in receipts for name in receipt.accepted)

    def mend(self, hub: Hub, settle: Callable[[Hub], object]) -> None:
        """The recipients come back, time passes, and every dead letter is sent again."""
        self.recipients.refusing, self.recipients.away = set(), set()
        self.time += timedelta(minutes=10)
        settle(hub)
        for letter in hub.broker.dead_letters():
            with contextlib.suppress(NotFound):  # an earlier try took it, and could not say so
                self.insist(hub.exchange.send_again, letter.number)
        settle(hub)

    def loops(self, hub: Hub) -> None:
        """What the hub's processes do while they run: carry and deliver, and try again after an error."""
        moved = True
        while moved:
            moved = self.insist(hub.exchange.carry) > 0
            for party in sorted(hub.agreements.parties):
                moved |= self.insist(hub.exchange.deliver, party) > 0
        self.wrong += [f"on the way: {w}" for w in unpublished(Disk.read(self.folder))]

    def insist(self, step: Callable[..., T], *arguments: Any) -> T:
        """What *step* returns, tried again until it does."""
        for _ in range(sum(fault.times for fault in self.faults.faults)):
            try:
                return step(*arguments)
            except (Unconfirmed, sa.exc.OperationalError, ConnectionError):
                continue
        return step(*arguments)


def finish(hub: Hub) -> None:
    """What a restarted hub does first."""
    hub.exchange.finish()


def crash_and_recover(folder: Path, *crashes: Fault, make: type[Exchange] = Exchange) -> list[str]:
    """What is wrong after days that ended at *crashes*, one after the other: at once, after the restart, and
    after everybody has sent everything again."""
    world = World(folder, make)
    wrong = []
    for number, crash in enumerate(crashes):
        with pytest.raises(Crash):
            world.play(crash, after_crash=number > 0)
        wrong += [f"at once: {w}" for w in releases(Disk.read(folder))]
    with world.hub() as hub:
        world.mend(hub, finish)
        wrong += [f"restarted: {w}" for w in settled(hub, world.told, HOPELESS | {WAITING})]
        world.day(hub, finish)
        wrong += [f"repeated: {w}" for w in settled(hub, world.told, HOPELESS)]
    return wrong


def fail_and_go_on(folder: Path, *faults: Fault, make: type[Exchange] = Exchange) -> list[str]:
    """What is wrong after a day during which the writes of *faults* failed and the process went on."""
    world = World(folder, make)
    with world.hub(*faults) as hub:
        world.day(hub, world.loops)
        assert world.faults.all_struck
        wrong = world.wrong + [f"idle: {w}" for w in stuck(Disk.read(folder))]
        finish(hub)
        wrong += [f"finished: {w}" for w in settled(hub, world.told, HOPELESS)]
        world.day(hub, finish)
        wrong += [f"repeated: {w}" for w in settled(hub, world.told, HOPELESS)]
    return wrong


def test_the_day_meets_every_durable_write_and_ends_well_when_nothing_fails(folder: Path) -> None:
    assert fail_and_go_on(folder) == []
    world = World(folder)
    with world.hub() as hub:
        world.day(hub, finish)
        assert {point for point, _ in (w.values for w in WRITES)} >= set(world.faults.writes)


# Every durable write of the journey, in its order. The number is which of its kind: the same step is taken
# by submissions and by deliveries, when something is sent again, and once more in the end.
WRITES = [
    pytest.param("quarantine", 1, id="accept: quarantine"),
    pytest.param("publish submissions", 1, id="accept: publish"),
    pytest.param("receive", 1, id="carry: mark the first as handed out"),
    pytest.param("receive", 2, id="carry: mark the rest as handed out"),
    pytest.param("decisions", 1, id="carry: entries, cases, inbox and outbox"),
    pytest.param("checkpoint", 1, id="carry: sign"),
    pytest.param("publish deliveries", 1, id="carry: publish from the outbox"),
    pytest.param("publish deliveries", 2, id="carry: publish, with nothing to bury"),
    pytest.param("watermark", 1, id="carry: raise the watermark"),
    pytest.param("bury", 1, id="carry: bury"),
    pytest.param("ack", 1, id="carry: ack"),
    pytest.param("send", 1, id="deliver: send"),
    pytest.param("outcomes", 1, id="deliver: outcomes"),
    pytest.param("ack", 2, id="deliver: ack"),
    pytest.param("requeue", 1, id="deliver: requeue for an absent recipient"),
    pytest.param("outcomes", 2, id="deliver: outcome of a refusal"),
    pytest.param("bury", 2, id="deliver: bury what was refused"),
    pytest.param("quarantine", 2, id="send again: quarantine anew"),
    pytest.param("publish submissions", 5, id="send again: publish a submission"),
    pytest.param("publish deliveries", 3, id="send again: publish a delivery"),
    pytest.param("take dead letter", 1, id="send again: take a native dead letter"),
    pytest.param("take dead letter", 3, id="send again: take a dead letter"),
]
KEPT = pytest.mark.parametrize("kept", [pytest.param(False, id="lost"), pytest.param(True, id="kept")])


@pytest.mark.parametrize(("point", "nth"), WRITES)
@KEPT
def test_nothing_is_lost_or_done_twice_when_the_process_ends_at_a_write(
    folder: Path, point: str, nth: int, kept: bool
) -> None:
    assert crash_and_recover(folder, Fault(point, kept, nth=nth)) == []


@pytest.mark.parametrize(("point", "nth"), WRITES)
@KEPT
def test_nothing_is_lost_or_done_twice_when_a_write_fails_and_the_process_goes_on(
    folder: Path, point: str, nth: int, kept: bool
) -> None:
    assert fail_and_go_on(folder, Fault(point, kept, ends=False, nth=nth)) == []


@pytest.mark.parametrize("point", ["decisions", "checkpoint", "publish deliveries", "ack", SEND, "outcomes"])
@KEPT
def test_nothing_is_stuck_when_it_could_not_even_be_given_back(folder: Path, point: str, kept: bool) -> None:
    faults = Fault(point, ends=False), Fault("requeue", kept, ends=False)
    assert fail_and_go_on(folder, *faults) == []


def test_nothing_is_set_aside_when_the_database_fails_for_long(folder: Path) -> None:
    assert fail_and_go_on(folder, Fault("decisions", ends=False, times=30)) == []


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_or_done_twice_when_the_recovery_from_a_crash_crashes(
    folder: Path, seed: int
) -> None:
    # The first day has some ninety writes, the recovery with the day after it as many.
    dice = Random(seed)
    crashes = [Fault(ANY, dice.random() < 0.5, nth=dice.randint(1, last)) for last in (80, 30)]
    assert crash_and_recover(folder, *crashes) == []


class _AcksFirst(Exchange):
    """Acknowledges a batch before its decisions are committed."""

    def _carry(self, deliveries: list[Delivery], *, beside: bool = False) -> None:
        self._broker.ack(deliveries)
        super()._carry(deliveries, beside=beside)


class _Rehearsed(Exception):
    """The decisions are known, and nothing is committed."""


class _Rehearsal:
    """An outbox that publishes at once and lets nothing be committed."""

    def __init__(self) -> None:
        self.releases: list[Outgoing] = []

    def enqueue(self, _: sa.Connection, releases: Sequence[tuple[int, Outgoing]]) -> None:
        self.releases = [outgoing for _, outgoing in releases]
        raise _Rehearsed


class _PublishesFirst(Exchange):
    """Publishes a batch's releases before their entries are committed."""

    def _commit(self, deliveries: Sequence[Delivery]) -> Any:
        outbox, rehearsal = self.outbox, _Rehearsal()
        self.outbox = rehearsal  # type: ignore[assignment]  # stands in for one call
        with contextlib.suppress(_Rehearsed):
            super()._commit(deliveries)
        self.outbox = outbox
        self._broker.publish(rehearsal.releases)
        return super()._commit(deliveries)


class _Promise:
    """A transport that says it has sent, and remembers what."""

    def __init__(self) -> None:
        self.promised: list[tuple[str, Native]] = []

    def send(self, _: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        self.promised += deliveries
        return [None for _ in deliveries]


class _RecordsFirst(Exchange):
    """Records the outcome of deliveries, and acknowledges them, before it sends them."""

    def _deliver(self, party: str, deliveries: Sequence[Delivery]) -> int:
        transport, promise = self._transport, _Promise()
        self._transport = promise
        try:
            count = super()._deliver(party, deliveries)
        finally:
            self._transport = transport
        self._transport.send(party, promise.promised)
        return count


@pytest.mark.parametrize(
    ("broken", "point", "finding"),
    [
        pytest.param(_AcksFirst, "decisions", "restarted: 5 accepted submissions are lost", id="ack first"),
        pytest.param(_PublishesFirst, "decisions", "at once: .* has no entry", id="publish first"),
        pytest.param(_RecordsFirst, SEND, "restarted: .* lies there as 0 files", id="record first"),
    ],
)
def test_the_check_finds_it_when_the_order_of_the_journey_is_broken(
    folder: Path, broken: type[Exchange], point: str, finding: str
) -> None:
    wrong = crash_and_recover(folder, Fault(point), make=broken)
    assert any(re.match(finding, sentence) for sentence in wrong), wrong


class _Poisoned(Exchange):
    """Ends with its process over messages about *poison*."""

    poison: set[str]

    def _with(self, message: Message) -> None:
        if message.data["people"][0]["name"]["family"] in self.poison:
            assert isinstance(self._transport, Recipients)
            self._transport.faults.dead = True
            raise Crash

    def _commit(self, deliveries: Sequence[Delivery]) -> Any:
        for delivery in deliveries:
            self._with(Message.from_json(json.loads(delivery.body)))
        return super()._commit(deliveries)


SHARED = DELIVERY_LIMIT - 1  # lives that a killer takes before it is carried alone


@pytest.mark.parametrize("poison", ["a", "b", "d", "bd"], ids=lambda p: f"poison at {p}")
def test_only_what_ends_processes_alone_is_set_aside(folder: Path, poison: str) -> None:
    """Each killer takes its own lives: those of another one, or of both together, are not counted."""

    world = World(folder, make=type("Ending", (_Poisoned,), {"poison": {f"Example{p}" for p in poison}}))
    with world.hub() as hub:
        world.submit(hub, [("police", [police(n) for n in range(4)])])
    for _ in range(SHARED + DELIVERY_LIMIT * len(poison)):
        with pytest.raises(Crash), world.hub() as hub:
            finish(hub)
    with world.hub() as hub:
        finish(hub)
        assert settled(hub, world.told, {(SUBMISSIONS, "exhausted")}) == []
        assert len(Disk.read(folder).letters) == len(poison)
        assert suspects(hub) == []


def suspects(hub: Hub) -> list[int]:
    """The counts of all suspects."""
    with hub.engine.connect() as connection:
        return list(connection.execute(sa.select(suspect.c.tries)).scalars())


def suspected(hub: Hub, attempts: int = 10 * DELIVERY_LIMIT) -> None:
    """Has the broker count *attempts* for everything that waits."""
    with hub.engine.begin() as connection:
        connection.execute(
            sa.update(queue_message).where(queue_message.c.queue == SUBMISSIONS).values(attempts=attempts)
        )


def test_nothing_is_set_aside_for_deaths_that_it_only_waited_through(folder: Path) -> None:
    world = World(folder)
    with world.hub() as hub:
        world.submit(hub, [("police", [police(n) for n in range(8)])])
        suspected(hub)
    with world.hub() as hub:
        finish(hub)
        assert settled(hub, world.told, set()) == []
        assert suspects(hub) == []


@pytest.mark.parametrize(("kept", "counts"), [(False, []), (True, [1])], ids=["lost", "kept"])
def test_process_that_ends_at_the_count_leaves_one_try_at_most(
    folder: Path, kept: bool, counts: list[int]
) -> None:
    world = World(folder)
    with world.hub() as hub:
        world.submit(hub, [("police", [police(0), police(1)])])
        suspected(hub)
    with pytest.raises(Crash), world.hub(Fault("count", kept)) as hub:
        finish(hub)
    with world.hub() as hub:
        assert suspects(hub) == counts
        finish(hub)
        assert settled(hub, world.told, set()) == []
        assert suspects(hub) == []


@pytest.mark.parametrize("point", ["count", "decisions", "checkpoint", "publish deliveries", "ack"])
@KEPT
def test_failures_that_a_process_outlives_count_against_nobody(folder: Path, point: str, kept: bool) -> None:
    """As often as the hub is stopped and started again meanwhile."""
    world = World(folder)
    with world.hub() as hub:
        world.submit(hub, [("police", [police(0), police(1)])])
    for _ in range(2 * DELIVERY_LIMIT):
        with world.hub(Fault(point, kept, ends=False, times=2)) as hub:
            suspected(hub)
            for _ in range(2):
                with contextlib.suppress(Unconfirmed, sa.exc.OperationalError):
                    hub.exchange.carry()
            world.submit(hub, [("police", [police(2), police(3)])])
    with world.hub() as hub:
        finish(hub)
        assert settled(hub, world.told, set()) == []
        assert suspects(hub) == []


class _Refused(Exchange):
    """Has a database that never takes one message."""

    def _commit(self, deliveries: Sequence[Delivery]) -> Any:
        if any(b"Exampleb" in delivery.body for delivery in deliveries):
            raise sa.exc.DataError("INSERT", {}, ValueError())
        return super()._commit(deliveries)


def test_what_the_database_never_takes_holds_up_nobody_for_ever(folder: Path) -> None:
    world = World(folder, make=_Refused)
    with world.hub() as hub:
        world.submit(hub, [("police", [police(n) for n in range(4)])])
        failures = 0
        while hub.broker.depth(SUBMISSIONS):
            try:
                hub.exchange.carry()
            except sa.exc.DataError:
                failures += 1
            assert failures < 100
        finish(hub)
        assert settled(hub, world.told, {(SUBMISSIONS, "exhausted")}) == []
        assert len(Disk.read(folder).letters) == 1
        assert suspects(hub) == []


class _Failing(Exchange):
    """Fails on one message in a way that nobody foresaw."""

    def _commit(self, deliveries: Sequence[Delivery]) -> Any:
        if any(b"Exampleb" in delivery.body for delivery in deliveries):
            raise KeyError
        return super()._commit(deliveries)


def test_suspect_that_is_set_aside_for_another_reason_is_forgotten(folder: Path) -> None:
    world = World(folder, make=_Failing)
    with world.hub() as hub:
        world.submit(hub, [("police", [police(0), police(1)])])
        suspected(hub)
    with world.hub() as hub:
        finish(hub)
        assert settled(hub, world.told, {(SUBMISSIONS, "hub-error")}) == []
        assert suspects(hub) == []
