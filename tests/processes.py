"""`isr-hub run` as real processes on a day when the agreements are in force, and an agency that sends again
until it is answered."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from adapters.adapter import Native
from gateway.hub import Hub
from gateway.sandbox.last_will import ended_with_us
from gateway.settings import Settings
from schemas.errors import Unconfirmed

PATIENCE_SECONDS = 120.0
NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
# The command itself, on that day.
PROGRAM = """
import functools, sys, time
from datetime import UTC, datetime, timedelta
from gateway import command, hub, serve
began = time.monotonic()
def clock(): return datetime(2026, 11, 22, 3, tzinfo=UTC) + timedelta(seconds=time.monotonic() - began)
serve.open_hub = functools.partial(hub.open_hub, clock=clock)
sys.exit(command.main(sys.argv[1:]))
"""


@contextlib.contextmanager
def running(
    settings: Settings, *arguments: str, before: str = "", **more: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """`isr-hub run` on *settings*, killed at the end if it still runs. *before* is Python that it runs first,
    *more* is put into its environment.
    """
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "ISR_HUB_DATA": str(settings.data),
        "ISR_HUB_DATABASE_URL": settings.database_url,
        "ISR_HUB_BROKER_URL": settings.broker_url,
        **({"ISR_HUB_RECIPIENTS": str(settings.recipients)} if settings.recipients else {}),
        **more,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", before + PROGRAM, "run", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        with ended_with_us(process.pid):
            yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(holds: Callable[[], bool], *processes: "subprocess.Popen[bytes]") -> None:
    """Waits until *holds*; fails at once when one of *processes* has ended."""
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        for process in processes:
            assert process.poll() is None, process.communicate()[1].decode()[-2000:]
        pause.wait(0.05)


def ended(process: "subprocess.Popen[bytes]") -> int:
    """The exit status of *process* after a polite request to end."""
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE_SECONDS)


def moved_until_idle(settings: Settings, part: str) -> int:
    """How many steps `isr-hub run PART --until-idle` settled."""
    with running(settings, part, "--until-idle", "--json") as process:
        said, complained = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, complained.decode()
    moved: int = json.loads(said)["moved"]
    return moved


def entries(hub: Hub) -> list[dict[str, Any]]:
    """The ledger's entries, in order."""
    return [json.loads(raw) for raw in hub.ledger.entries(0, hub.ledger.head().size)]


def accepted_at_last(hub: Hub, party: str, natives: list[Native]) -> list[str]:
    """The ids that *natives* got, sent again until there is an answer, as an agency's system does."""
    while True:
        try:
            receipts = hub.exchange.accept(party, natives)
        except (Unconfirmed, sa.exc.OperationalError):
            continue
        assert [r.rejected for r in receipts] == [[]] * len(natives)
        return [message for receipt in receipts for message in receipt.accepted]
