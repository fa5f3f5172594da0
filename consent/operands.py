"""The operands of a decision: what the cases of a message say about its people, and what services a recipient
has for each of them.

They are read once for all recipients. Whatever decides about a person stands in `Told`, in plain words, so
that equal operands give equal decisions.
"""

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from consent.agreement import Memory
from consent.case import RISK_ORDER
from consent.decision import Question
from consent.guards import AT_RISK, ONLY_ASKED
from schemas.classes import CASE, Facet

_NO_SERVICES: frozenset[str] = frozenset()


class Told(NamedTuple):
    """One subject as the key of a remembered decision: everything that deciding about it depends on, and
    nothing else.
    """

    ref: str
    role: str
    facets: frozenset[Facet]
    services: frozenset[str]
    in_case: bool
    school_known: bool
    reveals_home: bool
    was_perpetrator: bool
    perpetrator_represents: bool


class Telling(NamedTuple):
    """The subjects of a message as one recipient's services make them."""

    told: tuple[Told, ...]
    own_pupils: tuple[bool, ...]  # of *told*
    numbers: tuple[int, ...]  # of *told*, in the memory
    signature: int  # of all of it, in the memory
    sought: frozenset[frozenset[str]]  # the recipient's services for those whose address is asked about
    provided: frozenset[frozenset[str]]  # *sought*, where a question about a former perpetrator is no service


class Operands:
    """What the cases of a question say, whoever the recipient is."""

    __slots__ = (
        "asked",
        "assignments",
        "conflicts",
        "everywhere",
        "facts",
        "memory",
        "open",
        "perpetrators",
        "present",
        "risk",
        "safe_house",
        "sought",
        "tellings",
        "where",
    )

    def __init__(self, question: Question, memory: Memory) -> None:
        self.memory = memory
        self.tellings: dict[tuple[frozenset[str], int, int], Telling] = {}
        self.open = any(case.open for case in question.cases)
        self.risk: str | None = max(
            (case.risk for case in question.cases),
            key=lambda risk: RISK_ORDER.get(risk or "", 0),
            default=None,
        )
        self.safe_house = False
        self.perpetrators: set[str] = set()
        self.conflicts: set[str] = set()
        # By party, with one bit for each case: of an assignment, and of all the cases a person belongs to.
        self.assignments: dict[str, list[tuple[int, str, str]]] = {}
        for i, case in enumerate(question.cases):
            for party, pseudonym, service in case.assignments:
                self.assignments.setdefault(party, []).append((1 << i, pseudonym, service))
        self.everywhere = (1 << len(question.cases)) - 1
        self.where: dict[str, int] = {}
        victims: set[str] = set()
        children: set[str] = set()
        roles, pseudonyms = question.roles, question.pseudonyms
        for i, case in enumerate(question.cases):
            self.conflicts |= case.conflicts
            for pseudonym, person in case.people.items():
                self.where[pseudonym] = self.where.get(pseudonym, 0) | 1 << i
                self.safe_house = self.safe_house or person.protected
                for role in person.roles:
                    if role == "perpetrator":
                        self.perpetrators.add(pseudonym)
                    elif role == "victim":
                        victims.add(pseudonym)
                    elif role == "child":
                        children.add(pseudonym)
        for ref, role in roles.items():
            # A person the hub cannot name still counts, under a name nobody is assigned to.
            pseudonym = pseudonyms.get(ref, "?" + ref)
            if role == "perpetrator":
                self.perpetrators.add(pseudonym)
            elif role == "victim":
                victims.add(pseudonym)
            elif role == "child":
                children.add(pseudonym)
        self.sought = ("victim", victims) if victims else ("child", children)
        self.facts = [
            self._facts(question, ref, facets, victims | children)
            for ref, facets in question.holdings.items()
        ]
        self.present = {facet.name for _, _, _, held, *_ in self.facts for facet in held}
        # All of the question that decides and is the same for every recipient, as one number.
        self.asked = memory.number(
            (
                (question.type, question.purpose, question.audience, question.source, question.leave),
                (question.tags, self.open, self.risk, self.safe_house, self.sought[0]),
            )
        )

    def telling(
        self, own: Mapping[str, Set[str]], everybody: frozenset[str], present: int, seated: int
    ) -> Telling:
        """The subjects for a recipient with the services *own* (by pseudonym) and, in the cases *seated*,
        *everybody*; *present* are the cases it has any part in.
        """
        key = (everybody, present, seated)
        found = None if own else self.tellings.get(key)
        if found is None:
            found = self._telling(own, *key)
            if not own:
                self.tellings[key] = found
        return found

    def _telling(
        self, own: Mapping[str, Set[str]], everybody: frozenset[str], present: int, seated: int
    ) -> Telling:
        of_case = everybody.union(*own.values())

        def services(pseudonym: str, where: int) -> frozenset[str]:
            seat = everybody if where & seated else _NO_SERVICES
            return seat.union(own[pseudonym]) if pseudonym in own else seat

        told = tuple(
            Told(
                ref,
                role,
                held,
                services(pseudonym, where) if ref else of_case,
                bool(where & present),
                school,
                home,
                was,
                by,
            )
            for ref, role, pseudonym, held, where, school, home, was, by in self.facts
        )
        pupils = [_is_own_pupil(one) for one in told]
        some = any(pupils)
        own_pupils = tuple(
            some if one.role == CASE else pupil for one, pupil in zip(told, pupils, strict=True)
        )
        number = self.memory.number
        numbers = tuple(number((one[1:], pupil)) for one, pupil in zip(told, own_pupils, strict=True))
        signature = number(tuple(zip([one.ref for one in told], numbers, strict=True)))
        held = {p: services(p, self.where.get(p, 0)) for p in self.sought[1]}
        sought = provided = frozenset(held.values())
        if not self.perpetrators.isdisjoint(held):
            # Being asked about somebody who was the perpetrator before is not working with a victim (V14).
            provided = frozenset(
                _NO_SERVICES if p in self.perpetrators and theirs <= ONLY_ASKED else theirs
                for p, theirs in held.items()
            )
        return Telling(told, own_pupils, numbers, signature, sought, provided)

    def _facts(
        self, question: Question, ref: str, facets: Iterable[Facet], at_risk: set[str]
    ) -> tuple[str, str, str, frozenset[Facet], int, bool, bool, bool, bool]:
        held = facets if isinstance(facets, frozenset) else frozenset(facets)
        role = question.roles.get(ref, "") if ref else CASE
        pseudonym = question.pseudonyms.get(ref, "?" + ref) if ref else ""
        school = home = represented = False
        where = self.where.get(pseudonym, 0) if ref else self.everywhere
        if role in ("perpetrator", "child"):
            known = [case for case in question.cases if pseudonym in case.people]
            if role == "perpetrator":
                home = not known or pseudonym in at_risk or _reveals_home(question, pseudonym)
            else:
                # A child whom no case knows may be represented by anybody.
                represented = not known
                for case in known:
                    person = case.people[pseudonym]
                    school = school or person.school is not None
                    by = person.representative
                    # A representative of whom the case knows nothing might be the perpetrator.
                    represented = represented or (
                        by is not None and (by in self.perpetrators or by not in case.people)
                    )
        return ref, role, pseudonym, held, where, school, home, pseudonym in self.perpetrators, represented


def _reveals_home(question: Question, pseudonym: str) -> bool:
    """Whether a home of the perpetrator is somebody's at risk, in whatever case of his."""
    elsewhere = [case for case in question.elsewhere if pseudonym in case.people]
    theirs = [*elsewhere, *(case for case in question.cases if pseudonym in case.people)]
    homes = frozenset().union(*(case.people[pseudonym].households for case in theirs))
    return any(case.shares_household(pseudonym, homes) for case in theirs) or any(
        case.has_role(pseudonym, role) for case in elsewhere for role in AT_RISK
    )


def _is_own_pupil(told: Told) -> bool:
    """Whether somebody is a child of whose school the recipient was asked, or has a task about."""
    return told.role == "child" and told.school_known and not {"asked", "task"}.isdisjoint(told.services)
