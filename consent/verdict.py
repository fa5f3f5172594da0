"""The verdict on one subject of a message, and how the verdicts on all of them become one decision."""

from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from functools import cache
from typing import NamedTuple

from consent.agreement import Entry, Memory
from consent.decision import (
    NAMES,
    REFERRED,
    WITHHELD,
    WORDS,
    Findings,
    Grant,
    Outcome,
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

    def includes(self, name: str) -> bool:
        """Whether such a message is about the class *name*. One of which nothing is known is about whatever
        it holds, companions aside.
        """
        return name in self.classes if self.classes else name not in COMPANIONS


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

    def joined(self, matter: Matter, memory: Memory) -> "Joinable":
        """This verdict in the form in which it is joined with others, in a message about *matter*; *memory*
        keeps what it gives.
        """
        asked = self.referrals.values()
        referred = REFERRED.of((self.role, name) for name in self.referrals)
        conditions = WORDS.of(self.conditions)
        unmet = WORDS.of(name for name, met in self.conditions.items() if not met)
        guards = WORDS.of(self.guards)

        def found(withheld: Set[tuple[str, str]], names: Iterable[str], cited: Sequence[Entry]) -> _Found:
            return (
                self.role,
                WITHHELD.of(withheld),
                NAMES.of(names),
                referred,
                WORDS.of(entry.clause for entry in (*cited, *asked)),
                WORDS.of(basis for entry in (*cited, *asked) for basis in entry.basis),
                conditions,
                unmet,
                guards,
                WORDS.of(reason for _, reason in withheld),
                WORDS.of(obligation for entry in cited for obligation in entry.obligations),
            )

        names = (f.name if view == "full" else f"{f.name}:{view}" for f, view in self.given.items())
        alone = {w for w in self.withheld if w[1] != "reduced-view"}
        alone |= {(facet.name, "names-alone") for facet in self.given}
        return Joinable(
            # One object for all who are given the same: the minimiser remembers on it what it means.
            memory.grant(self.given) if self.given else None,
            any(matter.includes(facet.name) for facet in self.given),
            found(self.withheld, names, self.grants),
            found(alone, (), ()),
        )


# The role, and the sets of words that stand in `Findings` in this order.
_Found = tuple[str, int, int, int, int, int, int, int, int, int, int]


class Joinable(NamedTuple):
    """What one subject comes to: what is *given*, and whether any of it is what the message is about; what is
    *found* so, and *alone*, when nothing that the message is about is given to go with its names.
    """

    given: Grant | None
    of_matter: bool
    found: _Found
    alone: _Found


def join(verdicts: Collection[Joinable], *, has_matter: bool) -> tuple[Outcome, Findings, bool]:
    """What a message comes to whose subjects come to *verdicts*, and whether what they give is given;
    *has_matter*: it holds something that it is about. Equal verdicts count once, in any order.
    """
    gives = any(one.given is not None for one in verdicts)
    alone = gives and has_matter and _names_alone(verdicts)
    gives = gives and not alone
    withheld: dict[str, int] = {}
    given: dict[str, int] = {}
    referred = clauses = basis = conditions = unmet = reasons = obligations = 0
    guards = _V9 if alone else 0
    for one in verdicts:
        role, held, names, asked, cited, based, looked_at, failed, guarding, why, bound = (
            one.alone if alone else one.found
        )
        if held:
            withheld[role] = withheld.get(role, 0) | held
        if names:
            given[role] = given.get(role, 0) | names
        referred |= asked
        clauses |= cited
        basis |= based
        conditions |= looked_at
        unmet |= failed
        guards |= guarding
        reasons |= why
        obligations |= bound
    if gives:
        outcome = Outcome.REDUCED if withheld else Outcome.PERMIT
    else:
        outcome = Outcome.REFER if referred else Outcome.REFUSE
        reasons = reasons or _NOTHING_TO_GIVE
    found = Findings(
        tuple(sorted(withheld.items())),
        tuple(sorted(given.items())),
        referred,
        clauses,
        basis,
        conditions,
        unmet,
        guards,
        reasons,
        obligations,
    )
    return outcome, found, gives


def _names_alone(verdicts: Collection[Joinable]) -> bool:
    """Whether nothing of the matter is given: then nothing is (safety rule V9), since the type of a message
    with a name in it would tell the matter all the same.
    """
    return not any(one.of_matter for one in verdicts)
