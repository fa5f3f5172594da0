"""What a run of the tests leaves behind: processes, folders of private servers, and databases, virtual hosts
and users on servers that belong to somebody else. There must be nothing."""

import os
import secrets
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psycopg

from tests import servers

# Python's own companion of a process that started others (`multiprocessing`): it ends when this one does.
_TRACKER = b"from multiprocessing.resource_tracker import main"
_PATIENCE_SECONDS = 15.0  # a process that was told to end needs a moment


class Leftovers:
    """Looks once at the start of a run and again at its end. Everything that the run starts carries its mark
    in the environment or on the command line."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self.mark, self._patience_seconds = f"{os.getpid()}x{secrets.token_hex(4)}", patience_seconds
        os.environ[servers.MARK] = self.mark
        self._before = _on_servers()

    def found(self, *folders: Path) -> list[str]:
        """What is left; *folders* are others that only this run knows, whose names processes may carry."""
        marks = [self.mark, *map(str, folders)]
        deadline = time.monotonic() + self._patience_seconds
        while (left := processes(marks)) and time.monotonic() < deadline:
            time.sleep(0.1)
        places = {Path(tempfile.gettempdir()), servers.MEMORY}
        left += [f"folder {path}" for place in places for path in place.glob(f"isr-hub-*{self.mark}*")]
        return left + sorted(_on_servers() - self._before)


def processes(marks: Iterable[str]) -> list[str]:
    """The processes that carry one of *marks* on their command line or in their environment, a line each."""
    wanted = [mark.encode() for mark in marks]
    left = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        try:
            told = (folder / "cmdline").read_bytes()
            if _TRACKER in told and _is_ours(folder):
                continue
            if told and any(mark in told or mark in _environment(folder) for mark in wanted):
                command = told.replace(bytes(1), b" ").decode(errors="replace")
                left.append(f"process {folder.name}: {command[:120]}")
        except OSError:  # it ended, or is somebody else's
            continue
    return left


def _environment(folder: Path) -> bytes:
    """What the process of *folder* in /proc was started with; nothing when it may not be read."""
    try:
        return (folder / "environ").read_bytes()
    except PermissionError:
        return b""


def _is_ours(folder: Path) -> bool:
    """Whether the process of *folder* in /proc is a child of this one."""
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid()


def _on_servers() -> set[str]:
    """Databases, virtual hosts and users of the servers that the tests use and did not start."""
    found: set[str] = set()
    if rabbit := servers.found_rabbitmq():
        found |= {f"virtual host {name}" for name in rabbit.virtual_hosts()}
        found |= {f"user {name}" for name in rabbit.users()}
    if url := servers.found_postgresql():
        with psycopg.connect(servers.driver_url(url)) as connection:
            rows = connection.execute("SELECT datname FROM pg_database").fetchall()
        found |= {f"database {name}" for (name,) in rows}
    return found
