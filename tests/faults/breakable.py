"""Private servers that the tests stop hard and start again in place, with the data that they had."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import pika.exceptions
import psycopg

from gateway.sandbox import last_will
from gateway.sandbox.servers import POSTGRESQL_STOP, RABBITMQ_PROGRAMS, START_SECONDS
from tests.servers import RabbitServer, driver_url

_Starting = AbstractContextManager["subprocess.Popen[bytes]"]


@dataclass(frozen=True, slots=True)
class Servers:
    """Private servers that may be stopped: what their URLs are, and what stops them."""

    rabbit: RabbitServer
    database_url: str
    rabbitmq: "Breakable"
    postgresql: "Breakable"


@contextlib.contextmanager
def private(server: RabbitServer, database_url: str) -> Iterator[Servers]:
    """*server* and the PostgreSQL at *database_url*, which are private ones: nobody stops a server that
    belongs to somebody."""
    found = Servers(server, database_url, rabbitmq(server), postgresql(database_url))
    with contextlib.ExitStack() as stack:
        stack.callback(found.rabbitmq.close)
        stack.callback(found.postgresql.close)
        yield found


class Breakable:
    """A server process that was started elsewhere. The one that started it ends it; what was started here
    ends with `close`."""

    def __init__(self, pid: Callable[[], int], start: Callable[[], _Starting], log: Path) -> None:
        self._pid, self._start, self._log = pid, start, log
        self._ours = contextlib.ExitStack()

    def stop(self, number: signal.Signals) -> None:
        """Sends *number* to the server and waits until the process is gone."""
        pid = self._pid()
        os.kill(pid, number)
        deadline = time.monotonic() + START_SECONDS
        while _runs(pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def start(self, answers: Callable[[], bool]) -> None:
        """Starts it again, and waits until it *answers*."""
        process = self._ours.enter_context(self._start())
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            assert process.poll() is None, self._log.read_text("utf-8", "replace")[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def pause(self, number: signal.Signals) -> None:
        """Sends *number* (SIGSTOP, SIGCONT) to the server and its children."""
        pid = self._pid()
        for each in (pid, *_children(pid)):
            os.kill(each, number)

    def close(self) -> None:
        """Ends what was started here."""
        self._ours.close()


@contextlib.contextmanager
def _again(
    command: Sequence[str], log: Path, stop: signal.Signals, **options: Any
) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        log.open("ab") as output,
        last_will.running(
            command, stop, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT, **options
        ) as process,
    ):
        yield process


def rabbitmq(server: RabbitServer) -> Breakable:
    """The private RabbitMQ *server*."""
    environment = server.environment or {}
    pid_file = Path(environment["RABBITMQ_PID_FILE"])
    log = pid_file.parent / "again.out"

    def start() -> _Starting:
        return _again([str(RABBITMQ_PROGRAMS / "rabbitmq-server")], log, signal.SIGKILL, env=environment)

    return Breakable(lambda: int(pid_file.read_text()), start, log)


def rabbitmq_answers(url: str) -> bool:
    """Whether the virtual host of *url* is there."""
    try:
        pika.BlockingConnection(pika.URLParameters(url)).close()
    except (pika.exceptions.AMQPError, OSError):
        return False
    return True


def postgresql(url: str) -> Breakable:
    """The private PostgreSQL at *url*."""
    with psycopg.connect(driver_url(url)) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    pid_file, log = Path(row[0]) / "postmaster.pid", Path(row[0]).parent / "again.out"
    pid = int(pid_file.read_text().split()[0])
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    environment = dict(
        line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if line
    )
    owner = Path(f"/proc/{pid}").stat()
    as_root = os.geteuid() == 0

    def start() -> _Starting:
        return _again(
            command,
            log,
            POSTGRESQL_STOP,
            env=environment,
            user=owner.st_uid if as_root else None,
            group=owner.st_gid if as_root else None,
            extra_groups=[] if as_root else None,
        )

    return Breakable(lambda: int(pid_file.read_text().split()[0]), start, log)


def postgresql_answers(url: str) -> bool:
    """Whether the database of *url* takes connections."""
    try:
        psycopg.connect(driver_url(url)).close()
    except psycopg.OperationalError:
        return False
    return True


def port_of(url: str) -> int:
    """The port that *url* names."""
    port = urlsplit(url).port
    assert port is not None
    return port


def through(url: str, port: int) -> str:
    """*url* by way of *port*."""
    return url.replace(f":{port_of(url)}/", f":{port}/")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends between the two
        return False


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]
