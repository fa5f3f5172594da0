"""Work in processes of its own, and what processes hold in memory."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import tenacity

from gateway.sandbox.last_will import ended_with_us
from schemas.errors import Unconfirmed

T = TypeVar("T")
_PATIENCE_SECONDS = 30.0
_ATTEMPTS = 5
_spawn = multiprocessing.get_context("spawn")  # forked, a process would share our threads' locks


class Ended(RuntimeError):
    """A process of the bench ended before it said what it found."""


class Child:
    """A process that runs *work* with a connection to us and *arguments*."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self.ours, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=work, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def id(self) -> int:
        """Its process id."""
        return self._process.pid or 0

    def answer(self) -> Any:
        """What it says next. Raises `Ended`."""
        try:
            return self.ours.recv()
        except EOFError:
            raise Ended("a process of the bench ended by itself; its output says why") from None

    def says(self, seconds: float) -> bool:
        """Whether it said something within *seconds*."""
        return self.ours.poll(seconds)

    def tell(self, word: Any) -> None:
        """Says *word* to it."""
        self.ours.send(word)

    def end(self) -> None:
        """Waits for its end, or ends it."""
        self.ours.close()
        self._process.join(_PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def child(work: Callable[..., None], *arguments: Any) -> Iterator[Child]:
    """A `Child` that is gone after the context, and with us."""
    made = Child(work, *arguments)
    with ended_with_us(made.id):
        try:
            yield made
        except BaseException:
            made._process.kill()
            raise
        finally:
            made.end()


def told(connection: Connection, seconds: float = 0.0) -> Any:
    """In a child: what it is told, or None when it is told nothing within *seconds* or we are gone."""
    try:
        return connection.recv() if connection.poll(seconds) else None
    except EOFError:
        raise SystemExit(1) from None


def patiently(act: Callable[..., T], *arguments: Any) -> T:
    """What *act* of *arguments* returns; tried again where a busy server does not confirm or answer in time,
    as whoever sends to a hub does.
    """
    trying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((Unconfirmed, sa.exc.OperationalError)),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_fixed(1),
        reraise=True,
    )
    return trying(act, *arguments)


def peak_megabytes(process: int | str = "self") -> float:
    """The most memory that *process* ever held resident (Linux's VmHWM)."""
    return _status(process, "VmHWM")


def servers_megabytes() -> dict[str, float]:
    """What the private servers below this process hold now: RabbitMQ, and PostgreSQL's largest process."""
    found: dict[str, float] = {}
    for process in _descendants():
        name = {"beam.smp": "RabbitMQ", "postgres": "PostgreSQL"}.get(_name(process), "")
        if name:
            found[name] = max(found.get(name, 0.0), _status(process, "VmRSS"))
    return found


def _descendants() -> set[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(path.name)] = int(fields[1])
    found, size = {os.getpid()}, 0
    while size != len(found):
        size = len(found)
        found |= {process for process, parent in parents.items() if parent in found}
    return found


def _name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _status(process: int | str, field: str) -> float:
    try:
        text = Path(f"/proc/{process}/status").read_text("utf-8", "replace")
    except OSError:
        return 0.0
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0
