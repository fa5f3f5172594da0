"""The check at the end of every run finds what tests leave behind."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests import servers
from tests.leftovers import Leftovers


@pytest.fixture
def leftovers(monkeypatch: pytest.MonkeyPatch) -> Leftovers:
    monkeypatch.setenv(servers.MARK, "")  # put back afterwards
    return Leftovers(patience_seconds=0.2)


def found_at_last(leftovers: Leftovers, *folders: Path) -> list[str]:
    """What is found; a process that was only just started is given a moment to become what it will be."""
    deadline = time.monotonic() + 10
    while not (found := leftovers.found(*folders)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_nothing_is_left_by_a_run_that_does_nothing(leftovers: Leftovers) -> None:
    assert leftovers.found() == []


def test_process_that_outlives_the_run_is_found(leftovers: Leftovers) -> None:
    """Also one that nobody is the parent of any more."""
    command = ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"]
    told = subprocess.run(command, capture_output=True, check=True, text=True)
    pid = int(told.stdout)
    try:
        assert found_at_last(leftovers) == [f"process {pid}: sleep 60 "]
    finally:
        os.kill(pid, 9)


def test_process_that_works_in_a_folder_of_the_run_is_found(leftovers: Leftovers, tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.touch()
    process = subprocess.Popen(["tail", "-f", str(file)], env={})
    try:
        [found] = found_at_last(leftovers, tmp_path)
    finally:
        process.kill()
        process.wait()

    assert found.startswith(f"process {process.pid}: tail")


def test_folder_of_a_private_server_is_found(leftovers: Leftovers) -> None:
    with tempfile.TemporaryDirectory(prefix=f"isr-hub-rabbitmq-{leftovers.mark}-") as folder:
        assert leftovers.found() == [f"folder {folder}"]


def test_database_and_virtual_host_on_somebodys_server_are_found(
    leftovers: Leftovers, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"database test_1", "virtual host test-1"}
    monkeypatch.setattr("tests.leftovers._on_servers", lambda: left)

    assert leftovers.found() == sorted(left)
