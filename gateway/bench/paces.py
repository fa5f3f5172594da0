"""The exchange at other paces: smaller and larger batches, more workers, and one message at a time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

from adapters.adapter import Native
from consent.ledger import Checkpoint, Ledger
from gateway.bench.figures import median
from gateway.bench.journey import NO_SERVERS
from gateway.bench.load import NOW, SENDER, Nowhere, accepted, delivered, embedded_hub, waiting
from gateway.bench.processes import child, told
from gateway.bench.run import Run
from gateway.hub import Hub, open_hub
from gateway.settings import Settings
from schemas.errors import HubError
from schemas.message import identity

# Submissions in a batch, and how many are carried for one repetition.
_BATCHES = {1: 20, 10: 60, 50: 150, 200: 400, 500: 1000}
_WORKERS = (1, 2)
# Submissions for each repetition, in those of other measurements: several times what one process holds, or
# the first has them all.
_QUEUED_FOR_WORKERS = 3
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.5  # asking all queues is work for the server
_QUIET_SECONDS = 0.05  # after the last delivery of a submission, before the next is handed in


def measure_batches(run: Run) -> None:
    """Throughput against the size of the batch."""
    scale = min(1.0, run.size.episodes / 600)
    counts = {size: max(min(size, 20), round(count * scale)) for size, count in _BATCHES.items()}
    n = run.size.repetitions
    natives = list(run.natives(sum(counts.values()) * n))
    with run.own_folder() as folder:
        opened = run.servers.hub(folder) if run.servers is not None else embedded_hub(folder)
        with opened as hub:
            for size, count in counts.items():
                rates = []
                for repetition in range(n):
                    run.step(f"batches of {size}, {repetition + 1} of {n}")
                    part, natives = natives[:count], natives[count:]
                    accepted(hub, part)
                    started = perf_counter()
                    while hub.exchange.carry(limit=size):
                        pass
                    rates.append(count / (perf_counter() - started))
                    delivered(hub)
                run.findings.figure("batches", f"carried, batches of {size}", median(rates), "episodes/s", n)


def measure_workers(run: Run) -> None:
    """Throughput of one and two exchange processes on the same queues."""
    if run.servers is None:
        run.findings.not_measured("workers", NO_SERVERS)
        return
    count, n = run.size.episodes * _QUEUED_FOR_WORKERS, run.size.repetitions
    natives = list(run.natives(count * n * len(_WORKERS)))
    with run.own_folder() as folder, run.servers.settings(folder) as settings:
        for workers in _WORKERS:
            rates = []
            with open_hub(settings, clock=lambda: NOW, transport=Nowhere()) as hub:
                for repetition in range(n):
                    run.step(f"{workers} exchange processes, {repetition + 1} of {n}")
                    part, natives = natives[:count], natives[count:]
                    accepted(hub, part)
                    rates.append(count / _worked(settings, workers, count))
            run.findings.figure("workers", f"carried by {workers}", median(rates), "episodes/s", n)


def _worked(settings: Settings, workers: int, count: int) -> float:
    """Seconds in which *workers* processes carry the *count* submissions that wait."""
    with _children(settings, workers) as children:
        for one in children:
            one.answer()  # ready
        started = perf_counter()
        for one in children:
            one.tell("go")
        moved = 0
        while moved < count:
            if perf_counter() - started > _PATIENCE_SECONDS:
                raise TimeoutError("the exchange processes did not carry everything")
            for one in children:
                while one.says(0.002):
                    moved += one.answer()
        return perf_counter() - started


@contextmanager
def _children(settings: Settings, workers: int) -> Iterator[list[Any]]:
    with child(work, settings) as first:
        if workers == 1:
            yield [first]
            return
        with child(work, settings) as second:
            yield [first, second]


def work(ours: Connection, settings: Settings) -> None:
    """In a process of its own: carries from the word until the other end is gone, and says how much."""
    with open_hub(settings, clock=lambda: NOW, transport=Nowhere()) as hub:
        ours.send("ready")
        ours.recv()
        while True:
            moved = hub.exchange.carry(wait_seconds=0.1)
            try:
                if moved:
                    ours.send(moved)
                told(ours)
            except (OSError, SystemExit):
                return


class _Arrivals:
    """A transport that notes when each delivery came."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:  # noqa: ARG002
        now = perf_counter()
        self.at.update((id, now) for id, _ in deliveries)
        return [None] * len(deliveries)

    def wait(self, ids: Sequence[str]) -> None:
        """Waits until one of *ids* came and, after it, no other for a moment. Raises `TimeoutError`."""
        deadline = perf_counter() + _PATIENCE_SECONDS
        while True:
            came = [self.at[id] for id in ids if id in self.at]
            if came and perf_counter() - max(came) >= _QUIET_SECONDS:
                return
            if perf_counter() > deadline:
                raise TimeoutError("a submission reached nobody")
            threading.Event().wait(_QUIET_SECONDS / 5)


class _Timed(Ledger):
    """A ledger that notes how long each signature took, with its commit."""

    def __init__(self, ledger: Ledger) -> None:
        self.__dict__.update(ledger.__dict__)
        self.seconds: list[float] = []

    def sign(self) -> Checkpoint:
        before = self._trusted
        started = perf_counter()
        signed = super().sign()
        if before is None or signed.size != before.size:
            self.seconds.append(perf_counter() - started)
        return signed


def measure_latency(run: Run) -> None:
    """From the first byte at the door to the recipient, one submission at a time; and what the checkpoint
    adds.
    """
    if run.servers is None:
        run.findings.not_measured("latency", NO_SERVERS)
        return
    arrivals = _Arrivals()
    with run.own_folder() as folder, run.servers.hub(folder, _Timed, arrivals) as hub:
        run.step(f"{run.size.submissions} submissions, one at a time")
        with _looping(hub):
            began = _submitted(hub, run.natives(run.size.submissions), arrivals)
            deadline = perf_counter() + _PATIENCE_SECONDS
            while (hub.broker.depth("submissions") or waiting(hub)) and perf_counter() < deadline:
                threading.Event().wait(_LOOK_SECONDS)
        taken = [arrivals.at[id] - began[id] for id in began if id in arrivals.at]
        signing = hub.ledger.seconds if isinstance(hub.ledger, _Timed) else []
    warm = sorted(taken[len(taken) // 10 :])  # the first ones fill caches
    for name, share in (("median", 0.5), ("99 in 100 within", 0.99)):
        run.findings.figure(
            "latency",
            f"door to recipient, {name}",
            warm[int((len(warm) - 1) * share)] * 1000,
            "ms",
            len(warm),
        )
    run.findings.figure(
        "latency", "of it the signed checkpoint, median", median(signing) * 1000, "ms", len(signing)
    )


def _submitted(hub: Hub, natives: Sequence[Native], arrivals: _Arrivals) -> dict[str, float]:
    """Submits *natives*, each when the one before has arrived: a slower machine would else measure a queue.
    Returns when, by the ids that their disclosures will have.
    """
    began: dict[str, float] = {}
    for native in natives:
        started = perf_counter()
        accepted = hub.exchange.accept(SENDER, [native])[0].accepted
        ids = [
            identity("hub", f"disclosure\n{SENDER}\n{id}\n{p}")
            for id in accepted
            for p in hub.agreements.parties
        ]
        began.update(dict.fromkeys(ids, started))
        arrivals.wait(ids)
    return began


@contextmanager
def _looping(hub: Hub) -> Iterator[None]:
    """The exchange and every adapter at work, a thread each, as in a hub of one process."""
    stopping = threading.Event()

    def loop(step: Callable[[], object]) -> threading.Thread:
        def work() -> None:
            while not stopping.is_set():
                step()

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    threads = [loop(partial(hub.exchange.carry, wait_seconds=0.25))]
    threads += [loop(partial(hub.exchange.deliver, p, wait_seconds=0.25)) for p in hub.agreements.parties]
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
