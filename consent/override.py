"""Break-glass: when an override opens, runs and ends, pure (safety rule V17).

A person of the recipient names the threat and the reason. The clauses of the agreements in force say what
opens, for which threats, how long, and whether a second person must agree first. Whatever happened, somebody
else reviews it within one working day. What is refused is recorded like what is opened, and looks to the
asker like a case that does not exist.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from consent.clause import THREATS, BreakGlass
from schemas.errors import AlreadyDecided, InvalidMessage, NotAuthorised, Problem

REVIEW_WORKING_DAYS = 1
ASKED_MINUTES = 60  # a second person who does not agree within this time has not agreed
REASON_LENGTH = (10, 2000)
FINDINGS = {
    "justified": "the threat was real and what opened was needed",
    "not-justified": "it should not have been opened; the recipient withdraws what it received",
    "breach": "it was misused, or may have caused serious harm: Part 6 of the Privacy Act 2020 applies",
}


class State(StrEnum):
    """Where an override stands. One whose time has passed is `open` still and runs no longer."""

    ASKED = "asked"
    OPEN = "open"
    CLOSED = "closed"
    REFUSED = "refused"
    REVIEWED = "reviewed"


class Attempt(NamedTuple):
    """What somebody asks for. *conflicted*: a conflict of interest is recorded for the party in the case."""

    threat: str
    reason: str
    case_known: bool
    conflicted: bool
    running: bool


class Opening(NamedTuple):
    """What comes of an attempt: the *state*, the clauses that open, for how many minutes, and why not."""

    state: State
    clauses: tuple[str, ...]
    minutes: int
    why: str


def require_words(threat: str, reason: str) -> None:
    """Raises `InvalidMessage` when the threat is none, or the reason is too short to be one."""
    if threat not in THREATS:
        raise InvalidMessage(
            "the threat is not known",
            Problem("/threat", "is not one of the words", "use one of: " + ", ".join(THREATS)),
        )
    if not REASON_LENGTH[0] <= len(reason.strip()) <= REASON_LENGTH[1]:
        raise InvalidMessage(
            "an override needs a reason",
            Problem("/reason", "is too short or too long", "write what happens, in 10 to 2000 characters"),
        )


def opening(attempt: Attempt, clauses: Mapping[str, BreakGlass]) -> Opening:
    """What comes of *attempt* under the break-glass *clauses* in force for the party, by name."""
    if not attempt.case_known:
        return _refused("case-unknown")
    if attempt.conflicted:
        return _refused("V7")
    if attempt.running:
        return _refused("already-open")
    fitting = {name: glass for name, glass in clauses.items() if attempt.threat in glass.threats}
    if not fitting:
        return _refused("no-clause")
    names = tuple(sorted(fitting))
    minutes = min(glass.minutes for glass in fitting.values())
    first = any(glass.approval == "before" for glass in fitting.values())
    return Opening(State.ASKED if first else State.OPEN, names, minutes, "")


def _refused(why: str) -> Opening:
    return Opening(State.REFUSED, (), 0, why)


def agreed(state: State, asked_at: datetime, now: datetime, *, same_person: bool) -> State:
    """The state after a second person agreed. Raises `NotAuthorised` when it is the same person,
    `AlreadyDecided` when there is nothing to agree to any more.
    """
    if state is not State.ASKED or now > asked_at + timedelta(minutes=ASKED_MINUTES):
        raise AlreadyDecided("nobody waits for this agreement any more")
    if same_person:
        raise NotAuthorised("a second person must agree, and not the one who asked")
    return State.OPEN


def closed(state: State) -> State:
    """The state after it was ended before its time. Raises `AlreadyDecided`."""
    if state is not State.OPEN:
        raise AlreadyDecided("it does not run")
    return State.CLOSED


def reviewed(state: State, finding: str, *, same_person: bool) -> State:
    """The state after its review. Raises `AlreadyDecided`, `NotAuthorised`, `InvalidMessage`."""
    if finding not in FINDINGS:
        raise InvalidMessage(
            "the finding is not known",
            Problem("/finding", "is not one of the words", "use one of: " + ", ".join(FINDINGS)),
        )
    if state not in (State.OPEN, State.CLOSED):
        raise AlreadyDecided("there is nothing to review here")
    if same_person:
        raise NotAuthorised("somebody else reviews it, and not the one who opened it")
    return State.REVIEWED


def runs(state: State, until: datetime, now: datetime) -> bool:
    """Whether it opens anything at *now*."""
    return state is State.OPEN and now < until
