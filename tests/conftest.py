"""Servers for the tests that need real ones: found by environment, else started privately, else skipped here
and failed in CI."""

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator
from typing import NoReturn

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from schemas import database
from tests import servers
from tests.leftovers import Leftovers

_LEFT = pytest.StashKey[list[str]]()


_leftovers = Leftovers()


def pytest_configure() -> None:
    """Lets SIGTERM end a run as Ctrl-C does: what the fixtures made goes with them."""
    signal.signal(signal.SIGTERM, lambda number, _: pytest.exit("asked to end", 128 + number))


@pytest.hookimpl(trylast=True)  # after pytest's own, which ends the fixtures of a run that was broken off
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run that leaves something behind."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    left = _leftovers.found(*([factory.getbasetemp()] if factory else []))
    if left:
        session.config.stash[_LEFT] = left
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what was left behind."""
    for line in config.stash.get(_LEFT, []):
        terminalreporter.write_line(f"left behind: {line}", red=True)


def missing(error: servers.UnavailableError) -> NoReturn:
    """Skips the test that needs what is missing; in CI fails it."""
    said = f"{error} (tests: ISR_HUB_TEST_POSTGRESQL_URL, ISR_HUB_TEST_RABBITMQ_URL)"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[servers.RabbitServer]:
    """One RabbitMQ for the session."""
    try:
        with servers.rabbitmq() as server:
            yield server
    except servers.UnavailableError as error:
        missing(error)


@pytest.fixture(scope="session")
def own_rabbitmq(rabbitmq_server: servers.RabbitServer) -> Iterator[servers.RabbitServer]:
    """A RabbitMQ on which anything may be set: nobody else uses it."""
    if rabbitmq_server.environment is not None:
        yield rabbitmq_server
        return
    try:
        with servers.private_rabbitmq() as server:
            yield server
    except servers.UnavailableError as error:
        missing(error)


@pytest.fixture(scope="session")
def own_postgresql_url(postgresql_url: str) -> Iterator[str]:
    """The URL of a PostgreSQL whose files can be read and that may be stopped: nobody else uses it."""
    if servers.is_private(postgresql_url):
        yield postgresql_url
        return
    try:
        with servers.private_postgresql() as url:
            yield url
    except servers.UnavailableError as error:
        missing(error)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: servers.RabbitServer) -> Iterator[str]:
    """The URL of a virtual host of this test's own, empty at its start."""
    try:
        with rabbitmq_server.virtual_host() as url:
            yield url
    except servers.UnavailableError as error:
        missing(error)


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """SQLAlchemy's URL of the session's PostgreSQL; its user may create databases."""
    try:
        with servers.postgresql() as url:
            yield url
    except servers.UnavailableError as error:
        missing(error)


@pytest.fixture
def postgresql_empty_database(postgresql_url: str) -> Iterator[str]:
    """The URL of a database of this test's own without any table, as a migration finds it."""
    with new_database(postgresql_url) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_template(postgresql_url: str) -> Iterator[str]:
    """The name of a database with the hub's tables, made once; cloning it is much faster than creating
    them."""
    import gateway.hub  # noqa: F401, PLC0415  # declares every table; only tests that ask for them pay for it

    with new_database(postgresql_url) as url:
        engine = database.open_database(url)
        database.metadata.create_all(engine)
        engine.dispose()
        yield str(sa.make_url(url).database)


@pytest.fixture
def postgresql_database(postgresql_url: str, postgresql_template: str) -> Iterator[str]:
    """The URL of a database of this test's own with the hub's tables."""
    with new_database(postgresql_url, postgresql_template) as url:
        yield url


@contextlib.contextmanager
def new_database(url: str, template: str = "template0") -> Iterator[str]:
    """The URL of a database at *url* that goes with the context, made as *template* is."""
    name, admin = f"test_{secrets.token_hex(6)}", servers.driver_url(url)
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    try:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(create)
        yield sa.make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        # Connected anew: the tests of faults stop the server and start it again.
        with psycopg.connect(admin, autocommit=True) as connection:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))
