"""One run of the bench: what is chosen, measured in turn, each with its progress."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from adapters.adapter import Native
from gateway.bench.figures import TARGETS, Findings, machine
from gateway.bench.load import Addresses, Servers, episodes
from gateway.sandbox.last_will import temporary_folder
from gateway.sandbox.servers import ended_by_sigterm


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. Every median is of *repetitions*."""

    repetitions: int = 5
    episodes: int = 600  # a repetition of the journey
    requests: int = 1000  # a repetition of HTTP
    entries: int = 200_000  # of the ledger that is verified
    appended: int = 20_000  # entries a repetition
    few: int = 1000  # submissions queued, and messages stored,
    queued: int = 100_000  # beside this many
    submissions: int = 300  # one at a time, for the latency


QUICK = Size(
    episodes=60, requests=100, entries=5_000, appended=1_000, few=100, queued=1_000, submissions=20
)  # seconds, and says little


@dataclass(slots=True)
class Run:
    """What every measurement needs: how much, where, and where to put what it finds. *servers* is None when
    only the embedded engine is measured.
    """

    size: Size
    folder: Path
    servers: Servers | None
    wanted: frozenset[str]
    step: Callable[[str], None]
    findings: Findings = field(default_factory=Findings)
    _natives: list[Native] = field(default_factory=list)

    def natives(self, count: int) -> Sequence[Native]:
        """The first *count* episodes."""
        if len(self._natives) < count:
            self.step(f"inventing {count:,} episodes")
            self._natives = episodes(count)
        return self._natives[:count]

    def parts(self) -> Iterator[Sequence[Native]]:
        """Other episodes for each repetition."""
        size = self.size
        all_of_them = self.natives(size.episodes * size.repetitions)
        for n in range(size.repetitions):
            yield all_of_them[n * size.episodes : (n + 1) * size.episodes]

    @contextmanager
    def own_folder(self) -> Iterator[Path]:
        """A folder that goes with the context."""
        with tempfile.TemporaryDirectory(dir=self.folder) as path:
            yield Path(path)


class Section(NamedTuple):
    """One measurement: what --only calls what it finds, and what measures it."""

    names: tuple[str, ...]
    measure: Callable[[Run], None]


def sections() -> tuple[Section, ...]:
    """Every measurement, in order."""
    from gateway.bench import decisions, door, growth, journey, ledgers, paces, parts  # noqa: PLC0415

    return (
        Section(("R1", "R2", "R3", "R5"), journey.measure),
        Section(("parts",), parts.measure),
        Section(("R4", "R4-flat"), decisions.measure),
        Section(("what-if",), decisions.measure_what_if),
        Section(("R5-append", "ledger"), ledgers.measure_append),
        Section(("R8",), ledgers.measure_verify),
        Section(("R6", "R6-batch"), door.measure),
        Section(("batches",), paces.measure_batches),
        Section(("workers",), paces.measure_workers),
        Section(("latency",), paces.measure_latency),
        Section(("R7", "R7-memory"), growth.measure),
    )


def names() -> list[str]:
    """What --only takes."""
    return [name for section in sections() for name in section.names]


def bench(
    *,
    size: Size = Size(),
    only: Sequence[str] = (),
    real: bool = True,
    addresses: Addresses | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Measures what *only* names (default: everything) and returns machine, ratios and figures.

    *real*: on a private RabbitMQ and PostgreSQL too, or on those at *addresses*. Raises `BadSettings` when
    they cannot be started. Leaves nothing behind.
    """
    started = perf_counter()
    wanted = frozenset(only) or frozenset(names())
    chosen = [section for section in sections() if wanted & {*section.names, *_short(section.names)}]
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not show_progress,
    )
    with ended_by_sigterm(), temporary_folder("isr-hub-bench-") as folder, progress:
        task = progress.add_task("starting", total=len(chosen))
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        with Servers(folder, addresses) as servers:
            run = Run(
                size,
                folder,
                servers if real else None,
                wanted,
                lambda text: progress.update(task, description=text),
            )
            described = machine()
            took = {}
            for section in chosen:
                began = perf_counter()
                section.measure(run)
                took[section.names[0]] = round(perf_counter() - began, 1)
                progress.advance(task)
    order = list(TARGETS)
    ratios = [r for r in run.findings.ratios if wanted & {r["id"], *_short([r["id"]])}]
    return {
        "machine": described,
        "engines": ["embedded", "RabbitMQ and PostgreSQL"] if real else ["embedded"],
        "size": asdict(size),
        "ratios": sorted(ratios, key=lambda ratio: order.index(ratio["id"])),
        "figures": run.findings.figures,
        "seconds_by_measurement": took,
        "seconds": round(perf_counter() - started, 1),
    }


def _short(full: Sequence[str]) -> set[str]:
    """`R4` stands for `R4-flat` too."""
    return {name.partition("-")[0] for name in full if name.startswith("R")}
