"""The operands of a decision: what the cases of a message say about its people, and what services a recipient
has for each of them.

The cases are read once for all recipients, and recipients with the same assignments share what their services
make of the message. Whatever decides about a subject has a number in the memory, so that equal operands give
equal decisions.
"""

from collections.abc import Set
from typing import NamedTuple

from consent.agreement import Memory
from consent.case import RISK_ORDER
from consent.decision import Question
from consent.guards import AT_RISK, ONLY_ASKED
from consent.verdict import matter_of
from schemas.classes import CASE, Facet

_NO_SERVICES: frozenset[str] = frozenset()
Assigned = tuple[tuple[int, str, str], ...]  # (bit of the case, pseudonym, service)


class Fact(NamedTuple):
    """One subject, whoever the recipient is. *number* stands for what decides: not for who it is (*ref*,
    *pseudonym*), nor for *where* (its cases) and *school_known*, which only say what the recipient is to it.
    """

    ref: str
    role: str
    pseudonym: str
    facets: frozenset[Facet]
    where: int
    school_known: bool
    reveals_home: bool
    was_perpetrator: bool
    perpetrator_represents: bool
    number: int


class Outlook(NamedTuple):
    """What the subjects come to for the message as a whole; *number* stands for this and everything of the
    question that is the same for every recipient. *sought* are the recipient's services for those whose
    address is asked about.
    """

    number: int
    sought: frozenset[frozenset[str]]
    own_pupil: bool
    represented: bool  # the perpetrator represents an own pupil


class Part(NamedTuple):
    """The subjects of a message as the services of some recipients make them. Each has a number in the
    memory, the same for all that decide alike.
    """

    subjects: dict[int, tuple[Fact, frozenset[str], bool, bool]]  # services, in the case, own pupil
    numbers: tuple[tuple[str, int], ...]  # by ref
    members: int  # number of the set of subjects
    works_with_perpetrator: bool
    outlook: Outlook
    providers_outlook: Outlook  # where a question about a former perpetrator is no service


class Operands:
    """What the cases of a question say, whoever the recipient is."""

    __slots__ = (
        "asked",
        "assignments",
        "conflicts",
        "everywhere",
        "facts",
        "has_matter",
        "memory",
        "open",
        "others_at_risk",
        "parts",
        "perpetrators",
        "risk",
        "safe_house",
        "sought",
        "where",
    )

    def __init__(self, question: Question, memory: Memory) -> None:
        self.memory = memory
        self.parts: dict[Assigned, Part] = {}
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
        self.everywhere = (1 << len(question.cases)) - 1
        self.where: dict[str, int] = {}
        victims: set[str] = set()
        children: set[str] = set()
        holders = {"perpetrator": self.perpetrators, "victim": victims, "child": children}
        for i, case in enumerate(question.cases):
            bit = 1 << i
            for party, pseudonym, service in case.assignments:
                self.assignments.setdefault(party, []).append((bit, pseudonym, service))
            self.conflicts |= case.conflicts
            for pseudonym, person in case.people.items():
                self.where[pseudonym] = self.where.get(pseudonym, 0) | bit
                self.safe_house = self.safe_house or person.protected
                for role in person.roles:
                    if role in holders:
                        holders[role].add(pseudonym)
        roles, pseudonyms = question.roles, question.pseudonyms
        for ref, role in roles.items():
            if role in holders:
                # A person the hub cannot name still counts, under a name nobody is assigned to.
                holders[role].add(pseudonyms.get(ref, "?" + ref))
        self.sought = ("victim", victims) if victims else ("child", children)
        at_risk = victims | children
        self.facts = [
            self._fact(question, ref, frozenset(facets), at_risk) for ref, facets in question.holdings.items()
        ]
        self.others_at_risk = any(fact.role in AT_RISK for fact in self.facts)
        matter = matter_of(question.type)
        self.has_matter = any(matter.includes(facet.name) for fact in self.facts for facet in fact.facets)
        # All of the question that decides and is the same for every recipient, as one number.
        self.asked = memory.number(
            (
                (question.type, question.purpose, question.audience, question.source, question.leave),
                (question.tags, self.open, self.risk, self.safe_house, self.sought[0], self.others_at_risk),
            )
        )

    def part(self, party: str) -> Part:
        """The subjects for *party*, which is one of those with the same assignments."""
        assigned = tuple(self.assignments.get(party, ()))
        found = self.parts.get(assigned)
        if found is None:
            found = self.parts[assigned] = self._part(assigned)
        return found

    def _part(self, assigned: Assigned) -> Part:
        own: dict[str, set[str]] = {}
        present = seated = 0
        for bit, pseudonym, service in assigned:
            own.setdefault(pseudonym, set()).add(service)
            present |= bit
            if pseudonym == "*":
                seated |= bit
        # `*` is a seat at the table: it works with everybody of that case, and it links nobody to the
        # perpetrator.
        everybody = frozenset(own.pop("*", ()))
        # Being asked about the perpetrator is not working with him.
        # Somebody of whom no case knows a role may be the perpetrator: unknown links.
        works_with_perpetrator = any(
            not held <= {"asked"} and (p in self.perpetrators or p not in self.where)
            for p, held in own.items()
        )

        def services(pseudonym: str, where: int) -> frozenset[str]:
            seat = everybody if where & seated else _NO_SERVICES
            return seat.union(own[pseudonym]) if pseudonym in own else seat

        of_case = everybody.union(*own.values())
        number = self.memory.number
        theirs = [
            (fact, services(fact.pseudonym, fact.where) if fact.ref else of_case) for fact in self.facts
        ]
        some = any(_is_own_pupil(fact, held) for fact, held in theirs)
        subjects, numbers, represented = {}, [], False
        for fact, held in theirs:
            in_case = bool(fact.where & present)
            pupil = some if fact.role == CASE else _is_own_pupil(fact, held)
            n = number((fact.number, held, in_case, pupil))
            subjects[n] = (fact, held, in_case, pupil)
            numbers.append((fact.ref, n))
            represented = represented or (pupil and fact.perpetrator_represents)
        known = {p: services(p, self.where.get(p, 0)) for p in self.sought[1]}
        outlook = providers = self._outlook(frozenset(known.values()), some, represented)
        if not self.perpetrators.isdisjoint(known):
            # Being asked about somebody who was the perpetrator before is not working with a victim (V14).
            provided = frozenset(
                _NO_SERVICES if p in self.perpetrators and theirs <= ONLY_ASKED else theirs
                for p, theirs in known.items()
            )
            providers = self._outlook(provided, some, represented)
        members = number(frozenset(subjects))
        return Part(subjects, tuple(numbers), members, works_with_perpetrator, outlook, providers)

    def _outlook(self, sought: frozenset[frozenset[str]], own_pupil: bool, represented: bool) -> Outlook:
        number = self.memory.number((self.asked, sought, own_pupil, represented))
        return Outlook(number, sought, own_pupil, represented)

    def _fact(self, question: Question, ref: str, held: frozenset[Facet], at_risk: set[str]) -> Fact:
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
        was = pseudonym in self.perpetrators
        number = self.memory.number((role, held, home, was, represented))
        return Fact(ref, role, pseudonym, held, where, school, home, was, represented, number)


def _reveals_home(question: Question, pseudonym: str) -> bool:
    """Whether a home of the perpetrator is somebody's at risk, in whatever case of his."""
    elsewhere = [case for case in question.elsewhere if pseudonym in case.people]
    theirs = [*elsewhere, *(case for case in question.cases if pseudonym in case.people)]
    homes = frozenset().union(*(case.people[pseudonym].households for case in theirs))
    return any(case.shares_household(pseudonym, homes) for case in theirs) or any(
        case.has_role(pseudonym, role) for case in elsewhere for role in AT_RISK
    )


def _is_own_pupil(fact: Fact, services: Set[str]) -> bool:
    """Whether somebody is a child of whose school the recipient was asked, or has a task about."""
    return fact.role == "child" and fact.school_known and not {"asked", "task"}.isdisjoint(services)
