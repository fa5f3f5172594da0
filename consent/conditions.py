"""The closed vocabulary of conditions a clause may name: each is a small pure function of `Facts`.

A condition whose operand is missing or unknown is false, and a clause with a false condition gives nothing.
An agreement that names a condition not listed here does not load: a condition nobody can evaluate must not
become a condition nobody applies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from consent.case import RISK_ORDER

TASK_SERVICES = frozenset({"task", "asked", "ivs", "pos", "wsw", "lrr", "refuge"})
CLINICAL_KINDS = frozenset({"HNZ", "GP"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about one recipient and one subject (a person of the message, or the case as a whole)
    at one date.

    *services* are those under which the recipient works with the subject; for the case, with anybody in it.
    *in_case* says whether it works with anybody in a case that the subject belongs to. *today* is the date
    in New Zealand.
    """

    kind: str
    status: Mapping[str, str]
    today: date
    audience: str
    case_open: bool
    risk: str | None
    linked: bool
    conflicted: bool
    role: str
    services: frozenset[str]
    in_case: bool
    own_pupil: bool


def risk_at_least(risk: str | None, level: str) -> bool:
    """Whether *risk* is known and no lower than *level*."""
    return RISK_ORDER.get(risk or "", 0) >= RISK_ORDER[level]


def _current(facts: Facts, entry: str) -> bool:
    try:
        return date.fromisoformat(facts.status.get(entry, "")) >= facts.today
    except ValueError:
        return False


def _open_episode(facts: Facts) -> bool:
    """The case is open."""
    return facts.case_open


def _assigned(facts: Facts) -> bool:
    """The recipient works with this very person, or sits at the table where the person is discussed."""
    return bool(facts.services)


def _in_case(facts: Facts) -> bool:
    """The recipient works with somebody in a case of this person, though perhaps not with the person."""
    return facts.in_case


def _tasked(facts: Facts) -> bool:
    """The recipient has a task, a service or a question about this very person; a seat at the table is not
    enough.
    """
    return not TASK_SERVICES.isdisjoint(facts.services)


def _risk_medium(facts: Facts) -> bool:
    """The assessed risk is known and at least medium."""
    return risk_at_least(facts.risk, "medium")


def _risk_high(facts: Facts) -> bool:
    """The assessed risk is known and high."""
    return risk_at_least(facts.risk, "high")


def _not_perp_linked(facts: Facts) -> bool:
    """The recipient does not work with anybody who is or was the perpetrator."""
    return not facts.linked


def _coi_clear(facts: Facts) -> bool:
    """The recipient has no recorded conflict of interest in the case."""
    return not facts.conflicted


def _own_pupil(facts: Facts) -> bool:
    """The child's school is known and Education was asked or tasked about this very child."""
    return facts.own_pupil


def _role_clinical(facts: Facts) -> bool:
    """The recipient provides health care."""
    return facts.kind in CLINICAL_KINDS


def _reg_current(facts: Facts) -> bool:
    """The recipient's practising certificate has been shown to run until today or later."""
    return _current(facts, "registered_until")


def _trained(facts: Facts) -> bool:
    """The recipient's staff have had the training that precedes access, and it has not lapsed."""
    return _current(facts, "trained_until")


def _named_recipient(facts: Facts) -> bool:
    """Deliveries reach a named practitioner and not a practice's shared inbox."""
    return facts.status.get("named_recipient") == "yes"


def _addressed(facts: Facts) -> bool:
    """The message was sent to one named party and not to the table."""
    return facts.audience == "addressee"


CONDITIONS: dict[str, Callable[[Facts], bool]] = {
    "OPEN_EPISODE": _open_episode,
    "ASSIGNED": _assigned,
    "IN_CASE": _in_case,
    "TASKED": _tasked,
    "RISK_MEDIUM": _risk_medium,
    "RISK_HIGH": _risk_high,
    "NOT_PERP_LINKED": _not_perp_linked,
    "COI_CLEAR": _coi_clear,
    "OWN_PUPIL": _own_pupil,
    "ROLE_CLINICAL": _role_clinical,
    "REG_CURRENT": _reg_current,
    "TRAINED": _trained,
    "NAMED_RECIPIENT": _named_recipient,
    "ADDRESSED": _addressed,
}


def meaning(name: str) -> str:
    """What condition *name* says, as a sentence."""
    return " ".join(str(CONDITIONS[name].__doc__).split())
