"""A hub killed at any moment, by a signal that no code can catch, loses nothing and does nothing twice.

Run as a module this is the hub's command with senders that take notes: what they were told is accepted
before the kill must be carried after it.
"""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.command import main
from gateway.exchange import Exchange, Receipt
from gateway.hub import open_hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import build
from gateway.settings import Settings
from tests.acceptance.check import Disk, Key, releases, settled
from tests.acceptance.faults import folder_in_memory

ROOT = Path(__file__).parents[2]
_LOOK_SECONDS = 0.002  # between two looks at how far the process is
Progress = Callable[[Path], int]


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as made:
        yield made


def entries(data: Path) -> int:
    """How many entries are committed."""
    return _count(data, "SELECT size FROM ledger_head")


def queued(data: Path) -> int:
    """How many messages were ever published."""
    return _count(data, "SELECT seq FROM sqlite_sequence WHERE name = 'queue_message'")


def handed_out(data: Path) -> int:
    """Up to which message the submissions are being carried."""
    return _count(data, "SELECT delivered FROM queue_mark WHERE queue = 'submissions'")


def files(data: Path) -> int:
    """How many files the agencies have received."""
    return sum(1 for _ in data.glob("agencies/*/received/*"))


def opened(data: Path) -> int:
    """Whether there is a database yet, be it without a table."""
    return int((data / "hub.db").exists())


def _count(data: Path, query: str) -> int:
    try:
        connection = sqlite3.connect(f"file:{data / 'hub.db'}?mode=ro", uri=True)
        try:
            row = connection.execute(query).fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError:  # not there yet
        return 0
    return int(row[0]) if row else 0


def hub(*arguments: str) -> "subprocess.Popen[bytes]":
    """A process of the hub's command."""
    return _start("gateway.command", *arguments)


def _start(module: str, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def kill(
    process: "subprocess.Popen[bytes]", data: Path, progress: Progress, threshold: int, later: int = 0
) -> bool:
    """Kills *process* *later* looks after its *progress* in *data* reached *threshold*; False when it ended
    before."""
    with process:
        while process.poll() is None and (progress(data) < threshold or (later := later - 1) >= 0):
            try:
                process.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        process.kill()
    return process.returncode == -signal.SIGKILL


def succeed(*arguments: str) -> None:
    """Runs the hub's command, which exits with 0."""
    process = hub(*arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output.decode()


def whats_wrong(data: Path, accepted: set[Key]) -> list[str]:
    with open_hub(Settings(data=data)) as found:
        return settled(found, accepted, set())


def notes(path: Path) -> set[Key]:
    """What the senders noted: a line each, party and message id."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return {(party, name) for party, name in (line.split() for line in lines)}


# The moments differ from run to run within the width of a step: what is waited for is progress, not time.
_dice = Random(20261122)
MOMENTS = [
    pytest.param(opened, 1, id="making the database"),
    pytest.param(queued, 1, id="first submission"),
    *(pytest.param(entries, _dice.randint(2, 500), id=f"entries {n}") for n in range(3)),
    *(pytest.param(files, _dice.randint(2, 150), id=f"files {n}") for n in range(2)),
]


@pytest.mark.parametrize(("progress", "threshold"), MOMENTS)
def test_a_day_that_is_killed_is_finished_by_the_next_process(
    folder: Path, progress: Progress, threshold: int
) -> None:
    data, noted = folder / "demo", folder / "notes"
    demo = "demo", "--episodes", "30", "--releases", "3", "--data", str(data), "--json"
    assert kill(_start(__name__, str(noted), *demo), data, progress, threshold)
    if entries(data):
        assert releases(Disk.read(data)) == []
        assert notes(noted)
    succeed("run", "all", "--data", str(data), "--until-idle", "--json")
    assert whats_wrong(data, notes(noted)) == []
    succeed("verify", str(data))


def test_a_recovery_that_is_killed_again_and_again_is_finished_by_the_next_process(folder: Path) -> None:
    population = build(seed=7, episodes=230, releases=0)
    natives = [five_f(population.family(episode.family), episode) for episode in population.episodes]
    with open_hub(Settings(data=folder)) as found:
        receipts = found.exchange.accept("police", natives)
    accepted = {("police", name) for receipt in receipts for name in receipt.accepted}
    assert len(accepted) == len(natives)
    run = "run", "all", "--data", str(folder), "--until-idle", "--json"
    dice = Random(7)
    kills = 0
    for progress, threshold in [
        (handed_out, 2),
        (entries, 1),
        (files, 1),
        *((files, dice.randint(2, 300)) for _ in range(2)),
    ]:
        kills += kill(hub(*run), folder, progress, threshold, later=dice.randint(0, 60))
        assert releases(Disk.read(folder)) == []
    assert kills >= 3  # the last one may find nothing left to do
    succeed(*run)
    assert whats_wrong(folder, accepted) == []
    succeed("verify", str(folder))


def _with_notes(path: str, *arguments: str) -> int:
    """The hub's command with *arguments*; senders note in *path* what they were told is accepted."""
    accept = Exchange.accept
    with Path(path).open("a", encoding="utf-8") as file:

        def noted(self: Exchange, party: str, natives: Any) -> list[Receipt]:
            receipts = accept(self, party, natives)
            file.writelines(f"{party} {name}\n" for receipt in receipts for name in receipt.accepted)
            file.flush()  # to the system: it outlives this process
            return receipts

        Exchange.accept = noted  # type: ignore[method-assign]  # in a process of its own
        return main(arguments)


if __name__ == "__main__":
    sys.exit(_with_notes(*sys.argv[1:]))
