"""The decision: what of one message may one party receive, under the agreements in force, and why.

The order is fixed: guards before clauses, conditions before grants, and at the end the message as a whole:
names are never sent without the matter they belong to. What no clause in force grants is withheld. A
decision is a value; `decide` is pure and never raises, and an operand that is missing counts as the answer
that gives less.

Everything that matters is finite (roles, services, risk levels, flags), so a decision is remembered by its
operands for the day it was made and conditions and guards run only on combinations not seen that day.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from consent.agreement import Agreements, Cells, Entry, InForce, Party
from consent.case import RISK_ORDER
from consent.clause import NEVER_GRANTED
from consent.conditions import CONDITIONS, Facts
from consent.decision import Decision, FrozenDict, Leave, Outcome, Question
from consent.guards import AT_RISK, NGO, PERPETRATOR_SIDE, Effect, Situation, Subject, guarded
from schemas.catalogue import Branch, Leaf, published
from schemas.classes import CASE, FRAME, Facet
from schemas.errors import UnknownType

HUB = "hub"
# Who somebody is, and how to meet them safely: never a reason to send a message, only company for one.
COMPANIONS = frozenset({FRAME, "ID-CORE", "ID-XREF", "SAFE-CONTACT"})
_REMEMBERED = 50_000  # decisions kept for a day: a few hundred bytes each


_NOTHING = FrozenDict()
# Who must be answered by law is answered through a person, whatever the clauses say: the information must not
# be used to investigate an offence (s 66(3)).
SECTION_66 = Entry(
    "",
    "OTA-S66",
    (),
    ("OTA66: Oranga Tamariki Act 1989 s 66",),
    ("not-for-offences", "use-limited"),
)


def decide(agreements: Agreements, question: Question, recipient: Party) -> Decision:
    """What *recipient* may receive of the message in *question* under *agreements*. Pure, total, never
    raises.
    """
    return _decide(agreements, question, _Cases(question), agreements.in_force(question.at), recipient)


def decide_each(
    agreements: Agreements, question: Question, recipients: Iterable[Party]
) -> Iterator[Decision]:
    """`decide` for each of *recipients*, reading the cases of *question* once. Do not change the cases
    before the iterator is used up.
    """
    cases, in_force = _Cases(question), agreements.in_force(question.at)
    for recipient in recipients:
        yield _decide(agreements, question, cases, in_force, recipient)


def outward(decision: Decision) -> str:
    """The one word that an asker hears: refused, referred, restricted and unknown sound alike (safety rule
    V8).
    """
    return "released" if decision.outcome in (Outcome.PERMIT, Outcome.REDUCED) else "not-available"


def nothing_left(decision: Decision) -> Decision:
    """*decision* when the message turned out to hold nothing of what was granted: a refusal, or still a
    referral.
    """
    return replace(
        decision,
        outcome=Outcome.REFER if decision.referred else Outcome.REFUSE,
        given=_NOTHING,
        reasons=tuple(sorted({*decision.reasons, "nothing-to-give"})),
        obligations=(),
    )


class _Told(NamedTuple):
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


class _Cases:
    """What the cases of a question say, whoever the recipient is."""

    __slots__ = (
        "assignments",
        "conflicts",
        "everywhere",
        "facts",
        "open",
        "perpetrators",
        "risk",
        "sought",
        "where",
    )

    def __init__(self, question: Question) -> None:
        self.open = False
        self.risk: str | None = None
        self.perpetrators: set[str] = set()
        self.conflicts: set[str] = set()
        # One bit for each case: of an assignment, and of all the cases a person belongs to.
        self.assignments = [(1 << i, case.assignments) for i, case in enumerate(question.cases)]
        self.everywhere = (1 << len(question.cases)) - 1
        self.where: dict[str, int] = {}
        victims: set[str] = set()
        children: set[str] = set()
        roles, pseudonyms = question.roles, question.pseudonyms
        for i, case in enumerate(question.cases):
            self.open = self.open or case.open
            if RISK_ORDER.get(case.risk or "", 0) > RISK_ORDER.get(self.risk or "", 0):
                self.risk = case.risk
            self.conflicts |= case.conflicts
            for pseudonym, person in case.people.items():
                self.where[pseudonym] = self.where.get(pseudonym, 0) | 1 << i
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


_NO_SERVICES: frozenset[str] = frozenset()


def _decide(
    agreements: Agreements, question: Question, cases: _Cases, in_force: InForce | None, recipient: Party
) -> Decision:
    own: dict[str, set[str]] = {}
    mine = recipient.id
    linked = recipient.kind in PERPETRATOR_SIDE
    present = seated = 0
    for bit, assignments in cases.assignments:
        for party, pseudonym, service in assignments:
            if party == mine:
                own.setdefault(pseudonym, set()).add(service)
                present |= bit
                if pseudonym == "*":
                    seated |= bit
    if not linked and recipient.kind in NGO:
        # Being asked about the perpetrator is not working with him.
        # Somebody of whom no case knows a role may be the perpetrator: unknown links.
        linked = any(
            not held <= {"asked"} and (p in cases.perpetrators or p not in cases.where)
            for p, held in own.items()
            if p != "*"
        )
    # `*` is a seat at the table: it works with everybody of that case, and it links nobody to the
    # perpetrator.
    everybody = frozenset(own.pop("*", _NO_SERVICES))
    of_case = everybody.union(*own.values())

    def services(pseudonym: str, where: int) -> frozenset[str]:
        seat = everybody if where & seated else _NO_SERVICES
        return seat.union(own[pseudonym]) if pseudonym in own else seat

    told = tuple(
        _Told(
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
        for ref, role, pseudonym, held, where, school, home, was, by in cases.facts
    )
    role, people = cases.sought
    sought = frozenset([services(pseudonym, cases.where.get(pseudonym, 0)) for pseudonym in people])
    conflicted = mine in cases.conflicts
    source = agreements.parties.get(question.source)
    # An agreement's day and the parties are the memory's own; the rest of what decides stands in the key.
    asked_by = (question.type, question.purpose, question.audience, question.source, question.leave)
    key = (recipient, asked_by, cases.open, cases.risk, linked, conflicted, role, sought, told)
    if in_force is None:
        return _refusal(question, recipient, "no-time")
    decision: Decision | None = in_force.decisions.get(key)
    if decision is None:
        asked = _Asked(
            question, recipient, source, cases, in_force, linked, conflicted, role, sought, told, agreements
        )
        decision = asked.decision()
        if len(in_force.decisions) >= _REMEMBERED:
            in_force.decisions.clear()
        in_force.decisions[key] = decision
    return decision


def _refusal(question: Question, recipient: Party, reason: str) -> Decision:
    return Decision(
        Outcome.REFUSE, _NOTHING, (), (), (), _NOTHING, (reason,), (), (), (), question.purpose, recipient.id
    )  # fmt: skip


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


class _Matter(NamedTuple):
    """Of one type of message: the classes it is about (those outside its people, companions aside), and
    what has a reduced view.
    """

    classes: frozenset[str]
    reducible: frozenset[tuple[str, Facet]]


@cache
def _matter(type_name: str) -> _Matter:
    try:
        published_type = published()[type_name]
    except UnknownType:
        return _Matter(frozenset(), frozenset())
    held = list(carried(published_type.shape))
    return _Matter(
        (frozenset(facet.name for _, facet, _, listed in held if not listed) | published_type.matter)
        - COMPANIONS,
        frozenset((role, facet) for role, facet, reduced, _ in held if reduced),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question with all its operands, decided from scratch."""

    question: Question
    recipient: Party
    source: Party | None
    cases: _Cases
    in_force: InForce
    linked: bool
    conflicted: bool
    sought_role: str
    sought: frozenset[frozenset[str]]
    told: tuple[_Told, ...]
    agreements: Agreements

    def decision(self) -> Decision:
        """The decision, not remembered."""
        question, recipient = self.question, self.recipient
        if self.agreements.parties.get(recipient.id) != recipient or not recipient.active:
            return _refusal(question, recipient, "unknown-party")
        if self._is_structure_from_hub():
            return Decision(
                Outcome.PERMIT, _NOTHING, (), (), (), _NOTHING, (), (), (), (), question.purpose, recipient.id
            )  # fmt: skip
        if self.source is None or not self.source.active:
            return _refusal(question, recipient, "unknown-source")
        leave = question.leave
        cells = self.in_force.cells(recipient.id, question.purpose, self.source.kind, leave.opened)
        verdict = _Verdict()
        situation = self._situation(cells)
        asked = (
            recipient,
            question.type,
            question.purpose,
            question.source,
            self.cases.open,
            situation,
            leave,
        )
        for told in self.told:
            own_pupil = self._own_pupil(told)
            # What one subject comes to does not depend on the others beyond the situation, and families
            # resemble each other more in their members than as a whole.
            key = (asked, told[1:], own_pupil)
            weighed = self.in_force.weighed.get(key)
            if weighed is None:
                weighed = self._subject(cells, situation, told, own_pupil)
                if len(self.in_force.weighed) >= _REMEMBERED:
                    self.in_force.weighed.clear()
                self.in_force.weighed[key] = weighed
            verdict.absorb(weighed, told.ref)
        verdict.drop_names_alone(question.type, {f.name for told in self.told for f in told.facets})
        return verdict.decision(question, recipient)

    def _subject(self, cells: Cells, situation: Situation, told: _Told, own_pupil: bool) -> "_Verdict":
        """What one subject comes to, under the ref ""."""
        verdict = _Verdict()
        facts = self._facts(told.role, told.services, told.in_case, own_pupil)
        subject = Subject(
            told.role,
            told.services,
            own_pupil,
            told.reveals_home,
            told.was_perpetrator,
            told.perpetrator_represents,
        )
        for facet in told.facets:
            if facet.name != FRAME:
                self._weigh(verdict, cells, situation, facts, subject, facet)
        if verdict.given:
            # One object for all who are given the same: the minimiser remembers on it what it means.
            verdict.given[""] = FrozenDict(verdict.given[""])
        return verdict

    def _is_structure_from_hub(self) -> bool:
        """Recalls and outcomes: the hub's own words to one party, about no person."""
        question = self.question
        return (
            question.source == HUB
            and question.audience == "addressee"
            and not question.roles
            and all(f.name == FRAME for told in self.told for f in told.facets)
        )

    def _own_pupil(self, told: _Told) -> bool:
        if told.role == CASE:
            return any(self._own_pupil(other) for other in self.told if other.role != CASE)
        return told.role == "child" and told.school_known and not {"asked", "task"}.isdisjoint(told.services)

    def _facts(self, role: str, services: frozenset[str], in_case: bool, own_pupil: bool) -> Facts:
        return Facts(
            kind=self.recipient.kind,
            status=self.recipient.status,
            today=self.in_force.day,
            audience=self.question.audience,
            case_open=self.cases.open,
            risk=self.cases.risk,
            linked=self.linked,
            conflicted=self.conflicted,
            role=role,
            services=services,
            in_case=in_case,
            own_pupil=own_pupil,
        )

    def _situation(self, cells: Cells) -> Situation:
        entries = cells.get((self.sought_role, "ADDR-V"), ())
        told_places = all(
            any(
                e.view == "full"
                and not _unmet(e, self._facts(self.sought_role, services, bool(services), False))
                for e in entries
            )
            for services in self.sought
        )
        return Situation(
            kind=self.recipient.kind,
            capacity=self.recipient.capacity,
            audience=self.question.audience,
            risk=self.cases.risk,
            linked=self.linked,
            conflicted=self.conflicted,
            knows_places=bool(self.sought) and told_places and not self.linked,
            own_pupil=any(self._own_pupil(told) for told in self.told),
            others_at_risk=any(told.role in AT_RISK for told in self.told),
            perpetrator_represents_pupil=any(
                self._own_pupil(t) and t.perpetrator_represents for t in self.told if t.ref
            ),
        )

    def _weigh(
        self,
        verdict: "_Verdict",
        cells: Cells,
        situation: Situation,
        facts: Facts,
        subject: Subject,
        facet: Facet,
    ) -> None:
        """Decides one facet of one subject. A guard is asked about the very view that a clause would give."""
        entries = cells.get((subject.role, facet.name), ())
        leave = self.question.leave
        if leave.mandatory and facet.name not in NEVER_GRANTED:
            entries = (*entries, SECTION_66)
        approved = (subject.role, facet.name) in leave.approved
        # Free text counts as a place until a person has read it (safety rule V2); nothing else changes.
        read = facet._replace(free_text=False) if approved and leave.scrubbed else facet
        reducible = _matter(self.question.type).reducible
        strongest, codes = guarded(situation, subject, read, "full")
        open_referral: Entry | None = None
        reason = codes[0] if codes else "no-clause"
        for entry in entries:
            unmet = _unmet(entry, facts)
            for name in entry.conditions:
                verdict.conditions[name] = verdict.conditions.get(name, True) and name not in unmet
            if unmet:
                reason = reason if codes else f"unmet-{unmet[0]}"
                continue
            if entry.view == "reduced" and (subject.role, facet) not in reducible:
                reason = (
                    reason if codes else "reduced-view"
                )  # the type has nothing of this in its reduced view
                continue
            if not entry.view:
                if approved and strongest in (None, Effect.ASK):
                    verdict.give("", subject.role, facet, entry._replace(view="full"))
                    return
                if strongest is not Effect.NOTHING:
                    open_referral = open_referral or entry
                continue
            effect, held_by = (
                (strongest, codes) if entry.view == "full" else guarded(situation, subject, read, entry.view)
            )
            if effect is None or (approved and effect is Effect.ASK):
                verdict.give("", subject.role, facet, entry)
                return
            verdict.guards.update(held_by)
            reason = held_by[0]
            if effect is Effect.ASK:
                open_referral = open_referral or entry
        verdict.guards.update(codes)
        if open_referral is None:
            verdict.withheld.add((subject.role, facet.name, reason))
        else:
            verdict.refer(subject.role, facet, open_referral)


def _unmet(entry: Entry, facts: Facts) -> list[str]:
    return [name for name in entry.conditions if not CONDITIONS[name](facts)]


class _Verdict:
    """A decision while it is being made."""

    def __init__(self) -> None:
        self.given: dict[str, dict[Facet, str]] = {}
        self.grants: list[tuple[str, Facet, Entry]] = []
        self.referrals: dict[tuple[str, str], Entry] = {}
        self.withheld: set[tuple[str, str, str]] = set()
        self.conditions: dict[str, bool] = {}
        self.guards: set[str] = set()

    def give(self, ref: str, role: str, facet: Facet, entry: Entry) -> None:
        self.given.setdefault(ref, {})[facet] = entry.view
        self.grants.append((role, facet, entry))
        if entry.view == "reduced":
            self.withheld.add((role, facet.name, "reduced-view"))

    def absorb(self, subject: "_Verdict", ref: str) -> None:
        """Adds what one subject came to, as the subject *ref*."""
        if subject.given:
            self.given[ref] = subject.given[""]
            self.grants += subject.grants
        self.referrals.update(subject.referrals)
        self.withheld |= subject.withheld
        self.guards |= subject.guards
        for name, met in subject.conditions.items():
            self.conditions[name] = self.conditions.get(name, True) and met

    def refer(self, role: str, facet: Facet, entry: Entry) -> None:
        self.referrals[role, facet.name] = entry
        self.withheld.add((role, facet.name, "needs-person"))

    def drop_names_alone(self, type_name: str, present: set[str]) -> None:
        """Gives nothing when nothing of the matter is given: the type of a message with a name in it would
        tell the matter all the same.
        """
        matter = (_matter(type_name).classes or present) & present - COMPANIONS
        if not matter or not self.given or any(facet.name in matter for _, facet, _ in self.grants):
            return
        self.withheld = {w for w in self.withheld if w[2] != "reduced-view"}
        self.withheld |= {(role, facet.name, "names-alone") for role, facet, _ in self.grants}
        self.guards.add("V9")
        self.given.clear()
        self.grants.clear()

    def decision(self, question: Question, recipient: Party) -> Decision:
        if not self.given:
            outcome = Outcome.REFER if self.referrals else Outcome.REFUSE
        else:
            outcome = Outcome.REDUCED if self.withheld else Outcome.PERMIT
        used = [entry for _, _, entry in self.grants]
        cited = {entry.clause for entry in (*used, *self.referrals.values())}
        return Decision(
            outcome=outcome,
            given=FrozenDict(self.given),
            withheld=tuple(sorted(self.withheld)),
            referred=tuple(sorted(self.referrals)),
            clauses=tuple(sorted(cited)),
            conditions=FrozenDict(sorted(self.conditions.items())),
            reasons=tuple(
                sorted(
                    {reason for _, _, reason in self.withheld} or ({"nothing-to-give"} if not used else set())
                )
            ),
            guards=tuple(sorted(self.guards)),
            obligations=tuple(sorted({o for entry in used for o in entry.obligations})),
            basis=tuple(sorted({b for entry in (*used, *self.referrals.values()) for b in entry.basis})),
            purpose=question.purpose,
            recipient=recipient.id,
        )


__all__ = [
    "COMPANIONS",
    "Decision",
    "FrozenDict",
    "Leave",
    "Outcome",
    "Question",
    "carried",
    "decide",
    "decide_each",
    "nothing_left",
    "outward",
]
