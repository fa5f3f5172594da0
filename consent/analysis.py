"""What an agreement will do before it is signed: where two drafts differ, in which smallest situation, who
can ever learn a class and what may still stop it, and which clauses nobody has needed.

The space is finite, so these are answers and not samples. Every answer comes from `decide` on a scene; what
the clauses say is read only to leave out what cannot differ.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any, NamedTuple

from consent.agreement import Agreements, Entry, Party
from consent.clause import KINDS, PURPOSES
from consent.guards import GUARDS
from consent.matrix import Row
from consent.matrix import who_can_learn as granted
from consent.policy import decide
from consent.space import RANK, Asker, Carrier, Scene, carriers, noon, rare_scenes, scenes
from schemas.classes import CLASSES, SUBJECT_ROLES, Facet

_PLACES = (("victim", "ADDR-V"), ("child", "ADDR-V"))
_Word = tuple[str, tuple[str, ...]]  # view, conditions
_Signature = tuple[tuple[_Word, ...], ...]


class Difference(NamedTuple):
    """What *recipients* newly get, or no longer get, of *data_class* about *role*.

    *effect* is `given`, `withheld` or `referred`; *before* and *after* are the outcomes (full, reduced, refer
    or "") in *example*, the smallest situation in which it happens; "" when no message carries the class yet.
    *sources* and *purposes* are all for which it is so.
    """

    effect: str
    recipients: tuple[str, ...]
    role: str
    data_class: str
    before: str
    after: str
    sources: tuple[str, ...]
    purposes: tuple[str, ...]
    clauses: tuple[str, ...]
    example: str
    type: str

    def line(self) -> str:
        """The difference as one readable line."""
        said = {
            "given": "newly given",
            "withheld": "newly withheld",
            "referred": "newly put to a person of the holder agency",
        }[self.effect]
        step = f"{self.before or 'nothing'} → {self.after or 'nothing'}"
        return (
            f"{said}: {self.data_class} about {self.role} to {', '.join(self.recipients)} ({step}); "
            f"for {', '.join(self.purposes)}; from {', '.join(self.sources)}; "
            f"by {', '.join(self.clauses) or 'no clause'}; "
            + (f"for example: {self.example}" if self.example else "no message carries it yet")
        )


class _Cell(NamedTuple):
    """Where two drafts may differ: who, about whom, what, and what the clauses say on both sides."""

    kind: str
    capacity: str
    status: tuple[tuple[str, str], ...]
    role: str
    data_class: str
    before: _Signature
    after: _Signature


def differences(before: Agreements, after: Agreements, day: date) -> list[Difference]:
    """Everything in which *before* and *after* differ on *day* (New Zealand), over recipient, kind of source,
    purpose, role, class and view; sorted, what is newly given first.
    """
    places: dict[_Cell, list[tuple[Party, str, str]]] = {}
    clauses: dict[_Cell, set[str]] = {}
    for party_id in sorted({*before.parties, *after.parties}):
        party = after.parties.get(party_id) or before.parties[party_id]
        for purpose in sorted(PURPOSES):
            for source in KINDS:
                for cell, cited in _cells(before, after, party, purpose, source, day):
                    places.setdefault(cell, []).append((party, purpose, source))
                    clauses.setdefault(cell, set()).update(cited)
    found = [
        difference
        for cell, at in places.items()
        if cell.before[0] != cell.after[0]
        for difference in _compared(before, after, cell, at, tuple(sorted(clauses[cell])), day)
    ]
    found += _places_told(before, after, places, day)
    together: dict[Difference, set[str]] = {}
    for difference in found:
        alike = difference._replace(recipients=())
        together.setdefault(alike, set()).update(difference.recipients)
    order = {"given": 0, "referred": 1, "withheld": 2}
    merged = [d._replace(recipients=tuple(sorted(recipients))) for d, recipients in together.items()]
    return sorted(merged, key=lambda d: (order[d.effect], d[1:]))


def _cells(
    before: Agreements, after: Agreements, party: Party, purpose: str, source: str, day: date
) -> Iterator[tuple[_Cell, set[str]]]:
    old = before.on(day).cells(party.id, purpose, source)
    new = after.on(day).cells(party.id, purpose, source)
    # Whether a recipient knows the victims' addresses decides what else may reveal them: those cells belong
    # to every other one.
    told = tuple(_said(side.get(cell, ())) for side in (old, new) for cell in _PLACES)
    for role, name in {*old, *new}:
        first, second = old.get((role, name), ()), new.get((role, name), ())
        signatures = ((_said(first), *told[:2]), (_said(second), *told[2:]))
        if signatures[0] != signatures[1] or before.parties.get(party.id) != after.parties.get(party.id):
            status = tuple(sorted(party.status.items()))
            cell = _Cell(party.kind, party.capacity, status, role, name, *signatures)
            yield cell, {entry.clause for entry in (*first, *second)}


def _said(entries: Iterable[Entry]) -> tuple[_Word, ...]:
    """What decides in *entries*; their names and legal bases do not."""
    return tuple(sorted({(e.view, tuple(sorted(e.conditions))) for e in entries}))


def _compared(
    before: Agreements,
    after: Agreements,
    cell: _Cell,
    at: list[tuple[Party, str, str]],
    clauses: tuple[str, ...],
    day: date,
) -> Iterator[Difference]:
    """One difference for each effect that the cell has in some situation, with the smallest of those."""
    purposes = tuple(sorted({purpose for _, purpose, _ in at}))
    sources = tuple(k for k in KINDS if k in {source for _, _, source in at})
    recipients = tuple(sorted({party.id for party, _, _ in at}))
    held = carriers(cell.role, cell.data_class)
    if not held:
        was, now = _widest(cell.before[0]), _widest(cell.after[0])
        if was != now:
            yield Difference(
                _effect(was, now), recipients, cell.role, cell.data_class, was, now,
                sources, purposes, clauses, "", "",
            )  # fmt: skip
        return
    possible = _possible(cell)
    seen: set[str] = set()
    askers: dict[str, tuple[Asker, Asker]] = {}
    for scene in scenes(cell.role):
        for carrier in _chosen(held, purposes):
            if carrier.purpose in purposes and carrier.audience != scene.audience:
                continue
            if carrier.purpose not in askers:
                askers[carrier.purpose] = _askers(before, after, _place(at, carrier.purpose), day)
            was, now = (asker.one(scene, carrier) for asker in askers[carrier.purpose])
            effect = _effect(was, now) if was != now else ""
            if effect and effect not in seen:
                seen.add(effect)
                yield Difference(
                    effect, recipients, cell.role, cell.data_class, was, now,
                    sources, purposes, clauses, scene.words(), carrier.type,
                )  # fmt: skip
        if seen & possible[0] or seen >= possible[1]:
            return


def _possible(cell: _Cell) -> tuple[set[str], set[str]]:
    """The effects that end the search: any of the first, or all of the second."""
    anything = {"given", "withheld", "referred"}
    wider = all(_covers(new, old) for new, old in zip(cell.after, cell.before, strict=True))
    narrower = all(_covers(old, new) for new, old in zip(cell.after, cell.before, strict=True))
    if wider:
        gained = {view for view, _ in set(cell.after[0]) - set(cell.before[0])}
        return ({"referred"} if gained == {""} else {"given"}), anything
    return ({"withheld", "referred"} if narrower else set()), anything


def _covers(wider: tuple[_Word, ...], narrower: tuple[_Word, ...]) -> bool:
    """Whether whatever fires of *narrower* fires of *wider* too: the same view, on no more conditions."""
    return all(
        any(view == asked and set(conditions) <= set(when) for view, conditions in wider)
        for asked, when in narrower
    )


def _places_told(
    before: Agreements, after: Agreements, places: dict[_Cell, list[tuple[Party, str, str]]], day: date
) -> Iterator[Difference]:
    """What differs only because the recipient is, or is not any more, told where those at risk live: then
    free text and places of the case follow, though their own clauses are the same.
    """
    groups: dict[tuple[str, Party, str, str], dict[str, _Cell]] = {}
    for cell, at in places.items():
        if cell.before[0] == cell.after[0]:
            groups.setdefault((cell.role, *at[0]), {})[cell.data_class] = cell
    for (role, party, purpose, source), cells in groups.items():
        first, second = _askers(before, after, (party, purpose, source), day)
        seen: set[tuple[str, str]] = set()
        for scene in scenes(role):
            was, now = first.all(scene), second.all(scene)
            if was == now:
                continue
            for facet in sorted(f for f in was if was[f] != now[f] and f.name in cells):
                effect = _effect(was[facet], now[facet])
                if (facet.name, effect) not in seen:
                    seen.add((facet.name, effect))
                    at = places[cells[facet.name]]
                    recipients = tuple(sorted({p.id for p, _, _ in at}))
                    yield Difference(
                        effect, recipients, role, facet.name, was[facet], now[facet],
                        tuple(k for k in KINDS if k in {s for _, _, s in at}),
                        tuple(sorted({p for _, p, _ in at})), (), scene.words(), "",
                    )  # fmt: skip


def _effect(was: str, now: str) -> str:
    if now == "refer":
        return "referred"
    return "given" if RANK[now] > RANK[was] else "withheld"


def _widest(signature: tuple[_Word, ...]) -> str:
    return max((view or "refer" for view, _ in signature), key=RANK.__getitem__, default="")


def _chosen(held: tuple[Carrier, ...], purposes: tuple[str, ...]) -> list[Carrier]:
    """One carrier for each facet, and for each in a reduced view: of these purposes, if there is one."""
    best: dict[tuple[Facet, bool, str], Carrier] = {}
    own = [carrier for carrier in held if carrier.purpose in purposes]
    for carrier in own or held:
        best.setdefault((carrier.facet, carrier.reduced, carrier.audience), carrier)
    return list(best.values())


def _place(at: list[tuple[Party, str, str]], purpose: str) -> tuple[Party, str, str]:
    return next((place for place in at if place[1] == purpose), at[0])


def _askers(
    before: Agreements, after: Agreements, place: tuple[Party, str, str], day: date
) -> tuple[Asker, Asker]:
    party, purpose, source = place
    # A party that one side does not have is refused there, by the same decide.
    first, second = (
        Asker(side, side.parties.get(party.id, party), purpose, _sender(side, source, party.id), noon(day))
        for side in (before, after)
    )
    return first, second


def _sender(agreements: Agreements, kind: str, recipient: str) -> str:
    """A party of *kind* that could have sent it."""
    others = [p.id for _, p in sorted(agreements.parties.items()) if p.kind == kind and p.active]
    return next((p for p in others if p != recipient), others[0] if others else "")


class Learner(NamedTuple):
    """One clause by which somebody can learn a class: the row of the matrix, the *guards* that may hold it
    back, and the smallest situation in which it is given ("" when there is none).
    """

    row: Row
    guards: tuple[str, ...]
    example: str


def who_can_learn(agreements: Agreements, data_class: str, role: str, day: date) -> list[Learner]:
    """Everybody who could learn *data_class* about *role* on *day*, by which clause, and what may still hold
    it back.
    """
    found: list[Learner] = []
    known: dict[tuple[Any, ...], tuple[tuple[str, ...], str]] = {}
    for row in granted(agreements, data_class, role, day):
        party = agreements.parties[row.recipient]
        purpose = row.purposes.split()[0]
        source = next((k for k in KINDS if k in row.sources.split()), KINDS[0])
        sender = _sender(agreements, source, party.id)
        key = (party.kind, party.capacity, tuple(sorted(party.status.items())), row.clause, row.outcome)
        if key not in known:
            known[key] = _held_back(agreements, party, row, purpose, sender, day)
        found.append(Learner(row, *known[key]))
    return found


def _held_back(
    agreements: Agreements, party: Party, row: Row, purpose: str, sender: str, day: date
) -> tuple[tuple[str, ...], str]:
    guards: set[str] = set()
    example: Scene | None = None
    at = noon(day)
    for scene in rare_scenes(row.role):
        for carrier in _chosen(carriers(row.role, row.data_class), (purpose,)):
            question = scene.question((party.id,), carrier.type, purpose, sender, (carrier.facet,), at)
            decision = decide(agreements, question, party)
            guards.update(
                reason
                for role, name, reason in decision.withheld
                if (role, name) == (row.role, row.data_class) and reason in GUARDS
            )
            given = any(view == row.outcome for facets in decision.given.values() for view in facets.values())
            asked = row.outcome == "refer" and (row.role, row.data_class) in decision.referred
            if example is None and (given or asked) and row.clause in decision.clauses:
                example = scene
    return tuple(g for g in GUARDS if g in guards), example.words() if example else ""


class Unused(NamedTuple):
    """A clause in force that no decision cited: *clause* by name, for whom, and since when it is in force."""

    clause: str
    recipient: str
    since: date
    grants: tuple[str, ...]


def unused(agreements: Agreements, cited: Iterable[str], day: date) -> list[Unused]:
    """The clauses in force on *day* that are not among *cited* (names as the ledger has them). The version
    does not count: a clause that was used before the agreement's last revision was used.
    """
    used = {_without_version(name) for name in cited}
    found = []
    for agreement in agreements:
        for clause in agreement.clauses:
            name = agreement.name_of(clause)
            stands = agreement.in_force(day) and clause.belief.decided_on <= day <= clause.belief.until
            if stands and _without_version(name) not in used:
                words = {n for classes in (*clause.grants.values(), *clause.refer.values()) for n in classes}
                since = max(agreement.effective_from, clause.belief.decided_on)
                found.append(Unused(name, clause.recipient, since, tuple(sorted(words))))
    return sorted(found)


def _without_version(name: str) -> tuple[str, str]:
    agreement, _, clause = name.partition("/")
    return agreement.partition("@")[0], clause


def known_subject(data_class: str, role: str) -> bool:
    """Whether there are such a class and such a role."""
    return data_class in CLASSES and role in SUBJECT_ROLES
