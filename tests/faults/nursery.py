"""Starts the hub's processes quickly: a process that has imported everything forks one for each line on its
standard input, and says on its standard output which it started and how each ended.

A forked process is as real as any other: it has its own memory and connections, and SIGKILL ends it. What
is saved is two seconds of imports each time.

In:  {"environment": {...}, "arguments": ["run", "exchange"], "harm": {...}, "log": "file"}
Out: {"started": 123}   {"ended": 123, "status": -9}
"""

import functools
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

MARK = "ISR_HUB_TEST_SESSION"  # as tests.servers has it
ROOT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 240.0


@dataclass(eq=False)
class Child:
    """A process of the hub that the nursery started."""

    pid: int
    log: Path
    ended: threading.Event = field(default_factory=threading.Event)
    status: int | None = None

    def kill(self) -> None:
        """Ends it without warning."""
        if not self.ended.is_set():
            os.kill(self.pid, signal.SIGKILL)
        assert self.ended.wait(_PATIENCE_SECONDS)

    def end(self) -> int | None:
        """Its exit status after a polite request to end."""
        if not self.ended.is_set():
            os.kill(self.pid, signal.SIGTERM)
        assert self.ended.wait(_PATIENCE_SECONDS), self.said()
        return self.status

    def said(self) -> str:
        """The end of what it logged."""
        return self.log.read_text("utf-8", errors="replace")[-2000:]


class Nursery:
    """The forking process, from the side of the tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), MARK: os.environ.get(MARK, "")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._children: dict[int, Child] = {}
        self._started: list[int] = []
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def start(
        self, environment: Mapping[str, str], arguments: list[str], log: Path, harm: Mapping[str, Any]
    ) -> Child:
        """A process of `isr-hub ARGUMENTS` that comes to *harm* as `tests.faults.harm` says."""
        asked = {
            "environment": dict(environment),
            "arguments": arguments,
            "log": str(log),
            "harm": dict(harm),
        }
        with self._starting, self._changed:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            assert self._changed.wait_for(lambda: self._started, _PATIENCE_SECONDS)
            child = self._children[self._started.pop()]
            child.log = log
            return child

    def close(self) -> None:
        """Ends every process that is left, and the nursery."""
        for child in list(self._children.values()):
            child.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_PATIENCE_SECONDS)
        self._reader.join(_PATIENCE_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._changed:
                if "started" in said:
                    self._children[said["started"]] = Child(said["started"], Path())
                    self._started.append(said["started"])
                else:
                    child = self._children.pop(said["ended"])
                    child.status = said["status"]
                    child.ended.set()
                self._changed.notify_all()


def _main() -> None:
    """The nursery itself."""
    import gateway.auth  # noqa: PLC0415  # all that a process of the hub imports, once for all
    import gateway.console  # noqa: PLC0415
    import gateway.door  # noqa: F401, PLC0415
    from consent.agreement import Agreements  # noqa: PLC0415
    from gateway.hub import agreements_folder  # noqa: PLC0415
    from gateway.settings import Settings  # noqa: PLC0415
    from schemas.catalogue import published  # noqa: PLC0415

    published(test_numbers=True)
    read = Agreements.load(agreements_folder(Settings()))
    Agreements.load = lambda *_: read  # type: ignore[assignment, method-assign]  # they do not change here
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    pending, borne = b"", set[int]()
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            borne -= _reap()
        if 0 in ready:
            got = os.read(0, 65536)
            if not got:  # whoever asked is gone
                for pid in borne:
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, pending = (pending + got).split(b"\n")
            for line in lines:
                borne.add(_bear(json.loads(line)))


def _bear(asked: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        _say({"started": pid})
        return pid
    status = 1
    try:
        status = _live(asked)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _live(asked: dict[str, Any]) -> int:
    """What the forked process does: the command, on the day when the agreements are in force."""
    from gateway import command, hub, serve  # noqa: PLC0415
    from tests.faults import harm  # noqa: PLC0415
    from tests.processes import NOW  # noqa: PLC0415

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(asked["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, instead in ((0, nothing), (1, nothing), (2, log)):
        os.dup2(instead, number)
    os.environ.clear()
    os.environ.update(asked["environment"])
    random.seed()  # else all of them would wait equally long before they connect again
    began = float(asked["environment"]["ISR_HUB_TEST_BEGAN"])
    serve.open_hub = functools.partial(  # type: ignore[assignment]  # the command on another day
        hub.open_hub, clock=lambda: NOW + timedelta(seconds=time.monotonic() - began)
    )
    harm.prepare(asked["harm"])
    return command.main(asked["arguments"])


def _reap() -> set[int]:
    reaped: set[int] = set()
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return reaped
        if pid == 0:
            return reaped
        reaped.add(pid)
        _say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(what: dict[str, Any]) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


if __name__ == "__main__":
    _main()
