"""What is done for a process that ends before it could do it itself: the servers that it started are ended,
its temporary folders removed.

Nobody can catch SIGKILL, and whoever is asked twice to end may end in the middle of clearing up. So a
companion process waits at a pipe whose other end is ours alone; when the kernel closes that, it does what is
still to be done. It is there only while there is something to do, and needs nothing but Python's own library.

Linux can also send a signal to the children of whoever dies (`PR_SET_PDEATHSIG`). That reaches neither a
server's own children nor folders, and is lost where a program changes its user.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_PATIENCE_SECONDS = 15.0  # for whoever was told to end
_lock = threading.RLock()
_present: list["_Companion"] = []  # none, or the one that runs


@contextlib.contextmanager
def running(
    command: Sequence[str], stop: signal.Signals = signal.SIGKILL, **options: Any
) -> Iterator["subprocess.Popen[bytes]"]:
    """*command* as the leader of a group of processes that ends with the context, or with us, by *stop* and
    where that does not help by SIGKILL. *options* are those of `subprocess.Popen`.
    """
    # It waits until the companion knows it, and ends when we do before that: at no moment can it be left.
    held = ["/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh", *command]
    # A session of its own: Ctrl-C in the terminal is ours.
    process = subprocess.Popen(held, stdin=subprocess.PIPE, start_new_session=True, **options)
    with ended_with_us(process.pid, stop):
        try:
            if process.stdin is not None:
                with process.stdin as go:
                    go.write(b"\n")
            yield process
        finally:
            end(process.pid, stop)
            process.wait()


@contextlib.contextmanager
def ended_with_us(process: int, stop: signal.Signals = signal.SIGKILL) -> Iterator[None]:
    """Has *process*, with its group where it leads one, ended by *stop* if we end within the context."""
    with _willed({"process": process, "stop": int(stop)}):
        yield


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder that goes with the context, or with us: then after every process that ends with us."""
    path = (parent or Path(tempfile.gettempdir())) / f"{prefix}{secrets.token_hex(6)}"
    with _willed({"folder": str(path)}):
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def end(process: int, stop: signal.Signals) -> None:
    """Ends *process*, with its group where it leads one, by *stop*, and where that does not help by SIGKILL.
    When it returns, nothing of it runs.
    """
    for number in (stop, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            _send(process, number)
            _send(process, signal.SIGCONT)  # one that was paused would not notice
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while _runs(process):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return


def _send(process: int, number: signal.Signals) -> None:
    try:
        os.killpg(process, number)
    except ProcessLookupError:  # it leads no group, or is gone
        os.kill(process, number)


def _runs(process: int) -> bool:
    """Whether *process* or one of its group runs; one that has ended and was not waited for does not."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            told = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            if told[0] != "Z" and process in (int(folder.name), int(told[2])):
                return True
    return False


class _Companion:
    """The process that outlives us, and how many things it may have to do."""

    def __init__(self) -> None:
        self.tasks = 0
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # whoever ends us all together does not end it
        )

    def tell(self, word: str, what: Mapping[str, Any]) -> None:
        """Says *word* (`do`, or `done` by ourselves) about *what*."""
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps([word, what]).encode() + b"\n")
            self._process.stdin.flush()

    def dismiss(self) -> None:
        """Lets it end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def _willed(what: Mapping[str, Any]) -> Iterator[None]:
    with _lock:
        if not _present:
            _present.append(_Companion())
        companion = _present[0]
        companion.tasks += 1
        companion.tell("do", what)
    try:
        yield
    finally:
        with _lock:
            companion.tell("done", what)
            companion.tasks -= 1
            if not companion.tasks:
                _present.clear()
                companion.dismiss()


def _main() -> None:
    """The companion itself."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when it has nothing left to do, and not before
    left: list[Mapping[str, Any]] = []
    for line in sys.stdin.buffer:
        with contextlib.suppress(ValueError):  # what broke off in the middle
            word, what = json.loads(line)
            if word == "do":
                left.append(what)
            else:
                left.remove(what)
    # The last first, as we would have: a server restarts the port mapper that it misses.
    for what in reversed(left):
        if "process" in what:
            end(what["process"], signal.Signals(what["stop"]))
    for what in left:
        if "folder" in what:
            shutil.rmtree(what["folder"], ignore_errors=True)


if __name__ == "__main__":
    _main()
