"""The hub put together: one place that opens database, broker, ledger and agreements, and hands them to the
exchange.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa

from adapters.adapter import Transport
from adapters.registry import adapter_of
from adapters.transport import FileDrop
from broker.broker import Broker
from broker.embedded import EmbeddedBroker
from consent.agreement import Agreements
from consent.ledger import Ledger, Signer
from consent.people import Keys
from gateway.exchange import Exchange
from gateway.settings import Settings
from gateway.telemetry import Telemetry
from schemas.catalogue import Catalogue, published
from schemas.clock import Clock, utc_now
from schemas.database import metadata, open_database
from schemas.errors import BadSettings


@dataclass(slots=True)
class Hub:
    """An open hub."""

    settings: Settings
    engine: sa.Engine
    broker: Broker
    ledger: Ledger
    agreements: Agreements
    catalogue: Catalogue
    exchange: Exchange
    telemetry: Telemetry
    keys: Keys
    clock: Clock


@contextmanager
def open_hub(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    transport: Transport | None = None,
    wrap_broker: Callable[[Broker], Broker] = lambda broker: broker,
    alone: bool = True,
) -> Iterator[Hub]:
    """Opens the hub on *settings* and closes it afterwards. The first opening makes the data folder, the keys
    and the tables.

    Raises `BadSettings` when another process holds the same embedded data folder: its queues know their
    consumers only within one process. Whoever only looks need not be *alone*.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    with _held(settings) if alone else nullcontext():
        engine = open_database(settings.database)
        metadata.create_all(engine)
        broker = wrap_broker(_open_broker(settings, engine, clock))
        ledger = Ledger(engine, signer(settings), settings.origin, clock)
        agreements = Agreements.load(agreements_folder(settings))
        catalogue, telemetry, keys = published(), Telemetry(), Keys(secret(settings))
        exchange = Exchange(
            engine,
            broker,
            ledger,
            catalogue,
            lambda: agreements,
            keys,
            adapter_of,
            transport or FileDrop(settings.data / "agencies"),
            telemetry,
            clock,
        )
        try:
            ledger.start()
            exchange.outbox.start()
            yield Hub(
                settings, engine, broker, ledger, agreements, catalogue, exchange, telemetry, keys, clock
            )
        finally:
            broker.close()
            engine.dispose()


def agreements_folder(settings: Settings) -> Path:
    """Where the agreements in force are."""
    return settings.agreements or Path(str(files("consent") / "agreements"))


def signer(settings: Settings) -> Signer:
    """The ledger's signing key, made at the first call: `ledger.key` (secret, mode 0600), with `ledger.vkey`
    for outsiders beside it.
    """
    path = settings.data / "ledger.key"
    if not path.exists():
        made = Signer.generate(settings.origin)
        _write_once(path, made.to_text().encode())
    key = Signer.from_file(path)
    (settings.data / "ledger.vkey").write_text(key.vkey() + "\n", encoding="ascii")
    return key


def secret(settings: Settings) -> bytes:
    """The hub's secret of 32 bytes, made at the first call: `hub.secret`, mode 0600. Losing it makes every
    person unknown again.
    """
    path = settings.data / "hub.secret"
    if not path.exists():
        _write_once(path, os.urandom(32))
    return path.read_bytes()


def _write_once(path: Path, content: bytes) -> None:
    """Writes a key whole or not at all: a crash leaves a temporary file, which is not read."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)


def _open_broker(settings: Settings, engine: sa.Engine, clock: Clock) -> Broker:
    return EmbeddedBroker(engine, clock)


@contextmanager
def _held(settings: Settings) -> Iterator[None]:
    if not settings.embedded_broker:
        yield
        return
    with (settings.data / "hub.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadSettings(
                f"another hub is running on {settings.data}; stop it, or choose another --data"
            ) from None
        yield
