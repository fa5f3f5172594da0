"""The hub's processes: the door (HTTP), the exchange (carry) and the adapters (deliver); together in one, or
each alone.

Every loop does the same: take what is there, and when the world outside is away, wait as `broker.retry` says
and try again. All state is in the two servers (or the embedded file), so any process may be killed at any
time.
"""

import json
import logging
import signal
import threading
from collections.abc import Callable

import uvicorn
from rich.console import Console

from broker.retry import backoff, classify
from gateway.door import create_app
from gateway.hub import Hub, open_hub
from gateway.settings import Settings
from schemas.errors import AlreadyDecided

log = logging.getLogger("isr_hub.serve")
_WAIT_SECONDS = (
    0.25  # how long an idle loop waits for the first message before it looks whether it should end
)


def serve(settings: Settings, out: Console) -> int:
    """The whole hub with its console, until SIGTERM or Ctrl-C."""
    with open_hub(settings) as hub:
        out.print(f"The hub listens on http://{settings.listen}/ (data in {settings.data}). Ctrl-C ends it.")
        _together(hub, ["gateway", "exchange", "adapters"], out)
    return 0


def run(settings: Settings, part: str, *, until_idle: bool, as_json: bool) -> int:
    """One *part* of the hub, or all of it, until SIGTERM; with *until_idle* until nothing can be moved any
    more.
    """
    with open_hub(settings) as hub:
        if until_idle:
            moved = _until_idle(hub, part)
            print(
                json.dumps({"moved": moved}) if as_json else f"{moved} steps settled; nothing is left to move"
            )
        else:
            _together(hub, ["gateway", "exchange", "adapters"] if part == "all" else [part], Console())
    return 0


def _until_idle(hub: Hub, part: str) -> int:
    if part == "exchange":
        moved = hub.exchange.publish()
        while (count := hub.exchange.carry()) > 0:
            moved += count
        return moved
    if part == "adapters":
        return sum(_drain(hub, party) for party in sorted(hub.agreements.parties))
    return hub.exchange.finish()


def _drain(hub: Hub, party: str) -> int:
    moved = 0
    while (count := hub.exchange.deliver(party)) > 0:
        moved += count
    return moved


def _together(hub: Hub, parts: list[str], out: Console) -> None:
    stopping = threading.Event()
    threads: list[threading.Thread] = []
    if "exchange" in parts:
        hub.exchange.publish()  # what a crash left signed or unsigned, but unpublished
        threads.append(_loop("exchange", lambda: hub.exchange.carry(wait_seconds=_WAIT_SECONDS), stopping))
    if "adapters" in parts:
        for party in sorted(hub.agreements.parties):
            threads.append(_loop(f"adapter {party}", _deliver(hub, party), stopping))
    try:
        if "gateway" in parts:
            host, _, port = hub.settings.listen.rpartition(":")
            # uvicorn turns SIGTERM and Ctrl-C into a graceful end: requests in hand are answered.
            uvicorn.run(
                create_app(hub, out),
                host=host,
                port=int(port),
                log_level="warning",
                access_log=False,
                server_header=False,
            )
        else:
            _wait_for_signal(stopping)
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def _deliver(hub: Hub, party: str) -> Callable[[], int]:
    return lambda: hub.exchange.deliver(party, wait_seconds=_WAIT_SECONDS)


def _loop(name: str, step: Callable[[], int], stopping: threading.Event) -> threading.Thread:
    def work() -> None:
        failures = 0
        while not stopping.is_set():
            try:
                step()
                failures = 0
            except AlreadyDecided:
                continue  # another worker was faster; the inbox drops it at the next try
            except Exception as error:
                verdict = classify(error, failures)
                log.warning("%s: %s; trying again", name, verdict.error["code"])
                stopping.wait(verdict.delay_seconds or backoff(failures))
                failures += 1

    thread = threading.Thread(target=work, name=name)
    thread.start()
    return thread


def _wait_for_signal(stopping: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    stopping.wait()
