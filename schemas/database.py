"""The database handle: one engine for SQLite (embedded) or PostgreSQL (real), and the types the tables share.

The tables themselves are declared beside the module that owns them, on this module's `metadata`.
"""

from collections.abc import Sequence
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


def open_database(url: str, *, lock_timeout_seconds: float = 10.0) -> sa.Engine:
    """An engine on *url*.

    SQLite is opened in WAL mode with `synchronous=FULL`: a commit that returned survives a power cut. Every
    transaction takes the write lock at its start, because a read that is later upgraded fails at once when
    another writer came between. Deleted content is overwritten, since it may be somebody's address.
    Errors do not repeat the parameters of a statement: they would carry bodies into logs.
    PostgreSQL gets lock and statement timeouts, so that a stuck peer becomes an error and not a silence, and
    ends a transaction that stands idle: a writer that was cut off, or stopped, must not keep the ledger's
    head locked until its connection is missed.
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
    return sa.create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={
            "options": f"-c lock_timeout={milliseconds} -c statement_timeout={milliseconds * 6} "
            f"-c idle_in_transaction_session_timeout={milliseconds * 6}"
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
    types = [_binary_type(table.c[name]) for name in columns]
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


def _binary_type(column: sa.Column[Any]) -> str:
    """How PostgreSQL calls the type of *column* in a binary COPY."""
    if isinstance(column.type, sa.LargeBinary):
        return "bytea"
    if isinstance(column.type, sa.BigInteger):
        return "int8"
    if isinstance(column.type, sa.Text):
        return "text"
    if isinstance(column.type, sa.String):
        return "varchar"
    raise TypeError(f"no binary form is known for {column.type}")


def reading(engine: sa.Engine) -> sa.Engine:
    """*engine* for transactions that only read; on SQLite they then never wait for a writer."""
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


def in_sequence(connection: sa.Connection) -> None:
    """Lets one transaction at a time go on from here, in the whole database; the others wait until it ends.

    For a transaction that reads what it then changes: call it first, so that it sees all that the one before
    committed. On SQLite every writing transaction is in sequence from its start.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SEQUENCE)))
