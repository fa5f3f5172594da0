"""What if: past decisions put to a draft of the agreements, beside the agreements in force.

Both are asked on the same day, so that what differs is the draft and nothing else: a draft that begins next
month is not blamed for last month, and what an old version decided then is not mistaken for what the present
one says. Nothing is written.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, NamedTuple

from consent.agreement import Agreements, Party
from consent.inputs import Asked
from consent.policy import Decision, Question, decide_all
from consent.space import RANK, noon
from schemas.classes import CASE, Facet

_EXAMPLES = 3
_REMEMBERED = 100_000


class Change(NamedTuple):
    """What *party* would get of *data_class* about *role* (`full`, `reduced`, `refer` or ""), *before* and
    *after*; *reason* says why not, on the side that gives less.
    """

    party: str
    role: str
    data_class: str
    before: str
    after: str
    reason: str

    @property
    def widens(self) -> bool:
        """Whether more would be given than before."""
        return RANK[self.after] > RANK[self.before]


@dataclass(slots=True)
class WhatIf:
    """What a draft would have changed: each change with how many decisions it touches, and the ids of a few
    messages.
    """

    day: date
    messages: int = 0
    decisions: int = 0
    changed: int = 0
    changes: Counter[Change] = field(default_factory=Counter)
    examples: dict[Change, list[str]] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """The changes as plain JSON: what widens first, then the most frequent."""
        ordered = sorted(self.changes.items(), key=lambda item: (not item[0].widens, -item[1], item[0]))
        return [
            {**c._asdict(), "widens": c.widens, "decisions": n, "examples": self.examples[c]}
            for c, n in ordered
        ]


def opening_day(draft: Agreements, today: date) -> date:
    """The first day from *today* on which every active agreement of *draft* has begun, as far as they
    overlap.
    """
    begins = [a.effective_from for a in draft if a.status == "active"]
    return max([today, *begins])


class _Asking(NamedTuple):
    """Whom a kind of message is about to be decided for: *same* parties of whom nothing can differ, and those
    to ask about *before* and under the *draft*.
    """

    same: int
    before: tuple[Party, ...]
    draft: tuple[Party, ...]


class Replay:
    """Past messages decided under two sets of agreements on one day; `take` one after the other.

    A party whose own record, whose sender's record and whose clauses for that purpose and sender say the same
    in both is decided alike in both, so its decision is counted and not made again: what a draft costs to try
    is what it changes.
    """

    def __init__(self, before: Agreements, draft: Agreements, day: date) -> None:
        self.found = WhatIf(day)
        self._before, self._draft = before, draft
        self._at = noon(day)
        # Decisions are values that the policy remembers: the same two come back, and so does what they differ
        # in. Holding them keeps their ids theirs.
        self._known: dict[tuple[int, int], tuple[Decision | None, Decision | None, tuple[Change, ...]]] = {}
        self._askings: dict[Any, _Asking] = {}

    def take(self, asked: Asked) -> None:
        """Decides *asked* under both and counts what differs."""
        found = self.found
        found.messages += 1
        asking = self._asking(asked)
        found.decisions += asking.same
        if not asking.before and not asking.draft:
            return
        question = replace(asked.question, at=self._at)
        roles = question.roles
        before = {
            party.id: decision
            for party, decision in decide_all(self._before, question, asking.before, asked.numbered)
        }
        for party, after in decide_all(self._draft, question, asking.draft, asked.numbered):
            found.decisions += 1
            self._compare(asked.message, party.id, before.pop(party.id, None), after, roles)
        for gone, decided in before.items():  # parties that the draft does not have, or not at this site
            found.decisions += 1
            self._compare(asked.message, gone, decided, None, roles)

    def _asking(self, asked: Asked) -> _Asking:
        question = asked.question
        sites = frozenset(case.site for case in question.cases)
        key = (question.purpose, question.audience, question.source, question.leave.opened, asked.to, sites)
        found = self._askings.get(key)
        if found is None:
            before, draft = (_recipients(a, asked, sites) for a in (self._before, self._draft))
            present = {party.id: party for party in before}
            same = {p.id for p in draft if p.id in present and self._is_same(present[p.id], p, question)}
            found = self._askings[key] = _Asking(
                len(same), *(tuple(p for p in parties if p.id not in same) for parties in (before, draft))
            )
        return found

    def _is_same(self, before: Party, draft: Party, question: Question) -> bool:
        """Whether nothing that a decision for this party reads of the agreements differs, names aside."""
        sources = [a.parties.get(question.source) for a in (self._before, self._draft)]
        if before != draft or sources[0] != sources[1]:
            return False
        kind = sources[0].kind if sources[0] is not None else ""
        opened = question.leave.opened
        first, second = (
            {
                cell: [(e.view, e.conditions) for e in entries]
                for cell, entries in a.on(self.found.day)
                .cells(before.id, question.purpose, kind, opened)
                .items()
            }
            for a in (self._before, self._draft)
        )
        return first == second

    def _compare(
        self,
        message: str,
        party: str,
        before: Decision | None,
        after: Decision | None,
        roles: Mapping[str, str],
    ) -> None:
        key = (id(before), id(after))
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            changes = tuple(_changes(party, before, after, roles))
            known = self._known[key] = (before, after, changes)
        if known[2]:
            found = self.found
            found.changed += 1
            for change in known[2]:
                found.changes[change] += 1
                examples = found.examples.setdefault(change, [])
                if len(examples) < _EXAMPLES:
                    examples.append(message)


def _recipients(agreements: Agreements, asked: Asked, sites: frozenset[str]) -> tuple[Party, ...]:
    """Every recipient that *agreements* would consider, as the exchange asks."""
    question = asked.question
    if question.audience == "addressee":
        addressee = agreements.parties.get(asked.to)
        return (addressee,) if addressee is not None and addressee.id != question.source else ()
    return agreements.candidates(sites, question.source)


def _changes(
    party: str, before: Decision | None, after: Decision | None, roles: Mapping[str, str]
) -> Iterator[Change]:
    first, second = _reached(before, roles), _reached(after, roles)
    seen = set()
    for role, facet in {*first, *second}:
        old = first.get((role, facet)) or _referred(before, role, facet)
        new = second.get((role, facet)) or _referred(after, role, facet)
        if old != new:
            less = before if RANK[old] < RANK[new] else after
            seen.add(Change(party, role, facet.name, old, new, _reason(less, role, facet.name)))
    # What was, or would be, only referred is in no view on either side.
    given = {(role, facet.name) for role, facet in {*first, *second}}
    for role, name in {*(before.referred if before else ()), *(after.referred if after else ())} - given:
        facet = Facet(name)
        old, new = _referred(before, role, facet), _referred(after, role, facet)
        if old != new:
            less = before if RANK[old] < RANK[new] else after
            seen.add(Change(party, role, name, old, new, _reason(less, role, name)))
    yield from sorted(seen)


def _reached(decision: Decision | None, roles: Mapping[str, str]) -> dict[tuple[str, Facet], str]:
    """(role, facet) → the fuller view in which it is given of anybody in that role."""
    found: dict[tuple[str, Facet], str] = {}
    if decision is not None:
        for ref, facets in decision.given.items():
            role = roles.get(ref, CASE) if ref else CASE
            for facet, view in facets.items():
                found[role, facet] = max(view, found.get((role, facet), ""), key=RANK.__getitem__)
    return found


def _referred(decision: Decision | None, role: str, facet: Facet) -> str:
    return "refer" if decision is not None and (role, facet.name) in decision.referred else ""


def _reason(decision: Decision | None, role: str, name: str) -> str:
    if decision is None:
        return "not-considered"
    reasons = sorted(reason for r, c, reason in decision.withheld if (r, c) == (role, name))
    return " ".join(reasons or decision.reasons)
