"""What much of everything costs: the same messages carried with many queued and stored, beside few."""

from collections.abc import Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import orjson

from broker.broker import SUBMISSIONS, Outgoing
from broker.outbox import inbox
from consent.ledger import Entry
from consent.people import person_key
from consent.placing import case_person, case_table
from gateway.bench.figures import Side, median
from gateway.bench.load import NOW, SENDER, Nowhere, renamed, submissions
from gateway.bench.processes import child, patiently, peak_megabytes, servers_megabytes
from gateway.bench.run import Run
from gateway.hub import Hub, open_hub
from gateway.settings import Settings
from schemas.clock import rfc3339
from schemas.database import add_rows

_CHUNK = 1000
_PARTS = 5


def measure(run: Run) -> None:
    """R7 and R7-memory: a process for each size, so that its peak is its own. Few before many and after them,
    on servers that hold nothing else: what else the machine does weighs on both sides.
    """
    size_few, many = run.size.few, max(run.size.queued, run.size.few)
    few, lots, again = (_with(run, size) for size in (size_few, many, size_few))
    few["cost"] = median([*few["costs"], *again["costs"]])
    lots["cost"] = median(lots["costs"])
    run.findings.ratio(
        "R7",
        lots["cost"] / few["cost"],
        Side(f"with {many:,} queued and stored", lots["cost"], "µs a disclosure"),
        Side(f"with {size_few:,}", few["cost"], "µs a disclosure"),
        _PARTS,
    )
    run.findings.ratio(
        "R7-memory",
        lots["memory"] / few["memory"],
        Side(f"exchange process with {many:,} queued and stored", lots["memory"], "MB at its peak"),
        Side(f"with {size_few:,}", few["memory"], "MB at its peak"),
        1,
    )
    for size, servers in ((size_few, few["servers"]), (many, lots["servers"])):
        for name, megabytes in servers.items():
            run.findings.figure("memory", f"{name} with {size:,} queued and stored", megabytes, "MB")


def _with(run: Run, size: int) -> dict[str, Any]:
    natives = run.natives(min(300, run.size.episodes))
    with run.own_folder() as folder:
        if run.servers is None:
            return _measured(run, Settings(data=folder), size, natives)
        with run.servers.settings(folder) as settings:
            return _measured(run, settings, size, natives)


def _measured(run: Run, settings: Settings, size: int, natives: Sequence[Any]) -> dict[str, Any]:
    with child(grow, settings, size, run.size.few, list(natives)) as one:
        while True:
            word, value = one.answer()
            if word == "found":
                return dict(value)
            if word == "filled":
                one.tell(servers_megabytes())
            else:
                run.step(f"{word} {value:,} of {size:,}")


def grow(ours: Connection, settings: Settings, size: int, few: int, natives: Sequence[Any]) -> None:
    """In a process of its own: stores and queues *size*, carries *few*, and says what that took."""
    with open_hub(settings, clock=lambda: NOW, transport=Nowhere()) as hub:
        bodies = submissions(hub, natives)
        for n in range(0, size, _CHUNK):
            _store(hub, bodies, n, min(_CHUNK, size - n))
            ours.send(("storing", n))
        waiting = renamed(bodies, size, "queued")
        queued = 0
        while part := list(islice(waiting, _CHUNK)):
            patiently(hub.broker.publish, [Outgoing(SUBMISSIONS, body, _headers(body)) for body in part])
            queued += len(part)
            ours.send(("queueing", queued))
        ours.send(("filled", size))
        servers = ours.recv()
        costs = []
        for _ in range(_PARTS):
            before = _disclosures(hub)
            started, moved = perf_counter(), 0
            while moved < few // _PARTS and (count := hub.exchange.carry(few // _PARTS)):
                moved += count
            costs.append((perf_counter() - started) / max(1, _disclosures(hub) - before) * 1e6)
        found = {"costs": costs, "memory": peak_megabytes(), "servers": servers}
        ours.send(("found", found))


def _disclosures(hub: Hub) -> int:
    return int(
        sum(
            sample.value
            for metric in hub.telemetry.decisions.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.labels.get("outcome") in ("permit", "reduced")
        )
    )


def _headers(body: bytes) -> dict[str, str]:
    message = orjson.loads(body)
    return {name: message[name] for name in ("id", "type", "source")}


def _store(hub: Hub, bodies: Sequence[bytes], first: int, count: int) -> None:
    """As much as *count* messages leave behind: inbox, people, cases, and an entry each."""
    at, facts = rfc3339(NOW), _facts(len(bodies))
    numbers = range(first, first + count)
    keys = [f"{n:032x}" for n in numbers]
    with hub.engine.begin() as connection:
        add_rows(
            connection,
            inbox,
            ("source", "message", "digest", "at"),
            [(SENDER, key, bytes(32), at) for key in keys],
        )
        add_rows(
            connection, person_key, ("key", "pseudonym"), [(bytes.fromhex(key) * 2, key) for key in keys]
        )
        add_rows(
            connection,
            case_table,
            ("id", "number", "facts"),
            [(f"stored-{key}", -1 - n, facts) for n, key in zip(numbers, keys, strict=True)],
        )
        add_rows(connection, case_person, ("pseudonym", "case_id"), [(key, f"stored-{key}") for key in keys])
        hub.ledger.append(connection, list(_entries(keys, at)))


def _entries(keys: Sequence[str], at: str) -> Iterator[Entry]:
    for key in keys:
        body = {"v": 1, "kind": "refusal", "at": at, "source": SENDER, "message": key, "party": "msd"}
        yield Entry("refusal", SENDER, key, "msd", {**body, "reasons": ["no-clause"] * 20})


def _facts(length: int) -> str:
    return '{"stored": "' + "x" * 1000 + str(length) + '"}'
