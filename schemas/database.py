"""The database handle: one engine for SQLite (embedded) or PostgreSQL (real), and the types the tables share.

The tables themselves are declared beside the module that owns them, on this module's `metadata`.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# SQLite's rowid is a 64-bit integer only under the exact type name INTEGER.
BigInt = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


_CONNECT_SECONDS = 10
_PARAMETERS = 900  # in one statement, below SQLite's oldest limit of 999
_GONE_SECONDS = 30  # a host that acknowledges nothing for so long is gone, says either side


def open_database(url: str, *, lock_timeout_seconds: float = 10.0) -> sa.Engine:
    """An engine on *url*.

    SQLite is opened in WAL mode with `synchronous=FULL`: a commit that returned survives a power cut. Every
    transaction takes the write lock at its start, because a read that is later upgraded fails at once when
    another writer came between. Deleted content is overwritten, since it may be somebody's address.
    Errors do not repeat the parameters of a statement: they would carry bodies into logs.
    PostgreSQL gets timeouts for every way in which nothing may come back, so that a stuck peer becomes an
    error and not a silence: a lock, a statement, a connection attempt, a host that is gone. And it ends a
    transaction of a process that stopped in the middle, whose locks would keep all others waiting.
    """
    if url.startswith("sqlite"):
        engine = sa.create_engine(
            url,
            hide_parameters=True,
            connect_args={"timeout": lock_timeout_seconds, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    milliseconds = int(lock_timeout_seconds * 1000)
    server = {
        "lock_timeout": milliseconds,
        "statement_timeout": milliseconds * 6,
        # Longer than the outbox's transaction waits for RabbitMQ's confirms, which is the longest pause.
        "idle_in_transaction_session_timeout": _GONE_SECONDS * 2 * 1000,
        "tcp_user_timeout": _GONE_SECONDS * 1000,
        "tcp_keepalives_idle": _GONE_SECONDS // 2,
        "tcp_keepalives_interval": _GONE_SECONDS // 6,
    }
    return sa.create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={
            "options": " ".join(f"-c {name}={value}" for name, value in server.items()),
            "connect_timeout": _CONNECT_SECONDS,
            "tcp_user_timeout": _GONE_SECONDS * 1000,
            "keepalives_idle": _GONE_SECONDS // 2,
            "keepalives_interval": _GONE_SECONDS // 6,
        },
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin on its own: _begin_immediate does
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def add_rows(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """Adds *rows* (values of *columns*) to *table* in the caller's transaction, in the quickest way: COPY
    in PostgreSQL, one prepared statement in SQLite.

    Raises `sqlalchemy.exc.IntegrityError` and the other DBAPI errors as SQLAlchemy does.
    """
    if not rows:
        return
    names = ", ".join(columns)
    if connection.dialect.name != "postgresql":
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", list(rows))  # noqa: S608  # our own names
        return
    import psycopg  # noqa: PLC0415  # the embedded default does without the driver

    statement = f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)"
    types = [_TYPES[type(table.c[name].type)] for name in columns]
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        # As SQLAlchemy would: who retries an outage asks for its errors. Parameters stay out of it.
        raise sa.exc.DBAPIError.instance(
            statement, None, error, psycopg.Error, hide_parameters=True
        ) from None


def change_rows(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """Changes the rows of *table* whose first of *columns* is that of one of *rows*, in the caller's
    transaction: the others of *columns* get its values.
    """
    if not rows:
        return
    key, *changed = columns
    if connection.dialect.name != "postgresql":
        marks = ", ".join(f"{name} = ?" for name in changed)
        statement = f"UPDATE {table.name} SET {marks} WHERE {key} = ?"  # noqa: S608  # our own names
        connection.exec_driver_sql(statement, [(*row[1:], row[0]) for row in rows])
        return
    values = ", ".join(f"{name} = new.{name}" for name in changed)
    statement = (
        f"UPDATE {table.name} SET {values} FROM {_arrays(table, columns)} AS new ({', '.join(columns)}) "  # noqa: S608
        f"WHERE {table.name}.{key} = new.{key}"
    )
    connection.exec_driver_sql(statement, _turned(rows))


def rows_among(
    connection: sa.Connection,
    table: sa.Table,
    columns: Sequence[str],
    key: str,
    values: Iterable[str] | Iterable[bytes] | Iterable[int],
    *conditions: str,
) -> list[Sequence[Any]]:
    """*columns* of the rows of *table* whose column *key* is among *values*, in no order. *conditions* are
    SQL of our own, without parameters, that must hold too. One statement for any number of values in
    PostgreSQL, one for some hundred in SQLite.

    As text and not as SQLAlchemy's expressions: composing, compiling and binding an IN list of hundreds costs
    more than either database needs to find the rows.
    """
    wanted: list[Any] = list(set(values))
    if not wanted:
        return []
    where = "".join(f" AND {condition}" for condition in conditions)
    select = f"SELECT {', '.join(columns)} FROM {table.name} WHERE {key}"  # noqa: S608  # our own names
    if connection.dialect.name == "postgresql":
        return list(connection.exec_driver_sql(f"{select} = ANY(%b){where}", (wanted,)))
    found: list[Sequence[Any]] = []
    for at in range(0, len(wanted), _PARAMETERS):
        part = tuple(wanted[at : at + _PARAMETERS])
        marks = ", ".join("?" * len(part))
        found += connection.exec_driver_sql(f"{select} IN ({marks}){where}", part)
    return found


def rows_named(
    connection: sa.Connection,
    table: sa.Table,
    columns: Sequence[str],
    key: Sequence[str],
    values: Iterable[tuple[str, ...]],
) -> list[Sequence[Any]]:
    """As `rows_among`, for a *key* of several columns."""
    wanted = list(set(values))
    if not wanted:
        return []
    select = f"SELECT {', '.join(columns)} FROM {table.name} WHERE ({', '.join(key)}) IN"  # noqa: S608  # our own names
    if connection.dialect.name == "postgresql":
        statement = f"{select} (SELECT * FROM {_arrays(table, key)})"  # noqa: S608
        return list(connection.exec_driver_sql(statement, _turned(wanted)))
    found: list[Sequence[Any]] = []
    some = _PARAMETERS // len(key)
    for at in range(0, len(wanted), some):
        part = wanted[at : at + some]
        marks = ", ".join([f"({', '.join('?' * len(key))})"] * len(part))
        found += connection.exec_driver_sql(f"{select} (VALUES {marks})", tuple(chain.from_iterable(part)))
    return found


def never_compressed(column: sa.Column[Any]) -> None:
    """Has PostgreSQL store the values of *column* as they are: ciphertext does not shrink, and trying to
    compress it costs a third of storing it.
    """
    statement = f"ALTER TABLE {column.table.name} ALTER COLUMN {column.name} SET STORAGE EXTERNAL"
    alter = sa.DDL(statement)  # type: ignore[no-untyped-call]
    event.listen(column.table, "after_create", alter.execute_if(dialect="postgresql"))


# How PostgreSQL calls a column's type in a binary COPY, where nothing is converted, and in an array.
_TYPES: dict[type, str] = {
    sa.LargeBinary: "bytea",
    sa.BigInteger: "int8",
    sa.Text: "text",
    sa.String: "varchar",
    sa.Boolean: "bool",
}


def _arrays(table: sa.Table, columns: Sequence[str]) -> str:
    arrays = ", ".join(f"%b::{_TYPES[type(table.c[name].type)]}[]" for name in columns)
    return f"unnest({arrays})"


def _turned(rows: Sequence[Sequence[object]]) -> tuple[list[object], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))


def reading(engine: sa.Engine) -> sa.Engine:
    """*engine* for transactions that only read: each sees one moment of the database, whatever others
    commit meanwhile, and waits for no writer."""
    if engine.dialect.name == "postgresql":
        # By default each statement would see another moment: a ledger's head and last entry would not agree.
        return engine.execution_options(reading=True, isolation_level="REPEATABLE READ")
    return engine.execution_options(reading=True)


def answers(engine: sa.Engine) -> bool:
    """Whether the database behind *engine* answers at all."""
    try:
        with reading(engine).connect() as connection:
            connection.exec_driver_sql("SELECT 1")
    except sa.exc.DBAPIError:
        return False
    return True


_SEQUENCE = 0x6973_725F_7365_7175  # "isr_sequ": PostgreSQL's advisory locks are numbers


def in_sequence(connection: sa.Connection, of: str = "") -> None:
    """Lets one transaction at a time go on from here, in the whole database; the others wait until it ends.
    With *of*, one of those with the same name.

    For a transaction that reads what it then changes: call it first, so that it sees all that the one before
    committed. On SQLite every writing transaction is in sequence from its start.
    """
    if connection.dialect.name == "postgresql":
        if of:
            # The form with two numbers never meets the one with one.
            lock = sa.func.pg_advisory_xact_lock(_SEQUENCE >> 32, sa.func.hashtext(of))
        else:
            lock = sa.func.pg_advisory_xact_lock(_SEQUENCE)
        connection.execute(sa.select(lock))
