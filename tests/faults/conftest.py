"""One world for all kinds of faults; a broken one is replaced. The report is printed at the end."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.faults import breakable
from tests.faults.nursery import Nursery
from tests.faults.report import lines
from tests.faults.world import Row

SEED = int(os.environ.get("ISR_HUB_TEST_FAULTS_SEED", "20261122"))
_rows: list[Row] = []


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """The report's rows, in the order in which they come."""
    return _rows


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def breakable_servers(
    own_rabbitmq: servers.RabbitServer, own_postgresql_url: str
) -> Iterator[breakable.Servers]:
    """Servers that may be stopped."""
    with breakable.private(own_rabbitmq, own_postgresql_url) as found:
        yield found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the report, and writes it where `ISR_HUB_TEST_FAULTS_REPORT` says."""
    if not _rows:
        return
    terminalreporter.section("faults")
    for line in lines(_rows, SEED):
        terminalreporter.write_line(line)
    if path := os.environ.get("ISR_HUB_TEST_FAULTS_REPORT"):
        report = {"seed": SEED, "faults": [vars(row) for row in _rows]}
        Path(path).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
