"""The hub's processes: the doors (HTTP, AMQP), the exchange (carry) and the adapters (deliver); together in
one, or each alone.

Every loop does the same: take what is there, and when the world outside is away, wait as `broker.retry` says
and try again. All state is in the two servers (or the embedded file), so any process may be killed at any
time. SIGTERM ends one politely: every loop finishes the batch in hand.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import sqlalchemy as sa
import uvicorn
from prometheus_client import start_http_server
from rich.console import Console

from broker.retry import LONGEST_RECONNECT_SECONDS, backoff, classify
from gateway.amqp_door import take_in
from gateway.door import create_app
from gateway.hub import Hub, open_hub
from gateway.referrals import Referrals
from gateway.settings import Settings, address_of
from gateway.witnessing import Witnessing

log = logging.getLogger("isr_hub.serve")
PARTS = ("gateway", "exchange", "adapters")
_WAIT_SECONDS = (
    0.25  # how long an idle loop waits for the first message before it looks whether it should end
)
_WATCH_SECONDS = 60.0
_OPENINGS = 4
_Step = Callable[[float], int]  # moves what is there, waiting at most so many seconds for it; says how much


def serve(settings: Settings, out: Console) -> int:
    """The whole hub with its console, until SIGTERM or Ctrl-C."""
    with _ending() as stopping, _opened(settings, stopping) as hub:
        out.print(f"The hub listens on http://{settings.listen}/ (data in {settings.data}). Ctrl-C ends it.")
        _together(hub, PARTS, stopping, out)
    return 0


def run(settings: Settings, part: str, *, until_idle: bool, as_json: bool) -> int:
    """One *part* of the hub, or all of it, until SIGTERM; with *until_idle* until nothing can be moved any
    more.
    """
    parts = PARTS if part == "all" else (part,)
    with _ending() as stopping, _opened(settings, stopping) as hub:
        if until_idle:
            moved = _until_idle(hub, parts, stopping)
            print(
                json.dumps({"moved": moved}) if as_json else f"{moved} steps settled; nothing is left to move"
            )
        else:
            _together(hub, parts, stopping, Console())
    return 0


@contextmanager
def _opened(settings: Settings, stopping: threading.Event) -> Iterator[Hub]:
    """The hub, opened again when a server cut the connection while it was being opened: the same cut a moment
    later would only be an outage.
    """
    with ExitStack() as stack:
        for failures in range(_OPENINGS):
            try:
                hub = stack.enter_context(open_hub(settings))
            except sa.exc.OperationalError as error:
                if failures + 1 == _OPENINGS or stopping.is_set():
                    raise
                log.warning("opening: %s; trying again", classify(error, failures).error["detail"])
                stopping.wait(backoff(failures))
            else:
                break
        yield hub


@contextmanager
def _ending() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, from before anything is opened."""
    stopping = threading.Event()
    former = {
        number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stopping
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _steps(hub: Hub, parts: tuple[str, ...]) -> Mapping[str, _Step]:
    """The loops of *parts*, by name."""
    steps: dict[str, _Step] = {"agreements": _follow(hub)}
    if "gateway" in parts and not hub.settings.embedded_broker:
        steps["AMQP door"] = lambda seconds: take_in(hub, wait_seconds=seconds)
    if "exchange" in parts:
        steps["exchange"] = _carry(hub)
        steps["deadlines"] = _watch(hub)
        if hub.witnessing:
            steps["witnesses"] = _witness(hub, hub.witnessing)
    if "adapters" in parts:
        for party in sorted(hub.agreements.parties):
            steps[f"adapter {party}"] = _deliver(hub, party)
    return steps


def _carry(hub: Hub) -> _Step:
    def step(seconds: float) -> int:
        carried = hub.exchange.carry(wait_seconds=seconds)
        if not carried:
            # Nothing to carry is the time to sign what was appended since: the outcomes of deliveries, and
            # what a crash left unsigned or unpublished.
            hub.exchange.publish()
        return carried

    return step


def _watch(hub: Hub) -> _Step:
    """Escalates what nobody decided in time, and shows what waits as metrics, once a minute."""
    referrals, next_at = Referrals(hub), [0.0]

    def step(seconds: float) -> int:
        if time.monotonic() < next_at[0]:
            time.sleep(seconds)
            return 0
        next_at[0] = time.monotonic() + _WATCH_SECONDS
        late = referrals.escalate()
        hub.telemetry.show_waiting(referrals.counts())
        return len(late)

    return step


def _witness(hub: Hub, witnessing: Witnessing) -> _Step:
    def step(seconds: float) -> int:
        more = witnessing.ask(seconds)
        if more:
            hub.exchange.publish()  # what waited for it
        return more

    return step


def _follow(hub: Hub) -> _Step:
    """Follows what is in force, and says so in the metrics."""

    def step(seconds: float) -> int:
        time.sleep(seconds)
        hub.note_agreements()
        return 0

    return step


def _deliver(hub: Hub, party: str) -> _Step:
    return lambda seconds: hub.exchange.deliver(party, wait_seconds=seconds)


def _until_idle(hub: Hub, parts: tuple[str, ...], stopping: threading.Event) -> int:
    steps, total, moved = _steps(hub, parts), 0, True
    while moved and not stopping.is_set():
        moved = False
        for step in steps.values():
            while not stopping.is_set() and (count := step(0.0)) > 0:
                total += count
                moved = True
    if "exchange" in parts:
        hub.exchange.publish()
    return total


def _together(hub: Hub, parts: tuple[str, ...], stopping: threading.Event, out: Console) -> None:
    if hub.settings.metrics:
        host, port = address_of(hub.settings.metrics)
        server, watcher = start_http_server(port, host, hub.telemetry.registry)
    threads = [_loop(name, step, stopping) for name, step in _steps(hub, parts).items()]
    try:
        if "gateway" in parts:
            host, port = address_of(hub.settings.listen)
            # uvicorn turns SIGTERM and Ctrl-C into a graceful end (requests in hand are answered), and then
            # raises the signal again, for us.
            uvicorn.run(
                create_app(hub, out),
                host=host,
                port=port,
                log_level="warning",
                access_log=False,
                server_header=False,
            )
        else:
            stopping.wait()
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        if hub.settings.metrics:
            server.shutdown()
            server.server_close()
            watcher.join()


def _loop(name: str, step: _Step, stopping: threading.Event) -> threading.Thread:
    def work() -> None:
        failures = 0
        while not stopping.is_set():
            try:
                step(_WAIT_SECONDS)
                failures = 0
            except Exception as error:
                verdict = classify(error, failures)
                log.warning("%s: %s; trying again", name, verdict.error["detail"])
                # Nobody is spared by a longer pause: this is one worker, and the servers are ours.
                stopping.wait(min(verdict.delay_seconds or backoff(failures), LONGEST_RECONNECT_SECONDS))
                failures += 1

    thread = threading.Thread(target=work, name=name)
    thread.start()
    return thread
