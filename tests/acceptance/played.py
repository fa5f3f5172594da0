"""What a played day leaves, and the same submissions given to another hub: with other agreements, or with a
guard taken out."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

from adapters.adapter import Native
from broker.broker import Broker, Outgoing
from consent.agreement import Agreements
from gateway.hub import Hub, agreements_folder, open_hub
from gateway.settings import Settings
from schemas.errors import HubError
from tests.acceptance.leaks import Invented, Received, received_files


class Step(NamedTuple):
    """What happened at the door: *natives* of *party* were taken as messages *ids*; without a party, the hub
    carried and delivered."""

    at: datetime
    party: str = ""
    natives: Sequence[Native] = ()
    ids: Sequence[Sequence[str]] = ()


@dataclass
class Played:
    """A played day in *folder*."""

    folder: Path
    report: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    metrics: str = ""

    @cached_property
    def invented(self) -> Invented:
        return Invented.load(self.folder)

    @cached_property
    def agreements(self) -> Agreements:
        return Agreements.load(agreements_folder(Settings()))

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The ledger, in order."""
        return ledger_of(self.folder)

    @cached_property
    def received(self) -> list[Received]:
        return received_files(self.folder)


def ledger_of(folder: Path) -> list[dict[str, Any]]:
    """The entries of the ledger in *folder*, in order."""
    connection = sqlite3.connect(folder / "hub.db")
    try:
        rows = connection.execute("SELECT entry FROM ledger_entry ORDER BY idx").fetchall()
    finally:
        connection.close()
    return [json.loads(row[0]) for row in rows]


def disclosures(entries: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The entries that disclose, by the id of the disclosure."""
    return {e["disclosure"]: e for e in entries if e["kind"] == "disclosure"}


def recording(hub: Hub, into: list[Step]) -> None:
    """Notes everything that *hub* is given from now on."""
    exchange = hub.exchange
    accept, finish = exchange.accept, exchange.finish

    def noted_accept(party: str, natives: Sequence[Native]) -> Any:
        receipts = accept(party, natives)
        into.append(Step(hub.clock(), party, list(natives), [list(r.accepted) for r in receipts]))
        return receipts

    def noted_finish() -> int:
        into.append(Step(hub.clock()))
        return finish()

    vars(exchange).update(accept=noted_accept, finish=noted_finish)


class HeaderWitness:
    """Keeps the headers of everything that is published."""

    def __init__(self, into: list[Mapping[str, str]]) -> None:
        self._into = into

    def watch(self, broker: Broker) -> Broker:
        publish = broker.publish

        def noted(messages: Sequence[Outgoing]) -> None:
            self._into.extend({"queue": m.queue, **m.headers} for m in messages)
            publish(messages)

        cast("Any", broker).publish = noted
        return broker


class Kept:
    """A transport into memory."""

    def __init__(self) -> None:
        self.received: list[Received] = []

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        for delivery, native in deliveries:
            suffix = Path(native.name).suffix or ".bin"
            self.received.append(Received(party, delivery + suffix, native.content))
        return [None] * len(deliveries)


def replay(
    steps: Sequence[Step], folder: Path, agreements: Path | None = None
) -> tuple[list[Received], list[dict[str, Any]]]:
    """Gives the submissions of *steps* to a new hub in *folder* at the same times; what the parties received,
    and the ledger."""
    now = [steps[0].at]
    kept = Kept()
    with open_hub(Settings(data=folder, agreements=agreements), clock=lambda: now[0], transport=kept) as hub:
        for step in steps:
            now[0] = step.at
            if step.party:
                hub.exchange.accept(step.party, step.natives)
            else:
                hub.exchange.finish()
    return kept.received, ledger_of(folder)


_ANSWERS = frozenset({"information-response.json", "task-update.json", "engagement.json"})


def without_answers(steps: Sequence[Step]) -> list[Step]:
    """*steps* without what agencies reported back, which names people but no place: half of a day."""
    kept = []
    for step in steps:
        told = [(n, i) for n, i in zip(step.natives, step.ids, strict=True) if n.name not in _ANSWERS]
        if told or not step.party:
            kept.append(Step(step.at, step.party, [n for n, _ in told], [i for _, i in told]))
    return kept


def submissions(steps: Sequence[Step]) -> Iterator[tuple[str, Native, Sequence[str]]]:
    """(party, native, ids of its messages), in order."""
    for step in steps:
        for native, ids in zip(step.natives, step.ids, strict=True):
            yield step.party, native, ids
