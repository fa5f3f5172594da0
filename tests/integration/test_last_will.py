"""Whatever ends a run, and however, nothing of it is left: real processes, ended by real signals."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.sandbox.last_will import temporary_folder
from tests import servers
from tests.conftest import missing
from tests.leftovers import processes

ROOT = Path(__file__).parents[2]
START_SECONDS, END_SECONDS = 120.0, 40.0
STARTS = """
import signal
from tests import servers
with servers.private_rabbitmq(), servers.private_postgresql() as url:
    with servers.psycopg.connect(servers.driver_url(url)):
        print("ready", flush=True)
        signal.pause()
"""
WORKS = """
import os, time
from pathlib import Path

def test_that_takes_long(rabbitmq_url, postgresql_empty_database):
    Path(os.environ["TOLD"]).write_text(f"{rabbitmq_url} {postgresql_empty_database}\\n")
    time.sleep(600)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that a server's own user gets through to; processes are known by its name."""
    with temporary_folder("isr-hub-last-will-") as folder:
        folder.chmod(0o711)
        yield folder


@contextlib.contextmanager
def started(place: Path, *arguments: str, **more: str) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ISR_HUB_")}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(place), servers.MARK: place.name, **more}
    # A suite in the background of a shell inherits that Ctrl-C is ignored, and would hand it on.
    with subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(
    holds: Callable[[], bool], seconds: float, process: "subprocess.Popen[bytes] | None" = None
) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.1)


def left(place: Path) -> list[str]:
    """Processes and folders of the run that knows *place*."""
    folders = [path for top in (place, servers.MEMORY) for path in top.glob(f"isr-hub-*{place.name}*")]
    folders += [path for path in place.glob("isr-hub-*") if path not in folders]
    return processes([place.name]) + [str(folder) for folder in folders]


def running(place: Path, *names: str) -> bool:
    """Whether a process of each of *names* is among those of the run that knows *place*."""
    found = processes([place.name])
    return all(any(name in line for line in found) for name in names)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_private_servers_end_with_whoever_started_them(
    place: Path, rabbitmq_server: servers.RabbitServer, number: signal.Signals
) -> None:
    """The fixture says that they can be started here at all."""
    with started(place, "-c", STARTS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert running(place, "beam.smp", "epmd", "postgres")
        assert len(left(place)) > 4

        process.send_signal(number)
        process.wait(END_SECONDS)

    until(lambda: left(place) == [], END_SECONDS)


def test_servers_that_are_only_starting_end_too(place: Path, rabbitmq_server: servers.RabbitServer) -> None:
    with started(place, "-c", STARTS) as process:
        until(lambda: running(place, "beam.smp"), START_SECONDS, process)
        process.kill()
        process.wait(END_SECONDS)

    until(lambda: left(place) == [], END_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_bench_leaves_nothing_on_whatever_it_was_at(
    place: Path, rabbitmq_server: servers.RabbitServer, number: signal.Signals
) -> None:
    """Two servers, three processes of the hub, and a folder."""
    command = ["-m", "gateway.command", "bench", "year", "--episodes", "20000"]
    with started(place, *command) as process:
        until(lambda: running(place, "beam.smp", "postgres"), START_SECONDS, process)
        until(
            lambda: sum("spawn_main" in line for line in processes([place.name])) >= 3, START_SECONDS, process
        )
        process.send_signal(number)
        process.wait(END_SECONDS)

    until(lambda: left(place) == [], END_SECONDS)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 2)])
def test_run_of_the_tests_that_is_asked_to_end_gives_back_what_it_made_on_servers(
    place: Path,
    rabbitmq_server: servers.RabbitServer,
    postgresql_url: str,
    number: signal.Signals,
    status: int,
) -> None:
    if rabbitmq_server.management is None:
        missing(servers.UnavailableError("needs RabbitMQ's management API"))
    test, told = place / "test_long.py", place / "told"
    test.write_text(WORKS, "utf-8")
    named = {
        "ISR_HUB_TEST_RABBITMQ_URL": rabbitmq_server.url,
        "ISR_HUB_TEST_RABBITMQ_MANAGEMENT_URL": rabbitmq_server.management,
        "ISR_HUB_TEST_POSTGRESQL_URL": postgresql_url,
        "TOLD": str(told),
    }
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", str(test)]
    with started(place, *command, **named) as process:
        until(lambda: told.exists() and told.read_text().endswith("\n"), START_SECONDS, process)
        process.send_signal(number)
        assert process.stdout is not None
        said = process.stdout.read().decode()
        assert process.wait(END_SECONDS) == status, said

    host, database = (url.rsplit("/", 1)[1] for url in told.read_text().split())
    assert host not in rabbitmq_server.virtual_hosts()
    with psycopg.connect(servers.driver_url(postgresql_url)) as connection:
        rows = connection.execute("SELECT datname FROM pg_database").fetchall()
    assert (database,) not in rows


def test_folder_goes_after_the_processes_that_write_into_it(place: Path) -> None:
    """One that does not end when it is told to, and goes on making files."""
    program = (
        "import signal, sys\n"
        "from gateway.sandbox.last_will import running, temporary_folder\n"
        "with temporary_folder('isr-hub-') as folder:\n"
        "    stubborn = f'trap \"\" TERM; while mkdir -p {folder}/a; do sleep 0.01; done; sleep 60'\n"
        "    with running(['/bin/sh', '-c', stubborn], signal.SIGTERM):\n"
        "        print('ready', flush=True)\n"
        "        signal.pause()\n"
    )
    with started(place, "-c", program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        until(lambda: list(place.glob("isr-hub-*/a")) != [], START_SECONDS, process)
        process.kill()

    until(lambda: left(place) == [], END_SECONDS)


def test_command_does_not_run_before_the_companion_knows_it(place: Path) -> None:
    """Ended between the two, a process leaves nothing that runs."""
    program = (
        "import os, signal\n"
        "from gateway.sandbox import last_will\n"
        "last_will.ended_with_us = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "last_will.running(['/bin/sh', '-c', 'touch $TMPDIR/ran; sleep 60']).__enter__()\n"
    )
    with started(place, "-c", program) as process:
        assert process.wait(END_SECONDS) == -signal.SIGKILL

    until(lambda: left(place) == [], END_SECONDS)
    assert not (place / "ran").exists()


def test_nothing_stays_where_everything_ended_in_its_turn(place: Path) -> None:
    program = (
        "from gateway.sandbox.last_will import running, temporary_folder\n"
        "with temporary_folder('isr-hub-') as folder, running(['/bin/sleep', '60']) as process:\n"
        "    assert folder.exists() and process.poll() is None\n"
        "assert not folder.exists() and process.returncode == -9\n"
    )
    with started(place, "-c", program) as process:
        assert process.wait(END_SECONDS) == 0
    assert left(place) == []
