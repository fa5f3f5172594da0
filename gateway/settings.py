"""The hub's settings, read from `ISR_HUB_*` once; everything below receives plain values."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import BadSettings

PREFIX = "ISR_HUB_"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the hub keeps things and whom it trusts. Each field is the environment variable of its name in
    capitals behind `ISR_HUB_`.
    """

    data: Path = Path("var/hub")  # database (embedded), keys, agencies' file drops
    database_url: str = ""  # empty: SQLite in *data*
    broker_url: str = ""  # empty: queues in the same SQLite file
    agreements: Path | None = None  # None: the agreements that come with the hub
    recipients: Path | None = (
        None  # file that says which way each party's deliveries go; None: all to folders
    )
    origin: str = "isr-hub.example.nz/ledger"  # the ledger's name in checkpoints
    listen: str = "127.0.0.1:8080"
    metrics: str = ""  # address and port of a process's own metrics; empty: only the HTTP door shows its own
    issuer: str = ""  # OAuth issuer of access tokens; empty: the sandbox issuer in *data*
    audience: str = "isr-hub"
    jwks: str = ""  # file or https URL with the issuer's public keys
    signing_key: str = field(default="", repr=False)  # the ledger's private key; empty: files in *data*
    signer: str = ""  # command that signs with a key kept elsewhere
    witnesses: Path | None = None  # file with the witnesses and their quorum; None: nobody is asked
    unwitnessed: str = "hold"  # what happens to releases without the quorum: hold or release
    production: bool = False  # refuses test identifiers and the sandbox issuer

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.data / 'hub.db'}"

    @property
    def embedded_broker(self) -> bool:
        """Whether the queues live in the hub's own database file."""
        return not self.broker_url


def from_environment(environment: Mapping[str, str] | None = None, **given: object) -> Settings:
    """The settings of *environment* (default: the process's), overridden by *given*.

    Raises `BadSettings` for an unknown `ISR_HUB_*` name (a misspelt setting would silently not apply) and for
    an unusable value.
    """
    source = os.environ if environment is None else environment
    values: dict[str, object] = {}
    for name, value in source.items():
        if not name.startswith(PREFIX) or name.startswith(f"{PREFIX}TEST_"):
            continue
        setting = name.removeprefix(PREFIX).lower()
        if setting not in Settings.__dataclass_fields__:
            known = ", ".join(f"{PREFIX}{f.upper()}" for f in Settings.__dataclass_fields__)
            raise BadSettings(f"{name} is no setting of the hub; the settings are {known}")
        values[setting] = _parsed(setting, value)
    values.update({k: v for k, v in given.items() if v is not None})
    settings = Settings(**values)  # type: ignore[arg-type]  # each value was parsed for its field
    if settings.embedded_broker and not settings.database.startswith("sqlite"):
        raise BadSettings(
            "ISR_HUB_BROKER_URL must name a RabbitMQ when ISR_HUB_DATABASE_URL names a PostgreSQL"
        )
    return settings


def address_of(text: str) -> tuple[str, int]:
    """Host and port of *text*, such as `127.0.0.1:8080` or `[::1]:8080`. Raises `BadSettings`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise BadSettings("an address is written host:port, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _parsed(setting: str, value: str) -> object:
    if setting in ("listen", "metrics"):
        address_of(value)
    if setting in ("data", "agreements", "recipients", "witnesses"):
        return Path(value)
    if setting == "unwitnessed" and value not in ("hold", "release"):
        raise BadSettings(f"{PREFIX}UNWITNESSED is hold or release")
    if setting == "production":
        if value.lower() not in ("true", "false"):
            raise BadSettings(f"{PREFIX}PRODUCTION is true or false")
        return value.lower() == "true"
    return value
