"""Where the time of a disclosure goes: the working thread is looked at a thousand times a second, and each
look counts for the step that it finds.

Nothing of the hub is wrapped or slowed down for it, and waiting counts like working: what a step costs is the
time that the batch spends in it.
"""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gateway.bench.load import accepted, carried, delivered, embedded_hub, waiting
from gateway.bench.run import Run
from gateway.hub import Hub

_SECONDS = 0.001
# A look belongs to the innermost file named here; the steps are those of the journey.
_STEPS = {
    "schemas/catalogue.py": "validate",
    "consent/people.py": "people and cases",
    "consent/placing.py": "people and cases",
    "consent/case.py": "people and cases",
    "consent/policy.py": "decide",
    "consent/operands.py": "decide",
    "consent/verdict.py": "decide",
    "consent/waiting.py": "what waits for a person",
    "consent/proved.py": "proofs",
    "consent/subjects.py": "people and cases",
    "broker/sealed.py": "seal and open",
    "consent/minimise.py": "minimise",
    "consent/inputs.py": "keep the question",
    "gateway/record.py": "ledger",
    "consent/ledger.py": "ledger",
    "broker/outbox.py": "outbox",
    "broker/embedded.py": "publish",
    "broker/rabbitmq.py": "publish",
    "gateway/telemetry.py": "metrics",
    "adapters/adapter.py": "read and write formats",
}
_COMMITS = ("commit", "_commit_impl", "do_commit")


@contextmanager
def looking(counted: Counter[str]) -> Iterator[None]:
    """Counts into *counted* what the main thread is at, a thousand times a second. Anywhere else than in the
    main thread nothing is counted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def look(_number: int, frame: FrameType | None) -> None:
        counted[step_of(frame)] += 1

    former = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def step_of(frame: FrameType | None) -> str:
    """The step that *frame* is part of."""
    step = ""
    while frame is not None:
        code = frame.f_code
        place = "/".join(code.co_filename.rsplit("/", 2)[-2:])
        if code.co_name in _COMMITS:
            step = step or "commit"
        found = _STEPS.get(place, "")
        if not found and place.startswith("adapters/"):
            found = "read and write formats"
        if found == "validate" and code.co_name != "validate":
            found = ""  # a schema is also read by whoever places, decides and minimises
        if found == "publish" and code.co_name in ("receive", "ack", "depth"):
            found = "receive and acknowledge"
        if code.co_name == "tlog_proofs":
            step = "proofs"
        step = step or found
        frame = frame.f_back
    return step or "the rest"


def measure(run: Run) -> None:
    """The parts of a disclosure's cost, on real servers when there are any."""
    natives = run.natives(run.size.episodes * 2)
    warm, measured = natives[: run.size.episodes // 3], natives[run.size.episodes : run.size.episodes * 2]
    with run.own_folder() as folder:
        opened = run.servers.hub(folder) if run.servers is not None else embedded_hub(folder)
        with opened as hub:
            run.step("where the time of a disclosure goes")
            accepted(hub, warm)
            carried(hub)
            delivered(hub)
            counted: Counter[str] = Counter()
            seconds = 0.0
            with looking(counted):
                seconds += accepted(hub, measured)
                seconds += carried(hub)
                disclosures = _disclosures(hub, counted)
                moved, more = delivered(hub)
    seconds += more
    looks = sum(counted.values())
    for step, count in counted.most_common():
        share = seconds * count / max(1, looks)
        run.findings.figure("parts", f"{step}, a disclosure", share / max(1, disclosures) * 1e6, "µs")
    run.findings.figure("parts", "together, a disclosure", seconds / max(1, disclosures, moved) * 1e6, "µs")


def _disclosures(hub: Hub, counted: Counter[str]) -> int:
    """How many wait; looking them up is no part of their cost."""
    before = counted.copy()
    found = waiting(hub)
    counted.clear()
    counted.update(before)
    return found
