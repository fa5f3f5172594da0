"""The decision: what of one message may one party receive, under the agreements in force, and why.

The order is fixed: guards before clauses, conditions before grants, and at the end the message as a whole:
names are never sent without the matter they belong to. What no clause in force grants is withheld. A
decision is a value; `decide` is pure and never raises, and an operand that is missing counts as the answer
that gives less.

Everything that matters is finite (roles, services, risk levels, flags), so what is found is remembered by its
operands for the day it was found. Conditions and guards run on one subject at a time, and only on subjects
not seen that day; what a message comes to is joined from what its subjects come to, once for each set of such
subjects. Of a decision that gives something only the refs are the message's own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from consent.agreement import Agreements, Cells, Entry, InForce, Party
from consent.clause import CHILD_CARE, NEVER_GRANTED
from consent.conditions import CONDITIONS, Facts
from consent.decision import (
    NO_LEAVE,
    S66,
    WORDS,
    Decision,
    Findings,
    FrozenDict,
    Grant,
    Leave,
    Outcome,
    Question,
)
from consent.guards import NGO, PERPETRATOR_SIDE, Effect, Situation, Subject, guarded
from consent.operands import Fact, Operands, Outlook, Part
from consent.verdict import COMPANIONS, Joinable, Matter, Verdict, carried, join, matter_of
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
    asking = _Asking(agreements, question, in_force)
    for recipient in recipients:
        yield asking.decision(recipient)


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
    if in_force is None:
        return
    asking = _Asking(agreements, question, in_force)
    for recipient in recipients:
        stage, part = asking.stage(recipient)
        seen = {n: _seen(fact, held, pupil) for n, (fact, held, _, pupil) in part.subjects.items()}
        yield stage.situation, {ref: seen[number] for ref, number in part.numbers}


def _refusal(question: Question, recipient: Party, reason: str) -> Decision:
    return Decision(
        Outcome.REFUSE, _NOTHING, question.purpose, recipient.id, Findings(reasons=WORDS.of((reason,)))
    )


def _seen(fact: Fact, services: frozenset[str], own_pupil: bool) -> Subject:
    return Subject(
        fact.role,
        services,
        own_pupil,
        fact.reveals_home,
        fact.was_perpetrator,
        fact.perpetrator_represents,
        _SAFE_CONTACT in fact.facets,
        _NUMBER in fact.facets,
    )


class _Asking:
    """A question put to one recipient after another. An agreement's day and the parties are the memory's own;
    the rest of what decides stands in the keys.
    """

    __slots__ = ("_agreements", "_cases", "_in_force", "_question", "_source", "_structure")

    def __init__(self, agreements: Agreements, question: Question, in_force: InForce) -> None:
        self._agreements, self._question, self._in_force = agreements, question, in_force
        self._cases = Operands(question, in_force.memory())
        self._source = agreements.parties.get(question.source)
        # Recalls and outcomes: the hub's own words to one party, about no person.
        self._structure = (
            question.source == HUB
            and question.audience == "addressee"
            and not question.roles
            and all(f.name == FRAME for fact in self._cases.facts for f in fact.facets)
        )

    def decision(self, recipient: Party) -> Decision:
        """What *recipient* may receive."""
        question = self._question
        if not self._is_registered(recipient) or not recipient.active:
            return _refusal(question, recipient, "unknown-party")
        if self._structure:
            return Decision(Outcome.PERMIT, _NOTHING, question.purpose, recipient.id)
        if self._source is None or not self._source.active:
            return _refusal(question, recipient, "unknown-source")
        stage, part = self.stage(recipient)
        findings = stage.findings.get(part.members)
        if findings is None:
            findings = stage.findings[part.members] = stage.joined(question, part, self._cases)
        decision, grants = findings
        if not grants:
            return decision
        given = FrozenDict([(ref, grants[number]) for ref, number in part.numbers if number in grants])
        return Decision(decision.outcome, given, decision.purpose, decision.recipient, decision.found)

    def stage(self, recipient: Party) -> tuple["_Stage", Part]:
        """*recipient* towards the message, remembered, and the subjects as its services make them."""
        mine, cases = recipient.id, self._cases
        part = cases.part(mine)
        provider = recipient.kind in NGO
        linked = recipient.kind in PERPETRATOR_SIDE or (provider and part.works_with_perpetrator)
        conflicted = mine in cases.conflicts
        outlook = part.providers_outlook if provider else part.outlook
        stages, key = cases.memory.stages, (outlook.number, mine, linked, conflicted)
        stage: _Stage | None = stages.get(key)
        if stage is None:
            stage = self._stage(recipient, outlook, linked=linked, conflicted=conflicted)
            if self._is_registered(recipient):  # nobody knows what another party of that name would be
                stages[key] = stage
        return stage, part

    def _is_registered(self, recipient: Party) -> bool:
        known = self._agreements.parties.get(recipient.id)
        return known is recipient or known == recipient

    def _stage(self, recipient: Party, outlook: Outlook, *, linked: bool, conflicted: bool) -> "_Stage":
        question, cases = self._question, self._cases
        source = self._agreements.parties[question.source]
        cells = self._in_force.cells(recipient.id, question.purpose, source.kind, question.leave.opened)
        facts = Facts(
            kind=recipient.kind,
            status=recipient.status,
            today=self._in_force.day,
            audience=question.audience,
            case_open=cases.open,
            risk=cases.risk,
            linked=linked,
            conflicted=conflicted,
            role=cases.sought[0],
            services=frozenset(),
            in_case=False,
            own_pupil=False,
        )
        entries = cells.get((facts.role, "ADDR-V"), ())
        told_places = all(
            any(
                e.view == "full" and not _unmet(e, replace(facts, services=services, in_case=bool(services)))
                for e in entries
            )
            for services in outlook.sought
        )
        situation = Situation(
            kind=recipient.kind,
            capacity=recipient.capacity,
            audience=question.audience,
            risk=cases.risk,
            linked=linked,
            conflicted=conflicted,
            knows_places=bool(outlook.sought) and told_places and not linked,
            own_pupil=outlook.own_pupil,
            others_at_risk=cases.others_at_risk,
            perpetrator_represents_pupil=outlook.represented,
            safe_house=cases.safe_house,
            supplied_under_66=S66 in question.tags,
            for_care=question.purpose in CHILD_CARE,
        )
        return _Stage(recipient.id, cells, situation, facts, matter_of(question.type), {}, {})


class _Stage(NamedTuple):
    """A recipient towards messages of one kind, with what was found from there: the verdict on a subject, by
    its number, and the findings on a set of them, by theirs. *facts* hold for every subject but in what they
    say of one.
    """

    recipient: str
    cells: Cells
    situation: Situation
    facts: Facts
    matter: Matter
    verdicts: dict[int, Joinable]
    findings: dict[int, tuple[Decision, dict[int, Grant]]]

    def joined(self, question: Question, part: Part, cases: Operands) -> tuple[Decision, dict[int, Grant]]:
        """The decision on the subjects of *part*, and what it gives of each by its number, if anything."""
        cases.memory.found += 1
        verdicts: dict[int, Joinable] = {}
        for number, subject in part.subjects.items():
            # What one subject comes to does not depend on the others beyond the situation, and families
            # resemble each other more in their members than as a whole.
            verdict = self.verdicts.get(number)
            if verdict is None:
                verdict = self._subject(question.leave, *subject).joined(self.matter, cases.memory)
                self.verdicts[number] = verdict
            verdicts[number] = verdict
        outcome, found, gives = join(verdicts.values(), has_matter=cases.has_matter)
        if gives and S66 in question.tags:
            found = found._replace(obligations=found.obligations | _NOT_FOR_OFFENCES)
        decision = Decision(outcome, _NOTHING, question.purpose, self.recipient, found)
        if not gives:
            return decision, {}
        return decision, {n: one.given for n, one in verdicts.items() if one.given is not None}

    def _subject(
        self, leave: Leave, fact: Fact, services: frozenset[str], in_case: bool, own_pupil: bool
    ) -> Verdict:
        """What one subject comes to."""
        verdict = Verdict(fact.role)
        facts = replace(self.facts, role=fact.role, services=services, in_case=in_case, own_pupil=own_pupil)
        subject = _seen(fact, services, own_pupil)
        for facet in fact.facets:
            if facet.name != FRAME:
                self._weigh(verdict, leave, facts, subject, facet)
        return verdict

    def _weigh(self, verdict: Verdict, leave: Leave, facts: Facts, subject: Subject, facet: Facet) -> None:
        """Decides one facet of one subject. A guard is asked about the very view that a clause would give."""
        situation = self.situation
        entries = self.cells.get((subject.role, facet.name), ())
        if leave.mandatory and facet.name not in NEVER_GRANTED:
            entries = (*entries, SECTION_66)
        approved = (subject.role, facet.name) in leave.approved
        # Free text counts as a place until a person has read it (safety rule V2); nothing else changes.
        read = facet._replace(free_text=False) if approved and leave.scrubbed else facet
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
            if entry.view == "reduced" and (subject.role, facet) not in self.matter.reducible:
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
