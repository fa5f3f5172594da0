"""The decision: what of one message may one party receive, under the agreements in force, and why.

The order is fixed: guards before clauses, conditions before grants, and at the end the message as a whole:
names are never sent without the matter they belong to. What no clause in force grants is withheld. A
decision is a value; `decide` is pure and never raises, and an operand that is missing counts as the answer
that gives less.

Everything that matters is finite (roles, services, risk levels, flags), so a decision is remembered by its
operands for the day it was made. Conditions and guards run on one subject at a time, and only on subjects not
seen that day; what a message comes to is joined from what its subjects come to.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from consent.agreement import Agreements, Cells, Entry, InForce, Party
from consent.clause import CHILD_CARE, NEVER_GRANTED
from consent.conditions import CONDITIONS, Facts
from consent.decision import NO_LEAVE, S66, WORDS, Decision, Findings, FrozenDict, Leave, Outcome, Question
from consent.guards import AT_RISK, NGO, PERPETRATOR_SIDE, Effect, Situation, Subject, guarded
from consent.operands import Operands, Telling, Told
from consent.verdict import COMPANIONS, Joinable, Verdict, carried, join, matter_of
from schemas.classes import FRAME, Facet

HUB = "hub"

_NOTHING = FrozenDict()
_SAFE_CONTACT, _NUMBER = Facet("SAFE-CONTACT"), Facet("ID-XREF")
_NOT_FOR_OFFENCES = WORDS.of(("not-for-offences",))
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
    return next(decide_each(agreements, question, (recipient,)))


def decide_each(
    agreements: Agreements, question: Question, recipients: Iterable[Party]
) -> Iterator[Decision]:
    """`decide` for each of *recipients*, reading the cases of *question* once. Do not change the cases
    before the iterator is used up.
    """
    in_force = agreements.in_force(question.at)
    if in_force is None:
        for recipient in recipients:
            yield _refusal(question, recipient, "no-time")
        return
    cases = Operands(question, in_force.memory())
    for recipient in recipients:
        yield _decide(agreements, question, cases, in_force, recipient)


def decide_all(
    agreements: Agreements,
    question: Question,
    recipients: Iterable[Party],
    numbered: Mapping[str, frozenset[str]],
    leaves: Mapping[str, Leave] | None = None,
) -> Iterator[tuple[Party, Decision]]:
    """Each of *recipients* with its decision. *numbered*: where the hub knows an agency's own number of
    somebody whom the sender did not number (ref → agencies), that agency is asked about it like about what
    the sender said. *leaves*: what people decided for single parties.
    """
    if not numbered and not leaves:
        group = tuple(recipients)
        yield from zip(group, decide_each(agreements, question, group), strict=True)
        return
    groups: dict[tuple[frozenset[str], Leave], list[Party]] = {}
    for recipient in recipients:
        known = frozenset(ref for ref, agencies in numbered.items() if recipient.agency in agencies)
        leave = leaves.get(recipient.id, NO_LEAVE) if leaves else NO_LEAVE
        groups.setdefault((known, leave), []).append(recipient)
    for (known, leave), members in groups.items():
        asked = question if leave is NO_LEAVE else replace(question, leave=leave)
        if known:
            holdings = {ref: f | {_NUMBER} if ref in known else f for ref, f in question.holdings.items()}
            asked = replace(asked, holdings=holdings)
        yield from zip(members, decide_each(agreements, asked, members), strict=True)


def outward(decision: Decision) -> str:
    """The one word that an asker hears: refused, referred, restricted and unknown sound alike (safety rule
    V8).
    """
    return "released" if decision.outcome in (Outcome.PERMIT, Outcome.REDUCED) else "not-available"


def nothing_left(decision: Decision) -> Decision:
    """*decision* when the message turned out to hold nothing of what was granted: a refusal, or still a
    referral.
    """
    found = decision.found
    return replace(
        decision,
        outcome=Outcome.REFER if found.referred else Outcome.REFUSE,
        given=_NOTHING,
        found=found._replace(given=(), reasons=found.reasons | WORDS.of(("nothing-to-give",)), obligations=0),
    )


def seen_each(
    agreements: Agreements, question: Question, recipients: Iterable[Party]
) -> Iterator[tuple[Situation, Mapping[str, Subject]]]:
    """What guards see, for each of *recipients*: their situation, and each subject of *question* by ref.
    Under the same clauses equal sights are equal answers, for any facet and view.
    """
    in_force = agreements.in_force(question.at)
    source = agreements.parties[question.source]
    if in_force is None:
        return
    cases = Operands(question, in_force.memory())
    for recipient in recipients:
        asked = _asked(agreements, question, cases, in_force, recipient)
        pupils = zip(asked.told, asked.telling.own_pupils, strict=True)
        yield asked.stage(source).situation, {told.ref: _seen(told, pupil) for told, pupil in pupils}


def _decide(
    agreements: Agreements, question: Question, cases: Operands, in_force: InForce, recipient: Party
) -> Decision:
    asked = _asked(agreements, question, cases, in_force, recipient)
    key = (asked.standing, asked.telling.signature)
    decision: Decision | None = cases.memory.decisions.get(key)
    if decision is None:
        decision = cases.memory.decisions[key] = asked.decision()
    return decision


def _asked(
    agreements: Agreements, question: Question, cases: Operands, in_force: InForce, recipient: Party
) -> "_Asked":
    own: dict[str, set[str]] = {}
    mine = recipient.id
    linked = recipient.kind in PERPETRATOR_SIDE
    present = seated = 0
    for bit, pseudonym, service in cases.assignments.get(mine, ()):
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
    everybody = frozenset(own.pop("*", ()))
    telling = cases.telling(own, everybody, present, seated)
    role = cases.sought[0]
    conflicted = mine in cases.conflicts
    known = agreements.parties.get(mine)
    registered = known is recipient or known == recipient
    # An agreement's day and the parties are the memory's own; the rest of what decides stands in the key.
    sought = telling.provided if recipient.kind in NGO else telling.sought
    standing = (mine, registered, cases.asked, linked, conflicted, sought)
    source = agreements.parties.get(question.source)
    return _Asked(
        question, recipient, registered, source, cases, in_force, linked, conflicted, role, telling, standing
    )


def _refusal(question: Question, recipient: Party, reason: str) -> Decision:
    return Decision(
        Outcome.REFUSE, _NOTHING, question.purpose, recipient.id, Findings(reasons=WORDS.of((reason,)))
    )


def _seen(told: Told, own_pupil: bool) -> Subject:
    return Subject(
        told.role,
        told.services,
        own_pupil,
        told.reveals_home,
        told.was_perpetrator,
        told.perpetrator_represents,
        _SAFE_CONTACT in told.facets,
        _NUMBER in told.facets,
    )


class _Asked(NamedTuple):
    """A question with all its operands, decided from scratch."""

    question: Question
    recipient: Party
    registered: bool
    source: Party | None
    cases: Operands
    in_force: InForce
    linked: bool
    conflicted: bool
    sought_role: str
    telling: Telling
    standing: tuple[Any, ...]  # the recipient towards the whole message, but for who its subjects are

    @property
    def told(self) -> tuple[Told, ...]:
        """The subjects."""
        return self.telling.told

    def decision(self) -> Decision:
        """The decision, not remembered."""
        question, recipient = self.question, self.recipient
        if not self.registered or not recipient.active:
            return _refusal(question, recipient, "unknown-party")
        if self._is_structure_from_hub():
            return Decision(Outcome.PERMIT, _NOTHING, question.purpose, recipient.id)
        if self.source is None or not self.source.active:
            return _refusal(question, recipient, "unknown-source")
        stage = self.stage(self.source)
        verdicts = []
        for told, number, own_pupil in zip(
            self.told, self.telling.numbers, self.telling.own_pupils, strict=True
        ):
            # What one subject comes to does not depend on the others beyond the situation, and families
            # resemble each other more in their members than as a whole.
            verdict = stage.verdicts.get(number)
            if verdict is None:
                verdict = stage.verdicts[number] = self._subject(stage, told, own_pupil).joined()
            verdicts.append((told.ref, verdict))
        joined = join(question, recipient, verdicts, self.cases.present)
        if joined.given and S66 in question.tags:
            obligations = joined.found.obligations | _NOT_FOR_OFFENCES
            return replace(joined, found=joined.found._replace(obligations=obligations))
        return joined

    def stage(self, source: Party) -> "_Stage":
        """The recipient towards the message, remembered."""
        others_at_risk = any(told.role in AT_RISK for told in self.told)
        represents = any(
            pupil and told.perpetrator_represents
            for told, pupil in zip(self.told, self.telling.own_pupils, strict=True)
            if told.ref
        )
        key = (self.standing, any(self.telling.own_pupils), others_at_risk, represents)
        stages = self.cases.memory.stages
        stage: _Stage | None = stages.get(key)
        if stage is None:
            question = self.question
            cells = self.in_force.cells(
                self.recipient.id, question.purpose, source.kind, question.leave.opened
            )
            stage = stages[key] = _Stage(cells, self._situation(cells, *key[1:]), {})
        return stage

    def _subject(self, stage: "_Stage", told: Told, own_pupil: bool) -> Verdict:
        """What one subject comes to."""
        verdict = Verdict(told.role)
        facts = self._facts(told.role, told.services, told.in_case, own_pupil)
        subject = _seen(told, own_pupil)
        for facet in told.facets:
            if facet.name != FRAME:
                self._weigh(verdict, stage.cells, stage.situation, facts, subject, facet)
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

    def _situation(
        self, cells: Cells, own_pupil: bool, others_at_risk: bool, perpetrator_represents_pupil: bool
    ) -> Situation:
        entries = cells.get((self.sought_role, "ADDR-V"), ())
        sought = self.telling.provided if self.recipient.kind in NGO else self.telling.sought
        told_places = all(
            any(
                e.view == "full"
                and not _unmet(e, self._facts(self.sought_role, services, bool(services), False))
                for e in entries
            )
            for services in sought
        )
        return Situation(
            kind=self.recipient.kind,
            capacity=self.recipient.capacity,
            audience=self.question.audience,
            risk=self.cases.risk,
            linked=self.linked,
            conflicted=self.conflicted,
            knows_places=bool(sought) and told_places and not self.linked,
            own_pupil=own_pupil,
            others_at_risk=others_at_risk,
            perpetrator_represents_pupil=perpetrator_represents_pupil,
            safe_house=self.cases.safe_house,
            supplied_under_66=S66 in self.question.tags,
            for_care=self.question.purpose in CHILD_CARE,
        )

    def _weigh(
        self,
        verdict: Verdict,
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
        reducible = matter_of(self.question.type).reducible
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
                    verdict.give(facet, entry._replace(view="full"))
                    return
                if strongest is not Effect.NOTHING:
                    open_referral = open_referral or entry
                continue
            effect, held_by = (
                (strongest, codes) if entry.view == "full" else guarded(situation, subject, read, entry.view)
            )
            if effect is None or (approved and effect is Effect.ASK):
                verdict.give(facet, entry)
                return
            verdict.guards.update(held_by)
            reason = held_by[0]
            if effect is Effect.ASK:
                open_referral = open_referral or entry
        verdict.guards.update(codes)
        if open_referral is None:
            verdict.withheld.add((facet.name, reason))
        else:
            verdict.refer(facet, open_referral)


def _unmet(entry: Entry, facts: Facts) -> list[str]:
    return [name for name in entry.conditions if not CONDITIONS[name](facts)]


class _Stage(NamedTuple):
    """A recipient towards a message, with the verdict on every subject seen from there, by number."""

    cells: Cells
    situation: Situation
    verdicts: dict[int, Joinable]


__all__ = [
    "COMPANIONS",
    "NO_LEAVE",
    "Decision",
    "FrozenDict",
    "Leave",
    "Outcome",
    "Question",
    "carried",
    "decide",
    "decide_all",
    "decide_each",
    "nothing_left",
    "outward",
    "seen_each",
]
