"""The tables' history: one file a change under `versions/`, applied by Alembic to SQLite and PostgreSQL.

It ships inside the package and is configured here in code, because a hub installed from a wheel migrates its
own database from wherever it is started; there is no `alembic.ini` to find.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

# Whoever compares needs every table declared.
from broker import embedded, outbox, suspects  # noqa: F401
from consent import (  # noqa: F401
    inputs,
    ledger,
    people,
    placing,
    recalls,
    register,
    retention,
    subjects,
    waiting,
)
from schemas.database import metadata
from schemas.errors import BadSettings

HEAD = (
    "0009"  # the newest revision; a test holds it to the files, so that opening a hub need not load Alembic
)
_FOLDER = Path(__file__).parent
_VERSION_TABLE = "alembic_version"
_LOCK = 0x6973_725F_6D69_6772  # "isr_migr": PostgreSQL's advisory locks are numbers


def revision(engine: sa.Engine) -> str | None:
    """The revision that the database behind *engine* is at; None for an empty one.

    Raises `BadSettings` when it holds tables of these names that no migration made.
    """
    with engine.connect() as connection:
        return _revision(connection)


def migrate(engine: sa.Engine, to: str = "head") -> str:
    """Brings the database behind *engine* to revision *to*, and returns it. Safe to repeat and to run from
    several processes at once.

    One transaction: a crash leaves the database at the revision it had. Raises `BadSettings` for a database
    that a newer hub, or something else, made.
    """
    from alembic import command  # noqa: PLC0415  # only a migration pays for loading Alembic

    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        at = _revision(connection)
        if at is not None and at not in known():
            raise _too_new(at)
        command.upgrade(_config(connection), to)
        # ‖ A crash before the commit leaves nothing of it.
        return _revision(connection) or ""


def require_current(engine: sa.Engine) -> None:
    """Returns when the database behind *engine* is at the newest revision. Raises `BadSettings`, saying how
    to bring it there.
    """
    at = revision(engine)
    if at == HEAD:
        return
    if at is not None and at not in known():
        raise _too_new(at)
    raise BadSettings(
        f"the database is at revision {at or 'none'} and this hub needs {HEAD}; "
        "stop the hub's processes and run `isr-hub migrate`"
    )


def known() -> list[str]:
    """Every revision that this hub has, the newest first."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415  # likewise

    return [script.revision for script in ScriptDirectory(str(_FOLDER)).walk_revisions()]


def belongs_here(connection: sa.Connection) -> Callable[..., bool]:
    """Whether an object is part of the schema on *connection*'s kind of database, as Alembic asks it: the
    queues of the embedded broker exist in SQLite only.
    """
    elsewhere = EMBEDDED_ONLY if connection.dialect.name != "sqlite" else frozenset[str]()

    def asked(
        _item: Any, name: str | None, kind: str, _reflected: bool, _compared: Any
    ) -> bool:  # Alembic's signature
        return kind != "table" or name not in elsewhere

    return asked


EMBEDDED_ONLY = frozenset({"queue_message", "queue_mark", "dead_letter"})


def _config(connection: sa.Connection) -> Any:
    from alembic.config import Config  # noqa: PLC0415  # likewise

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _revision(connection: sa.Connection) -> str | None:
    tables = set(sa.inspect(connection).get_table_names())
    if _VERSION_TABLE in tables:
        at = connection.execute(sa.text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608
        return None if at is None else str(at)
    if tables & set(metadata.tables):
        raise BadSettings(
            "the database holds tables of the hub that no migration made; use an empty database, or the one "
            "that belongs to this hub"
        )
    return None


def _too_new(at: str) -> BadSettings:
    return BadSettings(
        f"the database is at revision {at}, which this hub (newest: {HEAD}) does not know; run the hub that "
        "made it, or a newer one"
    )
