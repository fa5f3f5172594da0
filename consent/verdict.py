"""The verdict on one subject of a message, and how the verdicts on all of them become one decision."""

from collections.abc import Iterator, Sequence, Set
from functools import cache
from typing import NamedTuple

from consent.agreement import Entry, Party
from consent.decision import (
    NAMES,
    REFERRED,
    WITHHELD,
    WORDS,
    Decision,
    Findings,
    FrozenDict,
    Outcome,
    Question,
)
from schemas.catalogue import Branch, Leaf, published
from schemas.classes import CASE, FRAME, Facet
from schemas.errors import UnknownType

# Who somebody is, and how to meet them safely: never a reason to send a message, only company for one.
COMPANIONS = frozenset({FRAME, "ID-CORE", "ID-XREF", "SAFE-CONTACT"})
_V9 = WORDS.of(("V9",))
_NOTHING_TO_GIVE = WORDS.of(("nothing-to-give",))


def carried(shape: Branch) -> Iterator[tuple[str, Facet, bool, bool]]:
    """Every (role or "case", facet, whether it is in the reduced view, whether it stands in the list of
    people) that a message of *shape* can hold.
    """
    for name, child in shape.children.items():
        yield from _carried(child, personal=bool(shape.about), listed=name == "people")


def _carried(
    child: Leaf | Branch, *, personal: bool, listed: bool
) -> Iterator[tuple[str, Facet, bool, bool]]:
    if isinstance(child, Leaf):
        for role, facet in child.facets.items():
            # Below a person nothing is about the case, and above one nothing is about a person.
            if (role == CASE) is not personal:
                yield role, facet, child.reduced, listed
        return
    for inner in child.children.values():
        yield from _carried(inner, personal=personal or bool(child.about), listed=listed)


class Matter(NamedTuple):
    """Of one type of message: the classes it is about (those outside its people, companions aside), and
    what has a reduced view.
    """

    classes: frozenset[str]
    reducible: frozenset[tuple[str, Facet]]


@cache
def matter_of(type_name: str) -> Matter:
    """The matter of the published type *type_name*; of an unknown one, nothing."""
    try:
        published_type = published()[type_name]
    except UnknownType:
        return Matter(frozenset(), frozenset())
    held = list(carried(published_type.shape))
    return Matter(
        (frozenset(facet.name for _, facet, _, listed in held if not listed) | published_type.matter)
        - COMPANIONS,
        frozenset((role, facet) for role, facet, reduced, _ in held if reduced),
    )


class Verdict:
    """What one subject comes to, while it is being weighed."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.given: dict[Facet, str] = {}
        self.grants: list[Entry] = []
        self.referrals: dict[str, Entry] = {}
        self.withheld: set[tuple[str, str]] = set()
        self.conditions: dict[str, bool] = {}
        self.guards: set[str] = set()

    def give(self, facet: Facet, entry: Entry) -> None:
        """Gives *facet* as *entry* says."""
        self.given[facet] = entry.view
        self.grants.append(entry)
        if entry.view == "reduced":
            self.withheld.add((facet.name, "reduced-view"))

    def refer(self, facet: Facet, entry: Entry) -> None:
        """Leaves *facet* to a person of the holder, as *entry* says."""
        self.referrals[facet.name] = entry
        self.withheld.add((facet.name, "needs-person"))

    def joined(self) -> "Joinable":
        """This verdict in the form in which it is joined with others."""
        asked = self.referrals.values()
        alone = {w for w in self.withheld if w[1] != "reduced-view"}
        alone |= {(facet.name, "names-alone") for facet in self.given}
        names = (f.name if view == "full" else f"{f.name}:{view}" for f, view in self.given.items())
        return Joinable(
            self.role,
            # One object for all who are given the same: the minimiser remembers on it what it means.
            FrozenDict(self.given) if self.given else None,
            frozenset(facet.name for facet in self.given),
            NAMES.of(names),
            WITHHELD.of(self.withheld),
            WITHHELD.of(alone),
            WORDS.of(reason for _, reason in self.withheld),
            WORDS.of(reason for _, reason in alone),
            REFERRED.of((self.role, name) for name in self.referrals),
            WORDS.of(entry.clause for entry in self.grants),
            WORDS.of(entry.clause for entry in asked),
            WORDS.of(b for entry in self.grants for b in entry.basis),
            WORDS.of(b for entry in asked for b in entry.basis),
            WORDS.of(o for entry in self.grants for o in entry.obligations),
            WORDS.of(self.conditions),
            WORDS.of(name for name, met in self.conditions.items() if not met),
            WORDS.of(self.guards),
        )


class Joinable(NamedTuple):
    """What one subject comes to; sets of words, see `Findings`. *alone*: the same when nothing of the matter
    is given to go with its names.
    """

    role: str
    given: FrozenDict | None
    classes: frozenset[str]
    names: int
    withheld: int
    alone: int
    reasons: int
    alone_reasons: int
    referred: int
    clauses: int
    asked_clauses: int
    basis: int
    asked_basis: int
    obligations: int
    conditions: int
    unmet: int
    guards: int


def join(
    question: Question, recipient: Party, verdicts: Sequence[tuple[str, Joinable]], present: Set[str]
) -> Decision:
    """The decision on a message whose subjects come to *verdicts* (by ref); *present* are its classes."""
    given = {ref: one.given for ref, one in verdicts if one.given is not None}
    alone = bool(given) and _names_alone(question.type, verdicts, present)
    if alone:
        given = {}
    withheld: dict[str, int] = {}
    names: dict[str, int] = {}
    referred = clauses = basis = obligations = conditions = unmet = reasons = guards = 0
    for _, one in verdicts:
        if held := one.alone if alone else one.withheld:
            withheld[one.role] = withheld.get(one.role, 0) | held
        reasons |= one.alone_reasons if alone else one.reasons
        if one.given is not None and not alone:
            names[one.role] = names.get(one.role, 0) | one.names
            clauses |= one.clauses
            basis |= one.basis
            obligations |= one.obligations
        clauses |= one.asked_clauses
        basis |= one.asked_basis
        referred |= one.referred
        conditions |= one.conditions
        unmet |= one.unmet
        guards |= one.guards
    if given:
        outcome = Outcome.REDUCED if withheld else Outcome.PERMIT
    else:
        outcome = Outcome.REFER if referred else Outcome.REFUSE
        reasons = reasons or _NOTHING_TO_GIVE
    found = Findings(
        tuple(sorted(withheld.items())),
        tuple(sorted(names.items())),
        referred,
        clauses,
        basis,
        conditions,
        unmet,
        guards | _V9 if alone else guards,
        reasons,
        obligations,
    )
    return Decision(outcome, FrozenDict(given), question.purpose, recipient.id, found)


def _names_alone(type_name: str, verdicts: Sequence[tuple[str, Joinable]], present: Set[str]) -> bool:
    """Whether nothing of the matter is given: then nothing is (safety rule V9), since the type of a message
    with a name in it would tell the matter all the same.
    """
    matter = (matter_of(type_name).classes or present) & present - COMPANIONS
    return bool(matter) and all(one.classes.isdisjoint(matter) for _, one in verdicts)
