"""Rows in bulk, on both databases: what is added, changed and found is what plain statements would say."""

import hmac
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from consent.people import Digest
from schemas.database import BigInt, add_rows, change_rows, open_database, rows_among, rows_named

_tables = sa.MetaData()
thing = sa.Table(
    "thing",
    _tables,
    sa.Column("number", BigInt, primary_key=True),
    sa.Column("place", sa.String(40), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary(32), nullable=False),
    sa.Column("is_new", sa.Boolean, nullable=False),
    sa.Column("size", BigInt, nullable=True),
    sa.UniqueConstraint("place", "name"),
)
COLUMNS = ("place", "name", "key", "is_new", "size")
MANY = 2_003  # more than fit into one statement of SQLite
# What a text form of arrays or rows would have to escape.
AWKWARD = ["", "NULL", "{}", '"', "\\", "a,b", "tab\tnewline\n", "Māori 'ā'", "\\N", "%s ? :x"]


@pytest.fixture(scope="module")
def postgresql_engine(postgresql_url: str) -> Iterator[sa.Engine]:
    """A database of this module's own; making one for each test would take longer than the tests."""
    name = f"test_database_{secrets.token_hex(6)}"
    server = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine = open_database(sa.make_url(postgresql_url).set(database=name).render_as_string(False))
        yield engine
        engine.dispose()
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Connection]:
    if request.param == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path / 'hub.db'}")
    else:
        engine = request.getfixturevalue("postgresql_engine")
    _tables.create_all(engine)
    with engine.connect() as connection, connection.begin():
        yield connection
    _tables.drop_all(engine)
    if request.param == "sqlite":
        engine.dispose()


def rows(texts: list[str]) -> list[tuple[str, str, bytes, bool, int | None]]:
    return [
        (f"place {n % 7}", text, text.encode()[:32], n % 2 == 0, None if n % 3 else 2**40 + n)
        for n, text in enumerate(texts)
    ]


def everything(connection: sa.Connection) -> list[tuple[object, ...]]:
    query = sa.select(*(thing.c[name] for name in COLUMNS)).order_by(thing.c.number)
    return [tuple(row) for row in connection.execute(query)]


def test_rows_are_added_as_they_are_in_their_order_and_numbered(connection: sa.Connection) -> None:
    said = rows(AWKWARD + [f"name {n}" for n in range(MANY)])

    add_rows(connection, thing, COLUMNS, said[:5])
    add_rows(connection, thing, COLUMNS, [])
    add_rows(connection, thing, COLUMNS, said[5:])

    assert everything(connection) == said
    assert connection.execute(sa.select(sa.func.count(thing.c.number.distinct()))).scalar() == len(said)


def test_a_row_under_a_key_that_is_there_is_an_integrity_error(connection: sa.Connection) -> None:
    [row] = rows(["one"])
    add_rows(connection, thing, COLUMNS, [row])

    with pytest.raises(sa.exc.IntegrityError) as raised, connection.begin_nested():
        add_rows(connection, thing, COLUMNS, [row])
    assert "place 0" not in str(raised.value.statement)

    assert everything(connection) == [row]


def test_rows_are_changed_under_their_key_and_no_others(connection: sa.Connection) -> None:
    texts = AWKWARD + [f"name {n}" for n in range(MANY)]
    add_rows(connection, thing, COLUMNS, rows(texts))
    changed = {text: f"{text} elsewhere"[:40] for text in texts[::2]}

    change_rows(connection, thing, ("name", "place", "size"), [(t, p, 5) for t, p in changed.items()])
    change_rows(connection, thing, ("name", "place", "size"), [("nobody", "nowhere", 1)])
    change_rows(connection, thing, ("name", "place", "size"), [])

    assert everything(connection) == [
        (changed.get(text, place), text, key, new, 5 if text in changed else size)
        for place, text, key, new, size in rows(texts)
    ]


@pytest.mark.parametrize("column", ["name", "key", "size"])
def test_rows_are_found_by_any_number_of_keys(connection: sa.Connection, column: str) -> None:
    said = rows(AWKWARD + [f"name {n}" for n in range(MANY)])
    add_rows(connection, thing, COLUMNS, said)
    at = COLUMNS.index(column)
    wanted = [row[at] for row in said[::2] if row[at] is not None]

    found = rows_among(connection, thing, COLUMNS, column, wanted + wanted)  # type: ignore[arg-type]
    new = rows_among(connection, thing, (column,), column, wanted, "is_new = true", "size > 7")  # type: ignore[arg-type]

    assert {tuple(row) for row in found} == {row for row in said if row[at] in set(wanted)}
    assert len(found) == len(set(wanted))
    assert {row[0] for row in new} == {row[at] for row in said[::2] if row[3] and row[4]}
    assert rows_among(connection, thing, COLUMNS, column, []) == []


def test_rows_are_found_by_a_key_of_two_columns_and_not_by_half_of_it(connection: sa.Connection) -> None:
    said = rows(AWKWARD + [f"name {n}" for n in range(MANY)])
    add_rows(connection, thing, COLUMNS, said)
    wanted = [(place, name) for place, name, *_ in said[::2]]
    halves = [("place 6", name) for place, name, *_ in said if place != "place 6"]

    found = rows_named(connection, thing, COLUMNS, ("place", "name"), [*wanted, *wanted, *halves])

    assert {tuple(row) for row in found} == set(said[::2])
    assert len(found) == len(wanted)
    assert rows_named(connection, thing, COLUMNS, ("place", "name"), []) == []


@given(st.binary(min_size=1, max_size=32), st.binary(max_size=200))
def test_digest_is_hmac(key: bytes, text: bytes) -> None:
    digest = Digest(key)

    assert [digest(text), digest(b""), digest(text)] == [
        hmac.digest(key, said, "sha256") for said in (text, b"", text)
    ]
