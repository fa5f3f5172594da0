"""Agreements: who may learn which class of fact about whom, for which purpose, on which legal basis and on
whose belief.

Nothing granted means nothing given. `Agreements` answers one question quickly: the entries for (recipient,
purpose, source kind) at an instant, by role and class. They are compiled on first use for each New Zealand
calendar day, so the cost of a decision does not grow with the number of clauses.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from datetime import date, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from consent.agreement_file import read_texts, texts_of
from consent.clause import (
    ANY,
    BASES,
    KINDS,
    OBLIGATIONS,
    PURPOSES,
    Agreement,
    Basis,
    Belief,
    BreakGlass,
    Clause,
    Party,
)
from consent.decision import Grant
from schemas.classes import Facet
from schemas.clock import NEW_ZEALAND

__all__ = [
    "BASES",
    "KINDS",
    "OBLIGATIONS",
    "PURPOSES",
    "Agreement",
    "Agreements",
    "Basis",
    "Belief",
    "BreakGlass",
    "Cells",
    "Clause",
    "Entry",
    "InForce",
    "Memory",
    "Party",
]


class Entry(NamedTuple):
    """One clause's word on one role and class: a *view*, or "" for a referral."""

    view: str
    clause: str
    conditions: tuple[str, ...]
    basis: tuple[str, ...]
    obligations: tuple[str, ...]


Cells = Mapping[tuple[str, str], tuple[Entry, ...]]
NO_CELLS: Cells = {}


_REMEMBERED = 50_000  # findings, and operands, kept for a day: a few hundred bytes each


class Memory:
    """What the policy found on one day, in *stages*: a recipient towards messages of one kind, and from there
    what it found on each subject and on each set of subjects; *found* counts these sets. Operands have
    numbers here, so that the keys stay short, and equal grants are one object. Safe for several threads: what
    is there is never changed.
    """

    __slots__ = ("_grants", "_next", "_numbers", "found", "stages")

    def __init__(self) -> None:
        self.stages: dict[Any, Any] = {}
        self.found = 0
        self._numbers: dict[Any, int] = {}
        self._next = count()
        self._grants: dict[frozenset[tuple[Facet, str]], Grant] = {}

    def number(self, operand: Hashable) -> int:
        """The number of *operand*, the same whenever it is asked for."""
        found = self._numbers.get(operand)
        return self._numbers.setdefault(operand, next(self._next)) if found is None else found

    def grant(self, given: Mapping[Facet, str]) -> Grant:
        """*given* (facet → view) as the one object for all who are given the same."""
        return self._grants.setdefault(frozenset(given.items()), Grant(given))

    def is_full(self) -> bool:
        """Whether it is time to begin anew."""
        return self.found >= _REMEMBERED or len(self._numbers) >= _REMEMBERED


class InForce:
    """The clauses in force on one day, compiled as they are asked for. *alike* is equal for days on which the
    same clauses are in force and the same dates of parties' statuses have not passed: nothing else of a day
    is ever asked about, so what was found on one of them was found on all.
    """

    def __init__(self, day: date, agreements: Iterable[Agreement], parties: Mapping[str, Party]) -> None:
        self.day = day
        self._memory = Memory()
        self._parties = parties
        self._by_recipient: dict[str, list[tuple[str, Clause]]] = {}
        self._behind_glass: dict[str, list[tuple[str, BreakGlass]]] = {}
        self._cells: dict[tuple[str, str, str, frozenset[str]], Cells] = {}
        valid = frozenset(
            (party.id, name)
            for party in parties.values()
            for name, until in party.status.items()
            if _is_not_past(until, day)
        )
        for agreement in agreements:
            if not agreement.in_force(day):
                continue
            for clause in agreement.clauses:
                if clause.belief.decided_on <= day <= clause.belief.until:
                    self._by_recipient.setdefault(clause.recipient, []).append(
                        (agreement.name_of(clause), clause)
                    )
            for glass in agreement.break_glass:
                clause = glass.clause
                if clause.belief.decided_on <= day <= clause.belief.until:
                    self._behind_glass.setdefault(clause.recipient, []).append(
                        (agreement.name_of(clause), glass)
                    )

        names = {name for held in self._by_recipient.values() for name, _ in held}
        names |= {name for held in self._behind_glass.values() for name, _ in held}
        self.alike = (frozenset(names), valid)

    def memory(self) -> "Memory":
        """The policy's memory for such days, a new one when it is full."""
        if self._memory.is_full():
            self._memory = Memory()  # whoever still has the old one goes on with it: its numbers are its own
        return self._memory

    def forget(self) -> None:
        """Starts with an empty memory."""
        self._memory = Memory()

    def behind_glass(self, party: Party) -> dict[str, BreakGlass]:
        """The break-glass clauses in force for *party*, by name."""
        found = (*self._behind_glass.get(party.kind, ()), *self._behind_glass.get(party.id, ()))
        return dict(sorted(found))

    def cells(
        self, party: str, purpose: str, source_kind: str, opened: frozenset[str] = frozenset()
    ) -> Cells:
        """The entries for (role, class), permits in the fuller view first, then by clause name; referrals
        last. *opened* are the break-glass clauses that count besides.
        """
        key = (party, purpose, source_kind, opened)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = self._compile(*key)
        return found

    def _compile(self, party: str, purpose: str, source_kind: str, opened: frozenset[str]) -> Cells:
        recipient = self._parties.get(party)
        if recipient is None or not recipient.active:
            return NO_CELLS
        cells: dict[tuple[str, str], list[Entry]] = {}
        for name, clause in (
            *self._by_recipient.get(recipient.kind, ()),
            *self._by_recipient.get(recipient.id, ()),
            *((n, glass.clause) for n, glass in self.behind_glass(recipient).items() if n in opened),
        ):
            basis = tuple(str(b) for b in clause.carried_by(recipient, purpose))
            if not basis or not (ANY in clause.sources or source_kind in clause.sources):
                continue
            words = [
                ((role, c), view) for role, classes in clause.grants.items() for c, view in classes.items()
            ]
            words += [((role, c), "") for role, classes in clause.refer.items() for c in classes]
            for cell, view in words:
                cells.setdefault(cell, []).append(
                    Entry(view, name, clause.conditions, basis, clause.obligations)
                )
        order = {"full": 0, "reduced": 1, "": 2}
        return {
            cell: tuple(sorted(entries, key=lambda e: (order[e.view], e.clause)))
            for cell, entries in cells.items()
        }


def _is_not_past(until: str, day: date) -> bool:
    try:
        return date.fromisoformat(until) >= day
    except ValueError:  # no date: the same on every day
        return False


_DAYS_KEPT = 64  # a replay walks through days in order; more than this is not one day's work
_KINDS_KEPT = 3  # of days that are alike: each has a memory of its own


class Agreements:
    """All agreements of a folder with their parties. Immutable; safe to share between threads (a lost race
    compiles twice).
    """

    def __init__(
        self, parties: Mapping[str, Party], agreements: Iterable[Agreement], version_hash: str
    ) -> None:
        self.parties = parties
        self.version_hash = version_hash
        self._agreements = tuple(agreements)
        self._days: dict[date, InForce] = {}
        self._alike: dict[Any, InForce] = {}
        self._hours: dict[int, InForce] = {}
        self._candidates: dict[tuple[frozenset[str], str], tuple[Party, ...]] = {}

    def __iter__(self) -> Iterator[Agreement]:
        return iter(self._agreements)

    def candidates(self, sites: str | Iterable[str], source: str) -> tuple[Party, ...]:
        """The active parties at one of *sites* other than *source*, sorted by id."""
        wanted = frozenset((sites,) if isinstance(sites, str) else sites)
        key = (wanted, source)
        found = self._candidates.get(key)
        if found is None:
            found = tuple(
                party
                for _, party in sorted(self.parties.items())
                if party.active and party.id != source and not party.sites.isdisjoint(wanted)
            )
            if len(self._candidates) > 1000:
                self._candidates.clear()
            self._candidates[key] = found
        return found

    def in_force(self, at: datetime) -> InForce | None:
        """What is in force at *at*; None when *at* has no offset, since then nobody can say which day it
        is.
        """
        if at.tzinfo is None:
            return None
        # New Zealand's offset is a whole number of hours, so an hour of UTC lies within one New Zealand day.
        hour = int(at.timestamp() // 3600)
        found = self._hours.get(hour)
        if found is None:
            found = self.on(at.astimezone(NEW_ZEALAND).date())
            if len(self._hours) >= 24 * _DAYS_KEPT:
                self._hours.clear()
            self._hours[hour] = found
        return found

    def on(self, day: date) -> InForce:
        """What is in force on *day* in New Zealand."""
        found = self._days.get(day)
        if found is None:
            fresh = InForce(day, self._agreements, self.parties)
            found = self._alike.get(fresh.alike, fresh)
            if len(self._days) >= _DAYS_KEPT or (found is fresh and len(self._alike) >= _KINDS_KEPT):
                self._alike.clear()
                self._days.clear()
                self._hours.clear()
            self._alike[found.alike] = self._days[day] = found
        return found

    @classmethod
    def load(cls, folder: str | Path) -> "Agreements":
        """The parties and agreements of all `*.yaml` files in *folder*.

        Raises `BadAgreement` with one `Problem` per finding (`file:line`, what, fix); then nothing of the
        folder is in force.
        """
        return cls.of(texts_of(folder))

    @classmethod
    def of(
        cls,
        texts: Mapping[str, bytes],
        superseded: Mapping[str, str] | None = None,
        *,
        approved: bool = False,
    ) -> "Agreements":
        """The parties and agreements of the files *texts* (name → content), some of which were *superseded*
        (`ID@version` → `ID@version`); all of them count as active when they were *approved*. Raises as `load`
        does.
        """
        read = read_texts(texts, superseded, approved=approved)
        return cls(read.parties, read.agreements, read.version_hash)
