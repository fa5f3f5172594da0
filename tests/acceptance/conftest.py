"""One ISR day for all acceptance tests, with everything that it said recorded."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from broker.broker import Broker
from gateway import hub as hub_module
from gateway.sandbox import day
from gateway.settings import Settings
from tests.acceptance.played import HeaderWitness, Played, recording


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The default demo with seed 7, as `isr-hub demo` plays it."""
    return play(tmp_path_factory.mktemp("demo") / "day", episodes=119, releases=10)


@pytest.fixture(scope="session")
def hard_day(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A short day: every hard case and a release, nothing else."""
    return play(tmp_path_factory.mktemp("hard") / "day", episodes=21, releases=2)


@pytest.fixture(scope="session")
def player(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Played]:
    """Plays a day of given size and seed, once each."""
    played: dict[tuple[int, int, int, str], Played] = {}

    def get(episodes: int, releases: int, seed: int = 7, again: str = "") -> Played:
        key = (episodes, releases, seed, again)
        if key not in played:
            folder = tmp_path_factory.mktemp("played") / "day"
            played[key] = play(folder, episodes=episodes, releases=releases, seed=seed)
        return played[key]

    return get


def play(folder: Path, *, episodes: int, releases: int, seed: int = 7) -> Played:
    """Plays a day into *folder* and keeps what it said in logs, headers and metrics, and what was sent."""
    played = Played(folder)
    witness = HeaderWitness(played.headers)

    @contextmanager
    def watched(settings: Settings, **given: Any) -> Iterator[hub_module.Hub]:
        wrap: Callable[[Broker], Broker] = partial(witness.watch)
        with hub_module.open_hub(settings, wrap_broker=wrap, **given) as hub:
            recording(hub, played.steps)
            yield hub
            played.metrics = generate_latest(hub.telemetry.registry).decode()

    lines = _Lines(played.log)
    root = logging.getLogger()
    before = root.level
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    logging.getLogger("isr_hub").setLevel(logging.DEBUG)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(day, "open_hub", watched)
            played.report = day.run_day(
                folder, episodes=episodes, releases=releases, seed=seed, show_progress=False
            )
    finally:
        root.removeHandler(lines)
        root.setLevel(before)
        logging.getLogger("isr_hub").setLevel(logging.NOTSET)
    return played


class _Lines(logging.Handler):
    """Every log line as an operator would see it, tracebacks included."""

    def __init__(self, into: list[str]) -> None:
        super().__init__()
        self._into = into
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        # SQL statements without parameters, by the thousand: not what an operator turns on.
        if not record.name.startswith("sqlalchemy"):
            self._into.append(self.format(record))
