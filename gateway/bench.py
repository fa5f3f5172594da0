"""The hub's speed: unit costs and end to end, each beside what a prototype reached on the same kind of
machine.

Absolute times say little on a shared machine; what is compared is measured in the same run, the median of
several repetitions.
"""

import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from adapters.adapter import Native
from consent.ledger import Written
from consent.minimise import minimise
from consent.placing import Placed
from consent.policy import Decision, Outcome, Question, decide
from gateway.hub import Hub, open_hub
from gateway.record import Recorder, Release
from gateway.sandbox.day import five_f
from gateway.sandbox.population import Incident, stream
from gateway.settings import Settings
from schemas.canonical import canonical_trusted
from schemas.catalogue import holdings
from schemas.errors import HubError
from schemas.message import Message

_NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement: the median in *unit*, and the *prototype*'s figure for the same work (None: it had
    none).
    """

    name: str
    value: float
    unit: str
    prototype: float | None = None
    repetitions: int = 5


class _Nowhere:
    """A transport that takes everything at once: what is measured is the hub, not a disk full of files."""

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:  # noqa: ARG002
        return [None] * len(deliveries)


def bench(*, quick: bool, show_progress: bool) -> dict[str, Any]:
    """Measures on the embedded default; returns machine, figures and how much was done. *quick* takes
    seconds.
    """
    episodes = 400 if quick else 4000
    natives = [five_f(i.family, i.episode) for i in _incidents(episodes * 5)]
    figures: list[Figure] = []
    with Progress(disable=not show_progress) as progress:
        task = progress.add_task("measuring", total=8)
        with tempfile.TemporaryDirectory() as folder, _hub(Path(folder)) as hub:
            figures += _units(hub, natives[:200])
            progress.advance(task, 3)
        rates: dict[str, list[float]] = {"accept": [], "carry": [], "disclosures": [], "deliver": []}
        for n in range(5):
            with tempfile.TemporaryDirectory() as folder, _hub(Path(folder)) as hub:
                _end_to_end(hub, natives[n * episodes : (n + 1) * episodes], rates)
            progress.advance(task)
    figures += [
        Figure("accept: native in, validated, durable", statistics.median(rates["accept"]), "episodes/s"),
        Figure(
            "carry: decided, logged, signed, published", statistics.median(rates["carry"]), "episodes/s", 3450
        ),
        Figure("carry: disclosures", statistics.median(rates["disclosures"]), "disclosures/s", 20500),
        Figure("deliver: written, sent, outcome logged", statistics.median(rates["deliver"]), "deliveries/s"),
    ]
    return {
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "engine": "embedded",
        "episodes": episodes,
        "figures": [
            {
                "name": f.name,
                "value": round(f.value, 2),
                "unit": f.unit,
                "prototype": f.prototype,
                "repetitions": f.repetitions,
            }
            for f in figures
        ],
    }


def print_bench(figures: dict[str, Any], out: Console) -> None:
    """Prints what `bench` measured as a table."""
    machine = figures["machine"]
    out.print(f"{machine['cores']} cores, Python {machine['python']}, engine {figures['engine']}; medians")
    table = Table()
    for heading in ("what", "here", "unit", "prototype"):
        table.add_column(heading, justify="right" if heading in ("here", "prototype") else "left")
    for figure in figures["figures"]:
        beside = f"{figure['prototype']:,}" if figure["prototype"] is not None else ""
        table.add_row(figure["name"], f"{figure['value']:,}", figure["unit"], beside)
    out.print(table)


def _incidents(count: int) -> list[Incident]:
    return list(stream(11, count, days=max(1, min(365, count // 100))))


@contextmanager
def _hub(folder: Path) -> Iterator[Hub]:
    with open_hub(Settings(data=folder), clock=lambda: _NOW, transport=_Nowhere()) as hub:
        yield hub


def _end_to_end(hub: Hub, natives: Sequence[Native], rates: dict[str, list[float]]) -> None:
    started = perf_counter()
    for start in range(0, len(natives), 100):
        hub.exchange.accept("police", natives[start : start + 100])
    rates["accept"].append(len(natives) / (perf_counter() - started))
    started = perf_counter()
    while hub.exchange.carry():
        pass
    seconds = perf_counter() - started
    waiting = {p: hub.broker.depth(f"deliver.{p}") for p in hub.agreements.parties}
    rates["carry"].append(len(natives) / seconds)
    rates["disclosures"].append(sum(waiting.values()) / seconds)
    started = perf_counter()
    for party in hub.agreements.parties:
        while hub.exchange.deliver(party):
            pass
    rates["deliver"].append(sum(waiting.values()) / (perf_counter() - started))


def _units(hub: Hub, natives: Sequence[Native]) -> Iterator[Figure]:
    """The cost of each step alone, for an average episode."""
    submissions = [m for native in natives for m in hub.exchange.read("police", native).messages]
    events = [m.to_json() for m in submissions]
    yield Figure("validate", _each(events, lambda e: hub.catalogue.validate(e, _NOW)), "µs", 4)
    prepared = [_prepare(hub, m) for m in submissions]
    recipients = [p for p in hub.agreements.parties.values() if p.id != "police"][:6]
    asked = [(q, r) for q, *_ in prepared for r in recipients]
    yield Figure(
        "decide, with reasons, a recipient", _each(asked, lambda a: decide(hub.agreements, *a)), "µs", 0.3
    )
    given = [
        (message, placed, q, decision, r)
        for q, message, placed in prepared
        for r in recipients
        if (decision := decide(hub.agreements, q, r)).outcome in (Outcome.PERMIT, Outcome.REDUCED)
    ]
    yield Figure("minimise a disclosure", _each(given, _minimised(hub)), "µs", 2.5)
    made: list[Written] = []
    yield Figure("write a ledger entry", _each(given, lambda g: made.append(_entry(hub, *g))), "µs")
    rows = [replace(e, message=f"{e.message}{n}") for n, e in enumerate(made)]
    yield Figure("append to ledger (committed, 200 a batch)", _appended(hub, rows), "µs")


def _prepare(hub: Hub, message: Message) -> tuple[Question, Message, Placed]:
    kind = hub.catalogue[message.type]
    with hub.engine.begin() as connection:
        refs, placed = hub.exchange.place_one(connection, message, kind)
    _, held = holdings(kind.shape, placed.data)
    facets = {ref: frozenset(f) for ref, f in held.items()}
    question = Question(
        message.type,
        kind.purpose,
        kind.audience,
        message.source,
        placed.roles,
        refs,
        facets,
        placed.cases,
        _NOW,
    )
    return question, message, placed


def _minimised(hub: Hub) -> Callable[[tuple[Any, ...]], Any]:
    def run(given: tuple[Message, Placed, Question, Decision, Any]) -> Any:
        message, placed, _, decision, _ = given
        return minimise(hub.catalogue[message.type].shape, placed.data, decision, placed.roles, {})

    return run


def _entry(
    hub: Hub, message: Message, placed: Placed, question: Question, decision: Decision, _recipient: Any
) -> Written:
    release = Release("0", canonical_trusted(placed.data), bytes(32))
    keys = dict.fromkeys(question.pseudonyms.values(), bytes(32))
    at = "2026-11-22T03:00:00.000Z"
    recorder = Recorder(hub.keys.salt, message, placed, question.pseudonyms, keys, hub.agreements, at)
    return recorder.entry(decision, release)


def _appended(hub: Hub, entries: Sequence[Written]) -> float:
    started = perf_counter()
    for start in range(0, len(entries), 200):
        with hub.engine.begin() as connection:
            hub.ledger.append(connection, entries[start : start + 200])
    return (perf_counter() - started) / max(1, len(entries)) * 1e6


def _each(items: Sequence[Any], work: Callable[[Any], Any], repetitions: int = 5) -> float:
    """Median microseconds an item, over *repetitions* passes, after one that warms up."""
    passes = []
    for n in range(repetitions + 1):
        started = perf_counter()
        for item in items:
            work(item)
        if n:
            passes.append((perf_counter() - started) / max(1, len(items)) * 1e6)
    return statistics.median(passes)
