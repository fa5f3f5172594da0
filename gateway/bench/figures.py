"""What a measurement comes to: ratios that the hub is held to, and figures beside them.

Absolute times say little: machines differ, and are shared. So whatever the hub is compared with is measured
in the same run, in turns with it, and both are medians.
"""

import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a ratio: what was measured, its median *value* in *unit*."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio that the hub is held to. It is met at *hold*, and good at *goal*; *at_least* says whether more
    is better.
    """

    name: str
    hold: float
    goal: float
    at_least: bool = True

    def verdict(self, value: float) -> str:
        """`goal`, `hold` or `short`."""
        sign = 1 if self.at_least else -1
        if sign * value >= sign * self.goal:
            return "goal"
        return "hold" if sign * value >= sign * self.hold else "short"


# The targets, by the names that --only takes.
TARGETS: dict[str, Target] = {
    "R1": Target("exchange on RabbitMQ and PostgreSQL ÷ bare pika relay 1→6", 0.5, 0.75),
    "R2": Target("embedded exchange ÷ bare pika relay 1→6", 0.5, 0.8),
    "R3": Target("exchange on RabbitMQ and PostgreSQL ÷ FastStream relay 1→6", 3.0, 6.0),
    "R4": Target("time to decide for every party ÷ Cedar's, 200 clauses", 0.05, 0.02, at_least=False),
    "R4-flat": Target("time to decide, 10,000 clauses of others ÷ 10", 1.2, 1.05, at_least=False),
    "R5": Target("exchange with ledger ÷ without", 0.65, 0.8),
    "R5-append": Target("append to the ledger ÷ the same rows without a tree", 0.7, 0.85),
    "R6": Target("HTTP, a message a request ÷ empty route", 0.35, 0.5),
    "R6-batch": Target("HTTP, 100 messages a request ÷ empty route", 0.5, 0.7),
    "R7": Target("cost of a disclosure with many queued and stored ÷ with 1,000", 1.2, 1.05, at_least=False),
    "R7-memory": Target("peak memory with many queued and stored ÷ with 1,000", 1.1, 1.05, at_least=False),
    "R8": Target("entries verified a second, of the whole ledger", 100_000, 200_000),
}


@dataclass(slots=True)
class Findings:
    """Everything that one run measured."""

    ratios: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def ratio(self, name: str, value: float, ours: Side, beside: Side | None, repetitions: int) -> None:
        """Adds the ratio *name* of `TARGETS`."""
        target = TARGETS[name]
        self.ratios.append(
            {
                "id": name,
                "name": target.name,
                "value": rounded(value),
                "hold": target.hold,
                "goal": target.goal,
                "better": "more" if target.at_least else "less",
                "verdict": target.verdict(value),
                "ours": side(ours),
                "beside": side(beside) if beside is not None else None,
                "repetitions": repetitions,
            }
        )

    def missing(self, name: str, why: str) -> None:
        """Says *why* the ratio *name* was not measured."""
        target = TARGETS[name]
        self.ratios.append(
            {
                "id": name,
                "name": target.name,
                "value": None,
                "hold": target.hold,
                "goal": target.goal,
                "better": "more" if target.at_least else "less",
                "verdict": "not measured",
                "why": why,
            }
        )

    def figure(self, topic: str, name: str, value: float, unit: str, repetitions: int = 1) -> None:
        """Adds a figure that no target is set for."""
        self.figures.append(
            {
                "topic": topic,
                "name": name,
                "value": rounded(value),
                "unit": unit,
                "repetitions": repetitions,
            }
        )

    def not_measured(self, topic: str, why: str) -> None:
        """Says *why* there are no figures of *topic*."""
        self.figures.append({"topic": topic, "name": "not measured", "value": None, "unit": "", "why": why})


def side(measured: Side) -> dict[str, Any]:
    """*measured* as JSON."""
    return {"name": measured.name, "value": rounded(measured.value), "unit": measured.unit}


def rounded(value: float) -> float:
    """*value* to four significant digits: more would pretend."""
    return float(f"{value:.4g}")


def median(values: Iterable[float]) -> float:
    """The median of *values*."""
    return statistics.median(values)


def microseconds_each(
    items: Sequence[Any], work: Callable[[Any], Any], repetitions: int, *, least_seconds: float = 0.0
) -> float:
    """Median microseconds of the processor an item, over *repetitions* passes of *work* after one that warms
    up. A pass goes over *items* as often as it takes to last *least_seconds*.
    """
    started = process_time()
    for item in items:
        work(item)
    once = process_time() - started
    rounds = max(1, int(least_seconds / max(once, 1e-6)))
    passes = []
    for _ in range(repetitions):
        started = process_time()
        for _ in range(rounds):
            for item in items:
                work(item)
        passes.append((process_time() - started) / max(1, len(items)) / rounds * 1e6)
    return median(passes)


def machine() -> dict[str, Any]:
    """What the figures were measured on: cores, versions, load, and how long the disk takes to make a page
    durable.
    """
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_before": rounded(os.getloadavg()[0]),
        "fdatasync_ms": rounded(_fdatasync_ms()),
    }


def _fdatasync_ms() -> float:
    """Median milliseconds to write 8 KiB and make them durable."""
    with tempfile.NamedTemporaryFile(dir=tempfile.gettempdir()) as file:
        times = []
        for _ in range(50):
            started = perf_counter()
            file.write(b"\0" * 8192)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(perf_counter() - started)
    return median(times) * 1000
