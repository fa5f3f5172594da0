"""Servers for the tests that need real ones: found by environment, else started privately, else skipped here
and failed in CI."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import NoReturn

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from schemas import database
from tests import servers


def _missing(error: servers.UnavailableError) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(str(error))
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[servers.RabbitServer]:
    """One RabbitMQ for the session."""
    try:
        with servers.rabbitmq() as server:
            yield server
    except servers.UnavailableError as error:
        _missing(error)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: servers.RabbitServer) -> Iterator[str]:
    """The URL of a virtual host of this test's own, empty at its start."""
    try:
        url = rabbitmq_server.new_virtual_host()
    except servers.UnavailableError as error:
        _missing(error)
    yield url
    rabbitmq_server.drop_virtual_host(url)


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """SQLAlchemy's URL of the session's PostgreSQL; its user may create databases."""
    try:
        with servers.postgresql() as url:
            yield url
    except servers.UnavailableError as error:
        _missing(error)


@pytest.fixture
def postgresql_empty_database(postgresql_url: str) -> Iterator[str]:
    """The URL of a database of this test's own without any table, as a migration finds it."""
    with _database(postgresql_url, template="template0") as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_template(postgresql_url: str) -> Iterator[str]:
    """The name of a database with the hub's tables, made once; cloning it is much faster than creating
    them."""
    import gateway.hub  # noqa: F401, PLC0415  # declares every table; only tests that ask for them pay for it

    with _database(postgresql_url, template="template0") as url:
        engine = database.open_database(url)
        database.metadata.create_all(engine)
        engine.dispose()
        yield str(sa.make_url(url).database)


@pytest.fixture
def postgresql_database(postgresql_url: str, postgresql_template: str) -> Iterator[str]:
    """The URL of a database of this test's own with the hub's tables."""
    with _database(postgresql_url, template=postgresql_template) as url:
        yield url


@contextlib.contextmanager
def _database(url: str, template: str) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(servers.driver_url(url), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        yield sa.make_url(url).set(database=name).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
