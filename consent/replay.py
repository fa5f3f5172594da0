"""What if: past decisions put to a draft of the agreements, beside the agreements in force.

Both are asked on the same day, so that what differs is the draft and nothing else: a draft that begins next
month is not blamed for last month, and what an old version decided then is not mistaken for what the present
one says. Nothing is written.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, NamedTuple

from consent.agreement import Agreements, Party
from consent.inputs import Asked
from consent.policy import Decision, decide_all
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


class Replay:
    """Past messages decided under two sets of agreements on one day; `take` one after the other."""

    def __init__(self, before: Agreements, draft: Agreements, day: date) -> None:
        self.found = WhatIf(day)
        self._before, self._draft = before, draft
        self._at = noon(day)
        # Decisions are values that the policy remembers: the same two come back, and so does what they differ
        # in. Holding them keeps their ids theirs.
        self._known: dict[tuple[int, int], tuple[Decision | None, Decision | None, tuple[Change, ...]]] = {}

    def take(self, asked: Asked) -> None:
        """Decides *asked* under both and counts what differs."""
        found = self.found
        found.messages += 1
        question = replace(asked.question, at=self._at)
        roles = question.roles
        before = dict(_decisions(self._before, asked._replace(question=question)))
        for party, after in _decisions(self._draft, asked._replace(question=question)):
            found.decisions += 1
            self._compare(asked.message, party, before.pop(party, None), after, roles)
        for party, gone in before.items():  # parties that the draft does not have, or not at this site
            found.decisions += 1
            self._compare(asked.message, party, gone, None, roles)

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


def _decisions(agreements: Agreements, asked: Asked) -> Iterator[tuple[str, Decision]]:
    """Every recipient that *agreements* would consider, with its decision, as the exchange asks: who is known
    by a number of its own is asked about that too.
    """
    question = asked.question
    recipients: Iterable[Party]
    if question.audience == "addressee":
        addressee = agreements.parties.get(asked.to)
        recipients = [addressee] if addressee is not None and addressee.id != question.source else []
    else:
        recipients = agreements.candidates(frozenset(case.site for case in question.cases), question.source)
    for party, decision in decide_all(agreements, question, recipients, asked.numbered):
        yield party.id, decision


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
