"""The hub put together: one place that opens database, broker, ledger and agreements, and hands them to the
exchange.
"""

import fcntl
import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa

from adapters.adapter import Native, Transport
from adapters.registry import adapter_of
from adapters.transport import FileDrop
from broker.broker import Broker
from broker.embedded import EmbeddedBroker
from broker.rabbitmq import RabbitBroker
from broker.sealed import Seal, SealedBroker
from broker.topology import is_shared
from consent import recalls
from consent.agreement import Agreements
from consent.ledger import Ledger
from consent.merkle import ProofError
from consent.people import Keys
from consent.quorum import Quorum
from consent.register import Register
from gateway import migrations
from gateway.encrypted import EncryptionKeys
from gateway.exchange import Exchange
from gateway.intake import JOSE, natives_of
from gateway.keys import make_key, write_once
from gateway.recipients import Recipients, Ways, read_recipients
from gateway.settings import Settings
from gateway.telemetry import Telemetry
from gateway.witnessing import Witnessing
from schemas.catalogue import Catalogue, published
from schemas.clock import NEW_ZEALAND, Clock, utc_now
from schemas.database import open_database, reading
from schemas.errors import BadSettings


@dataclass(slots=True)
class Hub:
    """An open hub."""

    settings: Settings
    engine: sa.Engine
    broker: Broker
    ledger: Ledger
    register: Register
    recipients: Recipients
    catalogue: Catalogue
    exchange: Exchange
    telemetry: Telemetry
    keys: Keys
    encryption: EncryptionKeys
    clock: Clock
    witnessing: Witnessing | None = None

    @property
    def agreements(self) -> Agreements:
        """What is in force, at most a second old."""
        return self.register.current()

    def note_agreements(self) -> None:
        """Puts what is in force, what does not count, and the recalls that are open into the metrics."""
        troubles = self.register.troubles()
        today = self.clock().astimezone(NEW_ZEALAND).date()
        self.telemetry.agreements.set(sum(a.in_force(today) for a in self.agreements))
        self.telemetry.agreement_troubles.set(len(troubles))
        with reading(self.engine).connect() as connection:
            self.telemetry.recalls_open.set(len(recalls.tasks(connection, is_open=True)))


@contextmanager
def open_hub(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    transport: Transport | None = None,
    wrap_broker: Callable[[Broker], Broker] = lambda broker: broker,
    wrap_ledger: Callable[[Ledger], Ledger] = lambda ledger: ledger,
    alone: bool = True,
) -> Iterator[Hub]:
    """Opens the hub on *settings* and closes it afterwards. The first opening makes the data folder and the
    keys, and in SQLite the tables; in PostgreSQL they are made by `migrate`.

    Raises `BadSettings` when the database cannot be reached or is not at this hub's revision, and when
    another process holds the same embedded data folder: its queues know their consumers only within one
    process. Whoever only looks need not be *alone*.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    with _held(settings) if alone else nullcontext():
        engine = _current_database(settings, alone=alone)
        with _disposed(engine):
            ledger = wrap_ledger(Ledger(engine, make_key(settings), settings.origin, clock))
            catalogue, telemetry, keys = (
                published(test_numbers=not settings.production),
                Telemetry(),
                Keys(secret(settings)),
            )
            register = Register(engine, ledger, agreements_folder(settings), keys, clock)
            ledger.start()
            register.start(record=alone)
            parties = register.current().parties
            recipients = recipients_of(settings, parties)
            seal, encryption = Seal(keys.queue), encryption_keys(settings)
            broker = wrap_broker(
                SealedBroker(_open_broker(settings, engine, parties, clock), seal, is_shared)
            )
            ways = Ways(recipients, FileDrop(settings.data / "agencies"), broker)
            exchange = Exchange(
                engine,
                broker,
                ledger,
                catalogue,
                register,
                keys,
                adapter_of,
                transport or ways,
                telemetry,
                clock,
                lambda native: _opened(encryption, native),
            )
            witnessing = _witnessing(settings, engine, ledger, telemetry, clock)
            if witnessing:
                exchange.releasable, exchange.is_witnessed = witnessing.releasable, witnessing.is_enough
            try:
                exchange.outbox.start()
                _spare_the_collector()
                yield Hub(
                    settings,
                    engine,
                    broker,
                    ledger,
                    register,
                    recipients,
                    catalogue,
                    exchange,
                    telemetry,
                    keys,
                    encryption,
                    clock,
                    witnessing,
                )
            finally:
                exchange.close()
                if witnessing:
                    witnessing.close()
                ways.close()
                broker.close()


def _spare_the_collector() -> None:
    """Lets Python's cycle collector look less often.

    Catalogue, agreements and remembered decisions are some hundred thousand objects that live as long as the
    process, and a batch makes as many more that die by their counts. With the defaults a third of the
    processor's time went into walking them. What garbage in cycles there is (exceptions, mostly) waits for
    at most some million objects.
    """
    gc.set_threshold(50_000, 20, 50)


@contextmanager
def _disposed(engine: sa.Engine) -> Iterator[None]:
    """Disposes of *engine* at the end."""
    try:
        yield
    finally:
        engine.dispose()


def migrate(settings: Settings) -> str:
    """Brings the database to this hub's revision and returns it; see `migrations.migrate`. Raises
    `BadSettings`.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database)
    try:
        return migrations.migrate(engine)
    except sa.exc.OperationalError as error:
        raise _unreachable() from error
    finally:
        engine.dispose()


def _current_database(settings: Settings, *, alone: bool) -> sa.Engine:
    engine = open_database(settings.database)
    try:
        if engine.dialect.name == "sqlite" and (alone or migrations.revision(engine) is None):
            # A file beside the program has no operator of its own. Whoever only looks leaves an older one as
            # it is: another process may be at work on it.
            if migrations.revision(engine) != migrations.HEAD:
                migrations.migrate(engine)
        else:
            migrations.require_current(engine)
    except sa.exc.OperationalError as error:
        engine.dispose()
        raise _unreachable() from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def _unreachable() -> BadSettings:
    # The driver's text may repeat the password.
    return BadSettings(
        "the database cannot be reached or used: check ISR_HUB_DATABASE_URL, that the server runs, and what "
        "its log says"
    )


def _witnessing(
    settings: Settings, engine: sa.Engine, ledger: Ledger, telemetry: Telemetry, clock: Clock
) -> Witnessing | None:
    if settings.witnesses is None:
        return None
    try:
        quorum = Quorum.from_file(settings.witnesses)
    except ProofError as error:
        raise BadSettings(f"ISR_HUB_WITNESSES: {error}") from None
    hold = settings.unwitnessed == "hold"
    return Witnessing(engine, ledger, quorum, telemetry, clock, hold=hold)


def agreements_folder(settings: Settings) -> Path:
    """Where the agreements in force are."""
    return settings.agreements or Path(str(files("consent") / "agreements"))


def secret(settings: Settings) -> bytes:
    """The hub's secret of 32 bytes, made at the first call: `hub.secret`, mode 0600. Losing it makes every
    person unknown again.
    """
    path = settings.data / "hub.secret"
    if not path.exists():
        write_once(path, os.urandom(32))
    return path.read_bytes()


def encryption_keys(settings: Settings) -> EncryptionKeys:
    """What agencies encrypt to, made at the first call: `encryption.jwks`, mode 0600. Losing it makes what
    they sent and the AMQP door has not taken in yet unreadable; they send it again.
    """
    path = settings.data / "encryption.jwks"
    if not path.exists():
        write_once(path, EncryptionKeys.made())
    return EncryptionKeys(path)


def recipients_of(settings: Settings, parties: Iterable[str]) -> Recipients:
    """Which way deliveries go to *parties*. Raises `BadSettings`."""
    return read_recipients(
        settings.recipients,
        parties,
        has_mailboxes=not settings.embedded_broker,
        production=settings.production,
    )


def _opened(encryption: EncryptionKeys, native: Native) -> list[Native]:
    """What a JWE that was set aside holds, now that it opens; other input as it is."""
    if native.media_type != JOSE:
        return [native]
    return natives_of(*encryption.opened(native.media_type, native.content))


def _open_broker(settings: Settings, engine: sa.Engine, parties: Iterable[str], clock: Clock) -> Broker:
    if settings.embedded_broker:
        return EmbeddedBroker(engine, clock)
    return RabbitBroker(settings.broker_url, parties, clock=clock)


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
