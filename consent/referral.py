"""What waits for a person of the agency that holds it, and how it ends: the state machine, pure.

Two things wait: a *release*, because a clause refers it or a guard asks first, and a *request* for
information, which the agency that was asked answers or declines (Family Violence Act 2018 s 24: it must
consider; Oranga Tamariki Act 1989 ss 66G to 66J). Each ends once. Nobody's silence ends one: it is overdue,
escalated, and shown until somebody decides.
"""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from schemas.errors import AlreadyDecided, InvalidMessage, Problem

RELEASE, REQUEST = "release", "request"


class State(StrEnum):
    """Where a referral stands. `told`: a person told it outside the hub; `answered`: a request's answer came
    in.
    """

    WAITING = "waiting"
    ESCALATED = "escalated"
    LEGAL = "legal"
    APPROVED = "approved"
    PART = "part"
    TOLD = "told"
    ANSWERED = "answered"
    DECLINED = "declined"


OPEN = frozenset({State.WAITING, State.ESCALATED, State.LEGAL})

# Who decides for the agency. What the ledger keeps of a person: this word, and a keyed digest of the name.
CAPACITIES = {
    "practitioner": "the practitioner who works with the people",
    "supervisor": "the practitioner's supervisor or team leader",
    "duty-manager": "the manager on duty",
    "privacy-officer": "the agency's privacy officer (Privacy Act 2020 s 201)",
    "legal": "the agency's legal adviser",
}


class Reason(NamedTuple):
    """Why something is declined: what it *says*, the *source* it rests on, and whether it stands against a
    request that is mandatory.
    """

    says: str
    source: str
    mandatory: bool = False


REASONS: dict[str, Reason] = {
    "no-help": Reason(
        "it would not help the purpose that was given",
        "Oranga Tamariki Act 1989 s 66I; Family Violence Act 2018 s 20",
    ),
    "risk-of-harm": Reason(
        "it may increase the risk of harm to a child, a victim or somebody else",
        "Oranga Tamariki Act 1989 s 66I; Family Violence Act 2018 s 21",
    ),
    "prejudice": Reason(
        "it would prejudice an investigation or a fair trial", "Oranga Tamariki Act 1989 s 66I"
    ),
    "against-wishes": Reason(
        "the child or young person does not want it, and it is not in the child's best interests",
        "Oranga Tamariki Act 1989 ss 66I, 66K",
    ),
    "privilege": Reason(
        "it is subject to legal professional privilege",
        "Oranga Tamariki Act 1989 ss 66(2), 66I",
        mandatory=True,
    ),
    "not-necessary": Reason(
        "the recipient does not need it for the purpose",
        "Privacy Act 2020 s 22, IPP 11; Health Information Privacy Code 2020 rule 11",
    ),
    "not-accurate": Reason(
        "the holder no longer believes that it is accurate, up to date and complete",
        "Privacy Act 2020 s 22, IPP 8",
    ),
    "place-in-text": Reason(
        "the text may tell where somebody at risk is, and cannot be scrubbed", "safety rule V2"
    ),
    "not-authorised": Reason(
        "the individual did not authorise it, and no exception applies",
        "Health Information Privacy Code 2020 rule 11",
    ),
    "not-held": Reason("the agency does not hold it", "Oranga Tamariki Act 1989 s 66H", mandatory=True),
    "superseded": Reason("a newer message says it better", "Privacy Act 2020 s 22, IPP 8"),
}


class Standing(NamedTuple):
    """A referral as far as its next step depends on it."""

    kind: str
    state: State
    mandatory: bool
    due: datetime


def is_overdue(at: Standing, now: datetime) -> bool:
    """Whether nobody decided in time."""
    return at.state in OPEN and now > at.due


def approved(at: Standing, *, whole: bool) -> State:
    """The state after an approval, of the *whole* or of a part. Raises `AlreadyDecided`, or `InvalidMessage`
    for a request: that is answered by sending what was asked for.
    """
    _require_open(at)
    if at.kind == REQUEST:
        raise InvalidMessage(
            "a request is not approved but answered",
            Problem("/id", "is a request for information", "send the answer; or decline with a reason"),
        )
    return State.APPROVED if whole else State.PART


def told(at: Standing) -> State:
    """The state after a person told it outside the hub. Raises `AlreadyDecided`."""
    _require_open(at)
    return State.TOLD


def declined(at: Standing, reason: str, capacity: str) -> State:
    """The state after a decline for *reason* by somebody in *capacity*.

    What must be supplied by law is not refused by whoever works on it: it goes to the agency's legal
    adviser, who can refuse it for privilege only (Oranga Tamariki Act 1989 s 66(2)), or say that it is not
    held. Raises `AlreadyDecided`, or `InvalidMessage` with the reasons there are.
    """
    _require_open(at)
    _require_word("reason", reason, REASONS)
    _require_word("capacity", capacity, CAPACITIES)
    if not at.mandatory:
        return State.DECLINED
    if capacity != "legal":
        return State.LEGAL
    if not REASONS[reason].mandatory:
        allowed = ", ".join(sorted(code for code, r in REASONS.items() if r.mandatory))
        raise InvalidMessage(
            "what section 66 of the Oranga Tamariki Act 1989 requires cannot be declined for this reason",
            Problem("/reason", "is no ground to refuse a mandatory request", f"use one of: {allowed}"),
        )
    return State.DECLINED


def escalated(at: Standing, now: datetime) -> State | None:
    """The state after the deadline passed; None while it has not, or when it was noticed before."""
    return State.ESCALATED if at.state is State.WAITING and is_overdue(at, now) else None


def answered(at: Standing) -> State | None:
    """The state of a request whose answer came in; None when it had ended, since an answer may come late."""
    return State.ANSWERED if at.kind == REQUEST and at.state in OPEN else None


def require_capacity(capacity: str) -> None:
    """Raises `InvalidMessage` when *capacity* is none in which a person decides."""
    _require_word("capacity", capacity, CAPACITIES)


def _require_open(at: Standing) -> None:
    if at.state not in OPEN:
        raise AlreadyDecided("this was decided before; the ledger says how")


def _require_word(what: str, word: str, known: dict[str, Reason] | dict[str, str]) -> None:
    if word not in known:
        raise InvalidMessage(
            f"the {what} is not known",
            Problem(f"/{what}", "is not one of the words", "use one of: " + ", ".join(known)),
        )
