"""The exchange end to end, in turns with the relays and with itself without a ledger."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from time import perf_counter
from types import MappingProxyType

import sqlalchemy as sa

from adapters.adapter import Native
from broker.broker import Outgoing
from broker.rabbitmq import RabbitBroker
from consent.ledger import Checkpoint, Entry, Ledger, Written
from gateway.bench import relays
from gateway.bench.figures import Side, median
from gateway.bench.load import accepted, carried, embedded_hub, submissions, waiting
from gateway.bench.run import Run
from gateway.hub import Hub

NO_SERVERS = "needs RabbitMQ and PostgreSQL, which --quick does without"
NO_FASTSTREAM = "FastStream is not installed; make bench installs it, or: pip install 'faststream[rabbit]'"


class WithoutLedger(Ledger):
    """A ledger that keeps nothing: it gives out numbers and says that they are signed. What an entry says is
    put together all the same, in the exchange.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.__dict__.update(ledger.__dict__)
        self._numbers = 0

    def append(self, connection: sa.Connection, entries: Sequence[Entry | Written]) -> range:  # noqa: ARG002
        """Numbers for *entries*."""
        first, self._numbers = self._numbers, self._numbers + len(entries)
        return range(first, self._numbers)

    def sign(self) -> Checkpoint:
        """A checkpoint of everything, signed by nobody."""
        return Checkpoint(self.origin, self._numbers, b"")

    def tlog_proofs(
        self,
        indices: Sequence[int],
        size: int | None = None,  # noqa: ARG002
        entries: Mapping[int, bytes] = MappingProxyType({}),  # noqa: ARG002
    ) -> list[str]:
        """No proofs: what leaves under them would not be delivered."""
        return [""] * len(indices)


@dataclass(slots=True)
class _Rates:
    """Inputs a second of each repetition, by what was measured; and *each* what came of one input."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    disclosures: int = 0
    decisions: int = 0
    inputs: int = 0

    def add(self, what: str, count: int, seconds: float) -> None:
        self.rates.setdefault(what, []).append(count / seconds)

    def of(self, what: str) -> float:
        return median(self.rates[what])


def measure(run: Run) -> None:
    """R1, R2, R3 and R5: as many episodes carried as relayed, in turns."""
    rates = _Rates()
    with ExitStack() as stack:
        hubs: dict[str, Hub] = {}
        if run.wanted & {"R2", "R5"} or run.servers is None:
            hubs["embedded"] = stack.enter_context(embedded_hub(stack.enter_context(run.own_folder())))
        if run.servers is not None and run.wanted & {"R1", "R3", "R5"}:
            hubs["real"] = stack.enter_context(run.servers.hub(stack.enter_context(run.own_folder())))
        if "R5" in run.wanted:
            folder = stack.enter_context(run.own_folder())
            hubs["without"] = stack.enter_context(
                run.servers.hub(folder, WithoutLedger)
                if run.servers is not None
                else embedded_hub(folder, WithoutLedger)
            )
        relay = _relay(run, stack, hubs)
        for n, natives in enumerate(run.parts(), 1):
            for what, hub in hubs.items():
                run.step(f"episodes through the {what} exchange, {n} of {run.size.repetitions}")
                _through(what, hub, natives, rates)
            relay(n, natives, rates)
        # At the end: whoever delivers has the releases pushed to it, and this process would take them in
        # while it carries. Outside, adapters are processes of their own; and the relay consumes nothing.
        for what, hub in hubs.items():
            if what != "without":
                run.step(f"deliveries of the {what} exchange")
                _delivered(what, hub, rates, run.size.repetitions)
    _tell(run, rates)


def _through(what: str, hub: Hub, natives: Sequence[Native], rates: _Rates) -> None:
    count = len(natives)
    rates.add(f"{what} accept", count, accepted(hub, natives))
    size, queued = hub.ledger.head().size, waiting(hub)
    rates.add(what, count, carried(hub))
    if what != "without":
        rates.decisions += hub.ledger.head().size - size
        rates.disclosures += waiting(hub) - queued
        rates.inputs += count


def _delivered(what: str, hub: Hub, rates: _Rates, repetitions: int) -> None:
    """Delivers what waits, a party after the other, and counts as often as there were repetitions."""
    part = -(-waiting(hub) // repetitions)
    moved, started = 0, perf_counter()
    for party in sorted(hub.agreements.parties):
        while count := hub.exchange.deliver(party):
            moved += count
            if moved >= part:
                rates.add(f"{what} deliver", moved, perf_counter() - started)
                moved, started = 0, perf_counter()


def _relay(
    run: Run, stack: ExitStack, hubs: dict[str, Hub]
) -> Callable[[int, Sequence[Native], _Rates], None]:
    """Runs the relays of one repetition."""
    if run.servers is None or not run.wanted & {"R1", "R2", "R3"}:
        return lambda *_: None
    folder = stack.enter_context(run.own_folder())
    hub = hubs.get("real") or stack.enter_context(run.servers.hub(folder))
    url = hub.settings.broker_url
    stack.enter_context(relays.queues(url))
    broker = stack.enter_context(closing(RabbitBroker(url)))

    def relay(n: int, natives: Sequence[Native], rates: _Rates) -> None:
        bodies = submissions(hub, natives)
        leaving = relays.typical(bodies)

        def fill() -> None:
            broker.publish([Outgoing(relays.SOURCE, body, {}) for body in bodies])

        if run.wanted & {"R1", "R2"}:
            run.step(f"the bare pika relay, {n} of {run.size.repetitions}")
            rates.add("pika", len(bodies), relays.pika_relay(url, leaving, len(bodies), fill))
            relays.empty(url)
        if "R3" in run.wanted:
            run.step(f"the FastStream relay, {n} of {run.size.repetitions}")
            part = bodies[: max(1, len(bodies) // 3)]  # it is slow, and no faster with more
            broker.publish([Outgoing(relays.SOURCE, body, {}) for body in part])
            with suppress(ImportError):  # `_tell` says so
                rates.add("FastStream", len(part), relays.faststream_relay(url, leaving, len(part)))
            relays.empty(url)

    return relay


_NAMES = {
    "embedded": "embedded exchange",
    "real": "exchange on RabbitMQ and PostgreSQL",
    "without": "exchange without ledger",
    "pika": "bare pika relay",
    "FastStream": "FastStream relay",
}


def _tell(run: Run, rates: _Rates) -> None:
    found, n = run.findings, run.size.repetitions

    def ratio(name: str, ours: str, beside: str, why: str) -> None:
        if name not in run.wanted:
            return
        if ours not in rates.rates or beside not in rates.rates:
            found.missing(name, why)
            return
        sides = [Side(_NAMES[what], rates.of(what), "inputs/s") for what in (ours, beside)]
        found.ratio(name, rates.of(ours) / rates.of(beside), sides[0], sides[1], n)

    ratio("R1", "real", "pika", NO_SERVERS)
    ratio("R2", "embedded", "pika", NO_SERVERS)
    ratio("R3", "real", "FastStream", NO_SERVERS if run.servers is None else NO_FASTSTREAM)
    ratio("R5", "real" if run.servers is not None else "embedded", "without", "")
    for what in ("real", "embedded"):
        if what in rates.rates:
            name = _NAMES[what]
            found.figure("journey", f"{name}: accepted", rates.of(f"{what} accept"), "episodes/s", n)
            found.figure("journey", f"{name}: carried", rates.of(what), "episodes/s", n)
            each = rates.disclosures / rates.inputs
            found.figure("journey", f"{name}: disclosures", rates.of(what) * each, "disclosures/s", n)
            if f"{what} deliver" in rates.rates:
                found.figure("journey", f"{name}: delivered", rates.of(f"{what} deliver"), "disclosures/s", n)
    if rates.inputs:
        found.figure("journey", "decisions of an episode", rates.decisions / rates.inputs, "decisions")
        found.figure("journey", "disclosures of an episode", rates.disclosures / rates.inputs, "disclosures")
