"""A year of family violence investigations through the hub: every episode taken in, decided for every party,
logged, published and delivered.

The hub's clock goes with the episodes, so that what holds for one day only is asked anew, as it is outside.
On the real engine the door, the exchange and the adapters are processes of their own. It ends by itself: when
everything has arrived, or when nothing has moved for a while; servers and data go with it.
"""

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from adapters.adapter import Native
from broker.broker import SUBMISSIONS
from consent.verify import verify
from gateway.bench.figures import machine, rounded
from gateway.bench.load import SENDER, Addresses, Nowhere, Servers, waiting
from gateway.bench.processes import Child, child, patiently, peak_megabytes, servers_megabytes, told
from gateway.hub import Hub, open_hub
from gateway.sandbox.day import five_f
from gateway.sandbox.last_will import temporary_folder
from gateway.sandbox.population import stream
from gateway.sandbox.servers import driver_url, ended_by_sigterm
from gateway.settings import Settings

EPISODES = 101_981  # recorded by Police in one year
_FIRST_DAY = date(2026, 12, 1)  # within every agreement's term
_DAYS = 365
_SEED = 7
_A_REQUEST = 100
_STILL_SECONDS = 120.0  # without any movement for this long it has failed
_LOOK_SECONDS = 1.0
_AHEAD = 2000  # submissions that wait for the exchange: a week's
_PARTS = ("taken", "carried", "delivered")
_Progress = Callable[[str, int], None]


@dataclass(slots=True)
class _Moved:
    """What the processes said last."""

    taken: int = 0
    carried: int = 0
    delivered: int = 0
    decisions: dict[str, int] | None = None
    is_all_in: bool = False
    waiting: int = 1  # what the exchange, idle, saw in the queues

    @property
    def disclosures(self) -> int:
        """How many left, or will."""
        found = self.decisions or {}
        return found.get("permit", 0) + found.get("reduced", 0)

    @property
    def is_complete(self) -> bool:
        """Whether everything that was taken has arrived wherever it was released to: the hub's own recalls
        too, which nobody counted beforehand.
        """
        return self.is_all_in and self.carried >= self.taken and not self.waiting


def year(
    episodes: int = EPISODES,
    *,
    engine: str = "real",
    addresses: Addresses | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Plays *episodes*, spread over a year, on the *engine* `real` or `embedded`; returns what it came to.

    The episodes are invented before the time runs. Raises `BadSettings` when the servers cannot be started.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not show_progress,
    )
    bars: dict[str, Any] = {}

    def show(what: str, count: int) -> None:
        if what not in bars:
            is_known = what in ("invented", "taken", "carried")
            bars[what] = progress.add_task(what, total=episodes if is_known else None)
        progress.update(bars[what], completed=count)

    with ExitStack() as stack:
        stack.enter_context(ended_by_sigterm())
        folder = stack.enter_context(temporary_folder("isr-hub-year-"))
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        stack.enter_context(progress)
        described = machine()
        began = perf_counter()
        script = folder / "episodes"
        _invent(script, episodes, show)
        invented = perf_counter() - began
        if engine == "embedded":
            found = _embedded(Settings(data=folder / "hub"), script, show)
        else:
            servers = stack.enter_context(Servers(folder, addresses))
            with servers.settings(folder / "hub") as settings:
                found = _real(settings, folder, script, show)
    return {
        "episodes": episodes,
        "engine": engine,
        "invented_seconds": rounded(invented),
        **found,
        "machine": described,
    }


def _invent(script: Path, episodes: int, show: _Progress) -> None:
    """Writes the episodes as Police send them, a request a line, each with its moment."""
    incidents = stream(_SEED, episodes, first_day=_FIRST_DAY, days=_DAYS)
    written = 0
    with script.open("wb") as file:
        while part := list(islice(incidents, _A_REQUEST)):
            natives = [five_f(i.family, i.episode) for i in part]
            moment = max(i.episode.recorded_at for i in part)
            record = {
                "at": moment.timestamp() + 60,
                "natives": [[n.content.decode(), n.media_type, n.name] for n in natives],
            }
            file.write(orjson.dumps(record) + b"\n")
            written += len(part)
            show("invented", written)


def _requests(script: Path) -> Iterator[tuple[float, list[Native]]]:
    with script.open("rb") as file:
        for line in file:
            record = orjson.loads(line)
            yield (
                record["at"],
                [Native(content.encode(), kind, name) for content, kind, name in record["natives"]],
            )


@contextmanager
def _hub(settings: Settings, now: Any) -> Iterator[Hub]:
    """The hub on *settings*; its time is in *now*, in seconds since 1970."""

    def clock() -> datetime:
        return datetime.fromtimestamp(now.value, UTC)

    with open_hub(settings, clock=clock, transport=Nowhere()) as hub:
        yield hub


def _start(script: Path) -> Any:
    """The shared time, at the first request."""
    first = next((at for at, _ in _requests(script)), datetime.now(UTC).timestamp())
    return multiprocessing.get_context("spawn").Value("d", first)


def _decisions(hub: Hub) -> dict[str, int]:
    found: dict[str, int] = {}
    for metric in hub.telemetry.decisions.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                outcome = sample.labels["outcome"]
                found[outcome] = found.get(outcome, 0) + int(sample.value)
    return found


def _embedded(settings: Settings, script: Path, show: _Progress) -> dict[str, Any]:
    """All in one process: SQLite has one."""
    now, moved = _start(script), _Moved()
    settings.data.mkdir(parents=True)
    with _hub(settings, now) as hub:
        started = perf_counter()
        for at, natives in _requests(script):
            now.value = at
            moved.taken += sum(len(r.accepted) for r in hub.exchange.accept(SENDER, natives))
            while count := hub.exchange.carry():
                moved.carried += count
            for party in sorted(hub.agreements.parties):
                while count := hub.exchange.deliver(party):
                    moved.delivered += count
            for part in _PARTS:
                show(part, getattr(moved, part))
        hub.exchange.publish()
        moved.is_all_in, moved.decisions, moved.waiting = True, _decisions(hub), waiting(hub)
        seconds = perf_counter() - started
    file_size = sum(path.stat().st_size for path in settings.data.glob("hub.db*"))
    return {
        **_figures(moved, seconds),
        "ledger": _verified(settings.data, settings.data / "ledger.vkey", 0.0),
        "disk_mb": {"database": rounded(file_size / 1e6)},
        "peak_mb": {"hub": rounded(peak_megabytes())},
    }


def _real(settings: Settings, folder: Path, script: Path, show: _Progress) -> dict[str, Any]:
    now, moved = _start(script), _Moved()
    with open_hub(settings, alone=False):
        pass  # makes the keys, before three processes would
    with (
        child(take, settings, now, script) as door,
        child(carry, settings, now) as exchange,
        child(deliver, settings, now) as adapters,
    ):
        workers = {"door": door, "exchange": exchange, "adapters": adapters}
        for worker in workers.values():
            worker.answer()  # ready
        started = perf_counter()
        for worker in workers.values():
            worker.tell("go")
        _until_complete(list(workers.values()), moved, show)
        seconds = perf_counter() - started
        peaks = {name: rounded(peak_megabytes(worker.id)) for name, worker in workers.items()}
        peaks |= {name: rounded(held) for name, held in servers_megabytes().items()}
    began = perf_counter()
    show("exporting and verifying", 0)
    with _hub(settings, now) as hub:
        hub.exchange.publish()  # signs the last outcomes
        hub.ledger.export(folder / "export")
    exported = perf_counter() - began
    return {
        **_figures(moved, seconds),
        "ledger": _verified(folder / "export", settings.data / "ledger.vkey", exported),
        "disk_mb": _disk(settings, folder),
        "peak_mb": peaks,
    }


def _until_complete(workers: Sequence[Child], moved: _Moved, show: _Progress) -> None:
    """Until everything has arrived; or nothing has moved for long."""
    still_since = perf_counter()
    while not moved.is_complete and perf_counter() - still_since < _STILL_SECONDS:
        for worker in workers:
            while worker.says(0.02):
                what, value = worker.answer()
                if what == "all":
                    moved.is_all_in = True
                elif what == "waiting":
                    moved.waiting = value
                    continue
                elif what == "decisions":
                    moved.decisions = value
                else:
                    setattr(moved, what, value)
                    moved.waiting = 1
                    show(what, value)
                still_since = perf_counter()


def _figures(moved: _Moved, seconds: float) -> dict[str, Any]:
    return {
        "complete": moved.is_complete,
        "wall_seconds": rounded(seconds),
        "episodes_a_second": rounded(moved.carried / seconds),
        "disclosures_a_second": rounded(moved.delivered / seconds),
        "submissions": moved.taken,
        "disclosures": moved.disclosures,
        "delivered": moved.delivered,
        "decisions": moved.decisions or {},
    }


def _verified(target: Path, key: Path, exported: float) -> dict[str, Any]:
    report = verify(target, str(key))
    return {
        "entries": report.size,
        "kinds": dict(sorted(report.kinds.items())),
        "verified": report.ok,
        "export_seconds": rounded(exported),
        "verify_seconds": rounded(report.seconds),
        "entries_verified_a_second": rounded(report.size / report.seconds) if report.seconds else 0.0,
    }


def _disk(settings: Settings, folder: Path) -> dict[str, float]:
    with psycopg.connect(driver_url(settings.database_url)) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    sizes = {"database": row[0] if row else 0}
    for name in ("postgresql", "rabbitmq", "export"):
        files = [p for p in (folder / name).rglob("*") if p.is_file()] if (folder / name).exists() else []
        if files:
            sizes[f"{name} folder"] = sum(p.stat().st_size for p in files)
    return {name: rounded(size / 1e6) for name, size in sizes.items()}


def _ready(ours: Connection) -> None:
    ours.send("ready")
    ours.recv()


def take(ours: Connection, settings: Settings, now: Any, script: Path) -> None:
    """In a process of its own: the door."""
    with _hub(settings, now) as hub:
        _ready(ours)
        taken = 0
        for at, natives in _requests(script):
            _await_room(hub)
            now.value = at
            receipts = patiently(hub.exchange.accept, SENDER, natives)
            taken += sum(len(receipt.accepted) for receipt in receipts)
            ours.send(("taken", taken))
        ours.send(("all", taken))
        _linger(ours)


def _await_room(hub: Hub) -> None:
    """Waits while the exchange is far behind: it decides by the clock that goes with the door."""
    while hub.broker.depth(SUBMISSIONS) > _AHEAD:
        threading.Event().wait(_LOOK_SECONDS / 2)


def carry(ours: Connection, settings: Settings, now: Any) -> None:
    """In a process of its own: the exchange."""
    with _hub(settings, now) as hub:
        _ready(ours)
        carried, looked = 0, perf_counter()
        while True:
            if count := hub.exchange.carry(wait_seconds=0.25):
                carried += count
                if not _says(ours, ("decisions", _decisions(hub))) or not _says(ours, ("carried", carried)):
                    return
            else:
                hub.exchange.publish()
                if perf_counter() - looked > _LOOK_SECONDS:  # asking all queues is work for the server
                    looked = perf_counter()
                    if not _says(ours, ("waiting", waiting(hub) + hub.broker.depth(SUBMISSIONS))):
                        return
                elif not _says(ours, ("", 0), quietly=True):
                    return


def deliver(ours: Connection, settings: Settings, now: Any) -> None:
    """In a process of its own: the adapters, a thread for each party as `isr-hub run adapters` has them."""
    stopping, lock = threading.Event(), threading.Lock()
    delivered = [0]
    with _hub(settings, now) as hub:
        _ready(ours)

        def work(party: str) -> None:
            while not stopping.is_set():
                if count := hub.exchange.deliver(party, wait_seconds=0.25):
                    with lock:
                        delivered[0] += count
                        _says(ours, ("delivered", delivered[0]))

        threads = [threading.Thread(target=partial(work, party)) for party in hub.agreements.parties]
        for thread in threads:
            thread.start()
        _linger(ours)
        stopping.set()
        for thread in threads:
            thread.join()


def _says(ours: Connection, word: tuple[str, Any], *, quietly: bool = False) -> bool:
    """Says *word*; False when nobody listens any more. *quietly*: only looks whether somebody does."""
    try:
        if quietly:
            told(ours)
        else:
            ours.send(word)
    except (OSError, SystemExit):
        return False
    return True


def _linger(ours: Connection) -> None:
    """Until nobody listens any more: this process's memory is still to be read."""
    while _says(ours, ("", 0), quietly=True):
        threading.Event().wait(0.1)
