"""The hub's side of witnessing: asks the configured witnesses to cosign the newest checkpoint
(c2sp.org/tlog-witness), and knows up to which size enough of them have.

One checkpoint is asked for at a time, until enough have cosigned it or nobody is left to ask: so it carries
all their lines, and whoever holds its proof needs no other. Asking runs beside the journey and holds nothing
up but, when the setting says `hold`, the release itself.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import sqlalchemy as sa

from broker.retry import LONGEST_RECONNECT_SECONDS, backoff
from consent.ledger import Checkpoint, Ledger, ledger_witness
from consent.merkle import ProofError
from consent.note import read_number
from consent.quorum import Quorum, Witnessed
from gateway.telemetry import Telemetry
from schemas.clock import Clock
from schemas.database import reading
from schemas.errors import BadProof

__all__ = ["Row", "Standing", "Witnessing"]

log = logging.getLogger("isr_hub.witnessing")
_QUORUM = ""  # the name in `ledger_witness` under which the quorum as a whole stands
_TIMEOUT_SECONDS = 5.0
_REFRESH_SECONDS = 3600  # a quiet log is cosigned again, so that outsiders see that it is not a stale copy
_MAX_ANSWER_BYTES = 65_536
Post = Callable[[str, bytes], tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Row:
    """How many *entries* a *witness* cosigned, and when ("" for never)."""

    witness: str
    entries: int
    at: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How many entries are *signed*, how many of them enough witnesses cosigned, below which number releases
    leave, and each witness's row.
    """

    signed: int
    witnessed: int
    releasable: int
    rows: list[Row]

    @property
    def is_enough(self) -> bool:
        """Whether enough have cosigned the newest checkpoint."""
        return self.witnessed >= self.signed


@dataclass(frozen=True, slots=True)
class _Answered:
    """What asking came to: an *outcome* for the metrics, and the signature *lines*."""

    outcome: str
    lines: str = ""


class Witnessing:
    """Asks the witnesses of *quorum* about *ledger*. With *hold*, nothing is released that is not covered by
    a checkpoint with enough cosignatures. One thread calls `ask`; any thread the rest.
    """

    def __init__(
        self,
        engine: sa.Engine,
        ledger: Ledger,
        quorum: Quorum,
        telemetry: Telemetry,
        clock: Clock,
        *,
        hold: bool,
        post: Post | None = None,
    ) -> None:
        self._engine, self._ledger, self.quorum, self._hold = engine, ledger, quorum, hold
        self._telemetry, self._clock, self._post = telemetry, clock, post or _post
        self._asked = [w for w in quorum.witnesses.values() if w.url]
        self._pool = ThreadPoolExecutor(max(1, len(self._asked)), "witness")
        self._busy: dict[Future[_Answered], tuple[Witnessed, Checkpoint]] = {}
        self._failures: dict[str, tuple[int, float]] = {}  # in a row, and not before (monotonic seconds)
        self._target: Checkpoint | None = None

    def close(self) -> None:
        """Ends when the last answer is there, or its time is over."""
        self._pool.shutdown(cancel_futures=True)

    def releasable(self, signed: int) -> int:
        """The size below which releases may leave, when *signed* is that of the newest checkpoint."""
        if not self._hold or self.quorum.met(()):
            return signed
        return min(signed, self.progress().get(_QUORUM, (0, 0))[0])

    def is_enough(self, note: str) -> bool:
        """Whether a delivery proved under *note* may be sent on."""
        return not self._hold or self.quorum.met(self.quorum.cosigners(note))

    def progress(self) -> dict[str, tuple[int, int]]:
        """For each witness, and for the quorum under the name "", the size it has cosigned and when."""
        with reading(self._engine).begin() as connection:
            rows = connection.execute(sa.select(ledger_witness))
            return {row.name: (row.size, row.moment) for row in rows}

    def standing(self, newest: Checkpoint | None) -> "Standing":
        """How far everybody is, to be shown."""
        reached, signed = self.progress(), newest.size if newest else 0
        rows = [
            Row(name, reached[name][0], datetime.fromtimestamp(reached[name][1], UTC).isoformat())
            if name in reached
            else Row(name, 0, "")
            for name in self.quorum.witnesses
        ]
        return Standing(signed, reached.get(_QUORUM, (0, 0))[0], self.releasable(signed), rows)

    def ask(self, wait_seconds: float) -> int:
        """Asks whoever is free, takes the answers that come within *wait_seconds* (of 0: all of them), and
        returns whether more is releasable than before, as 1 or 0.
        """
        reached = self.progress()
        target = self._next_target(reached)
        if target is not None:
            self._submit(target, reached)
        if not self._busy:
            time.sleep(wait_seconds)
            return 0
        done, _ = wait(
            self._busy,
            timeout=wait_seconds or None,
            return_when=FIRST_COMPLETED if wait_seconds else "ALL_COMPLETED",
        )
        for future in done:
            witness, checkpoint = self._busy.pop(future)
            self._take(witness, checkpoint, future)
        now = self.progress()
        for name, (size, _) in now.items():
            if name:
                self._telemetry.witness_size.labels(name).set(size)
        enough, before = now.get(_QUORUM, (0, 0))[0], reached.get(_QUORUM, (0, 0))[0]
        self._telemetry.witnessed.set(enough)
        return int(enough > before)

    def _next_target(self, reached: dict[str, tuple[int, int]]) -> Checkpoint | None:
        """The checkpoint to be asked for: the last one while it may still become enough, else the newest."""
        target = self._target
        asked = {checkpoint.size for _, checkpoint in self._busy.values()}
        if target is not None and target.size in asked and reached.get(_QUORUM, (0, 0))[0] < target.size:
            return target
        self._target = self._ledger.checkpoint()
        return self._target

    def _submit(self, target: Checkpoint, reached: dict[str, tuple[int, int]]) -> None:
        busy = {witness.name for witness, _ in self._busy.values()}
        now, today = time.monotonic(), self._clock().timestamp()
        for witness in self._asked:
            size, moment = reached.get(witness.name, (0, 0))
            due = (witness.name not in reached) or size < target.size or today - moment > _REFRESH_SECONDS
            if due and witness.name not in busy and now >= self._failures.get(witness.name, (0, 0.0))[1]:
                self._busy[self._pool.submit(self._ask_one, witness, size, target)] = (witness, target)

    def _ask_one(self, witness: Witnessed, old: int, checkpoint: Checkpoint) -> _Answered:
        """One witness's answer; it is asked again at once when it remembers another size."""
        for _ in range(3):
            if old > checkpoint.size:
                # Another process may have asked for a newer one. If none can have: this ledger lost entries.
                newest = self._ledger.checkpoint()
                lost = newest is None or newest.size < old
                return _Answered("contradiction" if lost else "ahead")
            try:
                body = self._ledger.witness_request(old, checkpoint)
                status, text = self._post(f"{witness.url}/add-checkpoint", body)
            except (OSError, HTTPException):
                return _Answered("away")
            if status != 409:
                return _Answered({200: "cosigned", 422: "contradiction"}.get(status, "refused"), text)
            known = _size(text)
            if known in (None, old):  # it has another root for this very size
                return _Answered("bad-answer" if known is None else "contradiction")
            old = known or 0
        return _Answered("ahead")

    def _take(self, witness: Witnessed, checkpoint: Checkpoint, future: "Future[_Answered]") -> None:
        error = future.exception()
        answered = _Answered("away") if error else future.result()
        outcome = answered.outcome
        if outcome == "cosigned":
            outcome = self._keep(witness, checkpoint, answered.lines)
        self._telemetry.witness_answers.labels(witness.name, outcome).inc()
        if outcome in ("cosigned", "ahead"):
            self._failures.pop(witness.name, None)
            return
        count = self._failures.get(witness.name, (0, 0.0))[0]
        pause = min(backoff(count), LONGEST_RECONNECT_SECONDS)
        self._failures[witness.name] = (count + 1, time.monotonic() + pause)
        if outcome == "contradiction":
            log.error(
                "witness %s remembers another history than this ledger's: it was rolled back, or the "
                "witness was shown a fork; see docs/attacks.md",
                witness.name,
            )
        elif not count:
            log.warning("witness %s: %s", witness.name, outcome)

    def _keep(self, witness: Witnessed, checkpoint: Checkpoint, lines: str) -> str:
        """Adds the *lines* to the checkpoint, and notes how far the witness and the quorum are now, in one
        transaction. ‖ A crash before its commit: the witness is asked again.
        """
        try:
            with self._engine.begin() as connection:
                note = self._ledger.cosign(connection, checkpoint.size, lines, [witness.key]).note
                cosigners = self.quorum.cosigners(note)
                if witness.name not in cosigners:
                    return "bad-answer"
                _raise(connection, witness.name, checkpoint.size, cosigners[witness.name])
                if self.quorum.met(cosigners):
                    _raise(connection, _QUORUM, checkpoint.size, max(cosigners.values()))
        except BadProof:
            return "bad-answer"
        return "cosigned"


def _raise(connection: sa.Connection, name: str, size: int, moment: int) -> None:
    """Notes that *name* cosigned *size* at *moment*, unless a larger size is noted."""
    values: dict[str, Any] = {"size": size, "moment": moment}
    row = ledger_witness.c.name == name
    statement = sa.update(ledger_witness).where(row, ledger_witness.c.size <= size).values(values)
    if connection.execute(statement).rowcount == 0:
        known = connection.execute(sa.select(ledger_witness.c.size).where(row)).scalar()
        if known is None:
            connection.execute(sa.insert(ledger_witness).values(name=name, **values))


def _size(text: str) -> int | None:
    try:
        return read_number(text.removesuffix("\n"), "the size")
    except ProofError:
        return None


class _NoRedirect(HTTPRedirectHandler):
    """A witness answers itself; where it points to is nobody that was configured."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_opener = build_opener(_NoRedirect)


def _post(url: str, body: bytes) -> tuple[int, str]:
    # `Quorum` takes only http and https.
    request = Request(url, body, {"Content-Type": "text/plain; charset=utf-8"})  # noqa: S310
    try:
        with _opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read(_MAX_ANSWER_BYTES).decode("utf-8", "replace")
    except HTTPError as error:
        with error:
            return error.code, error.read(_MAX_ANSWER_BYTES).decode("utf-8", "replace")
