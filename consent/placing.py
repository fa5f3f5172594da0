"""Place in case: which case a message belongs to, and what it changes there.

A message that names its case (`correlationid`) belongs to that one. An episode or a release joins the open
case of the same perpetrator (an episode: and of somebody else of the same family), else opens one. Anything
else belongs to every open case in which its people are: a person with two families is bailed from both. A
message that belongs nowhere is an error (`CaseUnknown`), never a guess.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from consent.case import HOME, ROLE, Case, Caution, PersonInCase
from consent.people import Keys
from schemas.catalogue import Branch, Leaf, MessageType, about_whom
from schemas.classes import CASE
from schemas.database import BigInt, add_rows, change_rows, metadata, rows_among
from schemas.errors import CaseUnknown, Problem
from schemas.message import Message, identity

case_table = sa.Table(
    "case_file",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("number", BigInt, nullable=False, index=True),  # order of opening
    sa.Column("facts", sa.Text, nullable=False),
)
case_person = sa.Table(
    "case_person",
    metadata,
    sa.Column("pseudonym", sa.String(32), primary_key=True),
    sa.Column("case_id", sa.String(64), primary_key=True),
)
# Who is victim and who perpetrator is assessed by Police at the episode, by Corrections of its offenders, by
# Oranga
# Tamariki of families it works with, and by the meeting.
_ASSESSORS = frozenset({"police", "corrections", "oranga-tamariki", "fss"})


@dataclass(frozen=True, slots=True)
class Placed:
    """A message in its case or cases, with the role of each of its people settled. *elsewhere* are the other
    cases that its perpetrators are in. *cautions* are what the message made known of a case that earlier
    decisions about it did not know, by case.
    """

    cases: tuple[Case, ...]
    data: dict[str, Any]
    roles: dict[str, str]
    elsewhere: tuple[Case, ...] = ()
    cautions: Mapping[str, frozenset[Caution]] = field(default_factory=dict)


class Cases:
    """The cases that a batch touches: loaded once, changed in memory, saved once, all in the caller's
    transaction.
    """

    def __init__(self, keys: Keys, table_parties: Callable[[str], Sequence[str]]) -> None:
        """*table_parties* gives the core parties of the Safety Assessment Meeting at a site."""
        self._keys = keys
        self._table_parties = table_parties
        self._homes: dict[str, _Homes] = {}

    def open_batch(self, connection: sa.Connection, ids: set[str], pseudonyms: set[str]) -> "Batch":
        """The cases named by *ids* and those in which any of *pseudonyms* is."""
        wanted = set(ids)
        wanted.update(
            case for (case,) in rows_among(connection, case_person, ("case_id",), "pseudonym", pseudonyms)
        )
        rows = rows_among(connection, case_table, ("id", "number", "facts"), "id", wanted)
        cases = {i: (number, Case.from_json(i, orjson.loads(facts))) for i, number, facts in rows}
        highest = connection.execute(sa.select(sa.func.max(case_table.c.number))).scalar() or 0
        return Batch(self._keys, self._table_parties, cases, highest, self._homes)


class Batch:
    """The cases of one batch; see `Cases`."""

    def __init__(
        self,
        keys: Keys,
        table_parties: Callable[[str], Sequence[str]],
        cases: dict[str, tuple[int, Case]],
        highest: int,
        homes: "dict[str, _Homes]",
    ) -> None:
        self._keys, self._table_parties = keys, table_parties
        self._seated: dict[str, Sequence[str]] = {}
        self._homes = homes
        self._places: dict[tuple[str, str], str] = {}  # a household has one, each of its people names it
        self._cases = cases
        self._stored = set(cases)
        self._highest = highest
        self._changed: set[str] = set()
        self._cautions: dict[str, frozenset[Caution]] = {}
        self._members: dict[str, set[str]] = {}
        self._new_members: set[tuple[str, str]] = set()
        for case_id, (_, case) in cases.items():
            for pseudonym in case.people:
                self._members.setdefault(pseudonym, set()).add(case_id)

    def place(self, message: Message, kind: MessageType, refs: Mapping[str, str]) -> Placed:
        """Finds or opens the case of *message*, whose people are *refs* (ref → pseudonym), and lets the
        message change it.

        Raises `CaseUnknown`; then nothing was changed.
        """
        cases = self._find(message, kind, refs)
        data, roles = _settle_roles(message.data, refs, cases)
        learnt: dict[str, frozenset[Caution]] = {}
        for case in cases:
            known = set(case.people)
            # Nothing was decided yet, here or elsewhere, about any of them.
            is_first = not known and self._members.keys().isdisjoint(refs.values())
            if not is_first and case.id not in self._cautions:
                self._cautions[case.id] = case.cautions()
            if not self._change(case, message, kind, data, roles, refs):
                continue
            self._changed.add(case.id)
            if is_first:
                continue
            before = self._cautions[case.id]
            after = self._cautions[case.id] = case.cautions()
            if after != before:
                self._learn(learnt, case, after - before, known)
        return Placed(tuple(cases), data, roles, self._elsewhere(cases, roles, refs), learnt)

    def _learn(
        self, learnt: dict[str, frozenset[Caution]], case: Case, new: frozenset[Caution], known: set[str]
    ) -> None:
        """Adds to *learnt* what of *new* in *case* touches earlier decisions, there or in another case of the
        same people; *known* were in the case before.
        """

        def add(case_id: str, caution: Caution) -> None:
            learnt[case_id] = learnt.get(case_id, frozenset()) | {caution}

        for caution in new:
            if known and (caution.what != ROLE or caution.who in known):  # else nothing was decided there yet
                add(case.id, caution)
            if caution.what not in (HOME, ROLE):
                continue
            for other in self._members.get(caution.who, set()) - {case.id}:
                # A perpetrator's home is a home in every case of his, and who is at risk in one case and the
                # perpetrator in another was taken for the one and is the other.
                if caution.what == HOME or _contradict(case, self._cases[other][1], caution.who):
                    add(other, caution)

    def now(self, ids: Sequence[str], refs: Mapping[str, str]) -> Placed:
        """The cases *ids* as they are, for somebody who asks again about people *refs*; with them, open cases
        in which one of these people has come to another part since, and that part in *roles*.
        """
        cases = [self._cases[i][1] for i in ids if i in self._cases]
        newest = max((self._cases[i][0] for i in ids if i in self._cases), default=0)
        roles: dict[str, str] = {}
        turned: dict[str, Case] = {}
        for ref, pseudonym in refs.items():
            for i in sorted(self._members.get(pseudonym, set()) - set(ids), key=lambda i: self._cases[i][0]):
                number, other = self._cases[i]
                if number > newest and other.open and any(_contradict(other, c, pseudonym) for c in cases):
                    turned[i] = other
                    roles[ref] = other.people[pseudonym].roles[-1]
        together = (*cases, *turned.values())
        known = {
            r: "perpetrator" for r, p in refs.items() if any(c.has_role(p, "perpetrator") for c in together)
        }
        return Placed(together, {}, roles, self._elsewhere(together, known, refs))

    def found(
        self, ids: Sequence[str], data: dict[str, Any], roles: Mapping[str, str], refs: Mapping[str, str]
    ) -> Placed:
        """A message that was placed before in the cases *ids*, in these cases as they are now. It changes
        nothing: what it had to say there, it has said.
        """
        cases = [self._cases[i][1] for i in ids if i in self._cases]
        return Placed(tuple(cases), data, dict(roles), self._elsewhere(cases, roles, refs))

    def save(self, connection: sa.Connection) -> None:
        """Writes what changed. Part of the batch's one transaction: a crash before its commit leaves the
        cases as they were.
        """
        new: list[tuple[str, int, str]] = []
        old: list[tuple[str, str]] = []
        for id in sorted(self._changed):
            number, case = self._cases[id]
            facts = orjson.dumps(case.to_json()).decode()
            if id in self._stored:
                old.append((id, facts))
            else:
                new.append((id, number, facts))
        add_rows(connection, case_table, ("id", "number", "facts"), new)
        change_rows(connection, case_table, ("id", "facts"), old)
        add_rows(connection, case_person, ("pseudonym", "case_id"), sorted(self._new_members))

    def _find(self, message: Message, kind: MessageType, refs: Mapping[str, str]) -> list[Case]:
        if message.correlationid is not None and not kind.opens_case:
            if message.correlationid not in self._cases:
                raise CaseUnknown(
                    "the message names a case that nobody has opened",
                    Problem(
                        "/correlationid",
                        "is not a case of this hub",
                        "send the case reference that the hub gave you",
                    ),
                )
            return [self._cases[message.correlationid][1]]
        theirs = sorted(
            {case_id for pseudonym in refs.values() for case_id in self._members.get(pseudonym, ())},
            key=lambda i: self._cases[i][0],
        )
        if not theirs and kind.opens_case:
            return [self._open(message)]
        open_cases = [self._cases[i][1] for i in theirs if self._cases[i][1].open]
        if not kind.opens_case:
            if not open_cases and refs:
                raise CaseUnknown(
                    "none of the message's people is in an open case",
                    Problem(
                        "/correlationid",
                        "is missing, and no open case has these people",
                        "name the case, or wait for its episode",
                    ),
                )
            return open_cases
        roles = {p["ref"]: p["role"] for p in message.data["people"]}
        perpetrators = {refs[r] for r, role in roles.items() if role == "perpetrator"}
        others = {refs[r] for r, role in roles.items() if role in ("victim", "child")}
        for case in reversed(open_cases):
            same_perpetrator = any(case.has_role(p, "perpetrator") for p in perpetrators)
            if same_perpetrator and (not others or any(p in case.people for p in others)):
                return [case]
        return [self._open(message)]

    def _elsewhere(
        self, cases: Sequence[Case], roles: Mapping[str, str], refs: Mapping[str, str]
    ) -> tuple[Case, ...]:
        here = {case.id for case in cases}
        theirs = {
            i for r, role in roles.items() if role == "perpetrator" for i in self._members.get(refs[r], ())
        }
        return tuple(self._cases[i][1] for i in sorted(theirs - here))

    def _open(self, message: Message) -> Case:
        # Named after the message that opens it, so that a replay after a crash opens the same case and not a
        # second one.
        case = Case(id=identity("hub", f"case\n{message.source}\n{message.id}"), site=_site(message))
        seated = self._seated.get(case.site)
        if seated is None:
            seated = self._seated[case.site] = self._table_parties(case.site)
        case.assignments.update([(party, "*", "table") for party in seated])
        self._highest += 1
        self._cases[case.id] = (self._highest, case)
        self._changed.add(case.id)
        return case

    def _change(
        self,
        case: Case,
        message: Message,
        kind: MessageType,
        data: dict[str, Any],
        roles: dict[str, str],
        refs: Mapping[str, str],
    ) -> bool:
        changed = False
        # Several cases: the message is about somebody's custody, not about who belongs to which family.
        joins = kind.opens_case or message.correlationid == case.id
        assesses = message.source.partition("#")[0] in _ASSESSORS
        for person in data.get("people", ()):
            pseudonym = refs[person["ref"]]
            inside = case.people.get(pseudonym)
            if inside is None:
                if not joins:
                    continue
                inside = case.people[pseudonym] = PersonInCase()
                self._members.setdefault(pseudonym, set()).add(case.id)
                self._new_members.add((pseudonym, case.id))
            changed |= self._update_person(inside, person, refs, kind, assesses=assesses)
        homes = self._homes.get(kind.name)
        if homes is None:
            homes = self._homes[kind.name] = _homes(kind.shape)
        for whose, address in _lived_in(homes, data, roles):
            inside = case.people.get(refs[whose])
            if inside is not None and (place := self._place(address)) not in inside.households:
                inside.households.add(place)
                changed = True
        effect = _EFFECTS.get(message.type)
        if effect is not None:
            before = (case.open, case.risk, len(case.assignments), len(case.conflicts))
            effect(case, data, refs)
            changed |= before != (case.open, case.risk, len(case.assignments), len(case.conflicts))
        return changed

    def _place(self, address: Mapping[str, str]) -> str:
        written = address["line1"], address["city"]
        found = self._places.get(written)
        if found is None:
            found = self._places[written] = self._keys.place(address)
        return found

    def _update_person(
        self,
        inside: PersonInCase,
        person: Mapping[str, Any],
        refs: Mapping[str, str],
        kind: MessageType,
        *,
        assesses: bool,
    ) -> bool:
        changed = False
        # SAFETY: anybody else's word for somebody known is not taken. A perpetrator's provider could name the
        # victim a perpetrator, and her own worker would count as his and lose her address.
        role = person["role"] if assesses or not inside.roles else "associate"
        # Who is victim and who perpetrator is an assessment: its history stays, and "associate" says that the
        # sender did not know.
        if not inside.roles or (role != inside.roles[-1] and role != "associate" and kind.opens_case):
            inside.roles.append(role)
            changed = True
        elif role != "associate" and role not in inside.roles:
            inside.roles.insert(0, role)
            changed = True
        if "school" in person and (school := self._keys.school(person["school"])) != inside.school:
            inside.school, changed = school, True
        if "representative" in person and refs[person["representative"]] != inside.representative:
            inside.representative, changed = refs[person["representative"]], True
        if not inside.protected and ("safeAddress" in person or "whereaboutsProtected" in person):
            inside.protected = changed = True
        return changed


def _contradict(one: Case, other: Case, pseudonym: str) -> bool:
    """Whether somebody is the perpetrator in one of the cases and at risk in the other."""
    parts = [
        person.roles[-1] == "perpetrator"
        for case in (one, other)
        if (person := case.people.get(pseudonym)) is not None
        and person.roles
        and person.roles[-1] in ("perpetrator", "victim", "child")
    ]
    return len(parts) == 2 and parts[0] != parts[1]


def _settle_roles(
    data: dict[str, Any], refs: Mapping[str, str], cases: Sequence[Case]
) -> tuple[dict[str, Any], dict[str, str]]:
    """*data* in which people whose role the sender did not know have the role they have in the case: a
    hospital knows a patient, not a victim.
    """
    roles: dict[str, str] = {}
    changed = False
    people = []
    for person in data.get("people", ()):
        role = person["role"]
        if role == "associate":
            for case in cases:
                inside = case.people.get(refs[person["ref"]])
                if inside is not None and inside.roles and inside.roles[-1] != "associate":
                    role = inside.roles[-1]
                    changed = True
                    break
        roles[person["ref"]] = role
        people.append(person if role == person["role"] else {**person, "role": role})
    return ({**data, "people": people} if changed else data), roles


def _site(message: Message) -> str:
    for part in ("episode", "release"):
        if part in message.data:
            return str(message.data[part]["site"])
    raise CaseUnknown(
        "the message opens a case but names no site", Problem("/data", "has no site", "add the site")
    )


class _Homes(NamedTuple):
    """The part of a *branch* of a message in which addresses stand: its own, and what is *below*."""

    branch: Branch
    addresses: tuple[tuple[str, Leaf], ...]
    below: "tuple[tuple[str, _Homes], ...]"


def _homes(branch: Branch) -> _Homes:
    children = branch.children.items()
    below = [(name, _homes(child)) for name, child in children if isinstance(child, Branch)]
    return _Homes(
        branch,
        tuple((name, child) for name, child in children if isinstance(child, Leaf) and child.address),
        tuple((name, homes) for name, homes in below if homes.addresses or homes.below),
    )


def _lived_in(
    homes: _Homes, value: Any, roles: Mapping[str, str], above: str = ""
) -> list[tuple[str, Mapping[str, Any]]]:
    """(ref, address) for every address in *value* that is where that person lives."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for item in value if homes.branch.array else (value,):
        whose = about_whom(homes.branch, item, above)
        if whose:
            role = roles.get(whose, CASE)
            for name, leaf in homes.addresses:
                # The protected address in an order stands beside the restrained person and is not his.
                if name in item and not (role == "perpetrator" and leaf.facets[role].name.startswith("ADDR")):
                    found.append((whose, item[name]))
        for name, inner in homes.below:
            if name in item:
                found += _lived_in(inner, item[name], roles, whose)
    return found


def _assess(case: Case, data: Mapping[str, Any], _refs: Mapping[str, str]) -> None:
    case.risk = data["risk"]["level"]


def _list(case: Case, data: Mapping[str, Any], _refs: Mapping[str, str]) -> None:
    case.conflicts.update(data["list"].get("conflicts", ()))


def _ask(case: Case, data: Mapping[str, Any], refs: Mapping[str, str]) -> None:
    case.assignments.update((data["to"], pseudonym, "asked") for pseudonym in refs.values())


def _task_in(part: str, whom: str) -> Callable[[Case, Mapping[str, Any], Mapping[str, str]], None]:
    def assign(case: Case, data: Mapping[str, Any], refs: Mapping[str, str]) -> None:
        case.assignments.add((data["to"], refs[data[part][whom]], "task"))

    return assign


def _plan(case: Case, data: Mapping[str, Any], refs: Mapping[str, str]) -> None:
    case.assignments.update(
        (s["party"], refs[s["person"]], s["service"]) for s in data["plan"].get("specialists", ())
    )


def _close(case: Case, _data: Mapping[str, Any], _refs: Mapping[str, str]) -> None:
    case.open = False


_EFFECTS: dict[str, Callable[[Case, Mapping[str, Any], Mapping[str, str]], None]] = {
    "nz.isr.fss.risk-assessed.v1": _assess,
    "nz.isr.fss.sam-list-published.v1": _list,
    "nz.isr.fss.information-requested.v1": _ask,
    "nz.isr.fss.task-assigned.v1": _task_in("task", "person"),
    "nz.isr.fss.plan-opened.v1": _plan,
    "nz.isr.fss.plan-closed.v1": _close,
    "nz.isr.health.alert-requested.v1": _task_in("alert", "person"),
    "nz.isr.msd.entitlement-review-requested.v1": _task_in("review", "person"),
    "nz.isr.oranga-tamariki.report-of-concern-submitted.v1": _task_in("concern", "child"),
}
