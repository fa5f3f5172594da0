"""The work that is measured: invented families' episodes as Police send them, and hubs to put them
through.
"""

import base64
import secrets
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import orjson
import psycopg
import sqlalchemy as sa
from psycopg import sql

from adapters.adapter import Native, Transport
from broker.broker import deliveries_to
from consent.ledger import Ledger
from gateway.hub import Hub, migrate, open_hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.sandbox.servers import driver_url, ended_by_sigterm, postgresql, rabbitmq
from gateway.settings import Settings
from schemas.errors import HubError
from schemas.message import identity

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
SENDER = "police"
_A_REQUEST = 100  # natives accepted together
_SEED = 11


class Nowhere:
    """A transport that takes everything at once: what is measured is the hub, not a disk full of files."""

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:  # noqa: ARG002
        """Takes *deliveries*."""
        return [None] * len(deliveries)


def _as_it_is(ledger: Ledger) -> Ledger:
    return ledger


def episodes(count: int, progress: Callable[[int], None] = lambda _: None) -> list[Native]:
    """*count* episodes of a few hundred a day, as Police's officers write them; always the same."""
    made = []
    for n, incident in enumerate(stream(_SEED, count, days=max(1, min(365, count // 100))), 1):
        made.append(five_f(incident.family, incident.episode))
        if n % 100 == 0:
            progress(n)
    return made


@contextmanager
def embedded_hub(folder: Path, wrap_ledger: Callable[[Ledger], Ledger] = _as_it_is) -> Iterator[Hub]:
    """A hub on SQLite in *folder*."""
    with open_hub(
        Settings(data=folder), clock=lambda: NOW, transport=Nowhere(), wrap_ledger=wrap_ledger
    ) as hub:
        yield hub


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers are: PostgreSQL (whose user may create databases), RabbitMQ, and its management."""

    database: str
    broker: str
    management: str


class Servers:
    """A RabbitMQ and a PostgreSQL for this run: private ones below *folder*, started when first asked for, or
    those at *addresses*. Every hub gets a database and a virtual host of its own, which go with it.

    Never those of `ISR_HUB_DATABASE_URL` and `ISR_HUB_BROKER_URL`: a measurement must not write into
    anybody's ledger.
    """

    def __init__(self, folder: Path, addresses: Addresses | None = None) -> None:
        self._folder, self._addresses = folder, addresses
        self._stack = ExitStack()

    def __enter__(self) -> "Servers":
        self._stack.enter_context(ended_by_sigterm())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def addresses(self) -> Addresses:
        """Where they are. Raises `BadSettings`, saying what to install, when they cannot be started."""
        if self._addresses is None:
            folders = [self._folder / name for name in ("postgresql", "rabbitmq")]
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            database = self._stack.enter_context(postgresql(folders[0].resolve()))
            rabbit = self._stack.enter_context(rabbitmq(folders[1].resolve()))
            self._addresses = Addresses(database, rabbit.url, rabbit.management)
        return self._addresses

    @contextmanager
    def settings(self, folder: Path) -> Iterator[Settings]:
        """The settings of a new hub with its keys in *folder*, its tables made."""
        with self.database() as database_url, self._virtual_host() as broker_url:
            settings = Settings(data=folder, database_url=database_url, broker_url=broker_url)
            migrate(settings)
            yield settings

    @contextmanager
    def hub(
        self,
        folder: Path,
        wrap_ledger: Callable[[Ledger], Ledger] = _as_it_is,
        transport: Transport | None = None,
    ) -> Iterator[Hub]:
        """An open hub with its keys in *folder*."""
        taking = transport or Nowhere()
        with (
            self.settings(folder) as settings,
            open_hub(settings, clock=lambda: NOW, transport=taking, wrap_ledger=wrap_ledger) as hub,
        ):
            yield hub

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database."""
        name = sql.Identifier(f"bench_{secrets.token_hex(6)}")
        url = self.addresses.database
        with psycopg.connect(driver_url(url), autocommit=True) as server:
            server.execute(sql.SQL("CREATE DATABASE {}").format(name))
            try:
                yield sa.make_url(url).set(database=name.as_string().strip('"')).render_as_string(False)
            finally:
                server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    @contextmanager
    def _virtual_host(self) -> Iterator[str]:
        name = f"bench-{secrets.token_hex(6)}"
        url = self.addresses.broker
        self._manage("PUT", f"/api/vhosts/{name}")
        try:
            everything = b'{"configure": ".*", "write": ".*", "read": ".*"}'
            self._manage("PUT", f"/api/permissions/{name}/{urlsplit(url).username}", everything)
            yield f"{url.rsplit('/', 1)[0]}/{name}"
        finally:
            self._manage("DELETE", f"/api/vhosts/{name}")

    def _manage(self, method: str, path: str, body: bytes = b"{}") -> None:
        user = urlsplit(self.addresses.broker)
        credentials = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310  # our own server's address
            self.addresses.management + path,
            data=body,
            method=method,
            headers={"Authorization": f"Basic {credentials}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60):  # noqa: S310
            pass


def submissions(hub: Hub, natives: Sequence[Native]) -> list[bytes]:
    """*natives* as the canonical messages that they are."""
    return [m.encode() for native in natives for m in hub.exchange.read(SENDER, native).messages]


def renamed(bodies: Sequence[bytes], count: int, name: str) -> Iterator[bytes]:
    """*count* messages like *bodies*, each with an id of its own."""
    events = [orjson.loads(body) for body in bodies]
    for n in range(count):
        yield orjson.dumps({**events[n % len(events)], "id": identity(SENDER, f"{name}\n{n}")})


def accepted(hub: Hub, natives: Sequence[Native]) -> float:
    """Puts *natives* in at the door; returns seconds."""
    started = perf_counter()
    for start in range(0, len(natives), _A_REQUEST):
        hub.exchange.accept(SENDER, natives[start : start + _A_REQUEST])
    return perf_counter() - started


def carried(hub: Hub) -> float:
    """Carries until nothing waits; returns seconds."""
    started = perf_counter()
    while hub.exchange.carry():
        pass
    return perf_counter() - started


def waiting(hub: Hub) -> int:
    """How many disclosures wait for their recipients."""
    return sum(hub.broker.depths(map(deliveries_to, hub.agreements.parties)).values())


def delivered(hub: Hub) -> tuple[int, float]:
    """Delivers until nothing waits; returns how many, and seconds."""
    total, started = 0, perf_counter()
    for party in sorted(hub.agreements.parties):
        while count := hub.exchange.deliver(party):
            total += count
    return total, perf_counter() - started
