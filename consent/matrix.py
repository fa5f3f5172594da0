"""What the agreements come to: who can ever learn which class about whom, what two versions differ in, and
what a privacy officer should mend.

The space is finite, so these are answers and not samples: every clause, party, role and class is visited.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

from consent.agreement import BASES, KINDS, Agreement, Agreements, Clause, Party
from consent.clause import ANY
from consent.conditions import CONDITIONS, TASK_SERVICES, Facts
from consent.guards import PERPETRATOR_SIDE, Effect, Situation, Subject, guarded
from consent.policy import carried
from schemas.catalogue import published
from schemas.classes import CLASSES, Facet
from schemas.clock import NEW_ZEALAND, utc_now
from schemas.errors import BadAgreement

AHEAD = timedelta(days=90)
_LETTERS = {"full": "A", "reduced": "R", "refer": "H", "": "-"}
_RANK = {"full": 3, "reduced": 2, "refer": 1, "": 0}


class Row(NamedTuple):
    """One cell of the matrix: *recipient* can get *data_class* about *role* in this *outcome* (full,
    reduced, refer) under *clause*.
    """

    recipient: str
    kind: str
    role: str
    data_class: str
    outcome: str
    clause: str
    sources: str
    purposes: str
    conditions: str
    basis: str

    @property
    def view(self) -> str:
        """The outcome, by its name in a clause."""
        return self.outcome


class Finding(NamedTuple):
    """Something a privacy officer should look at: *level* is error (does not load), warning or note."""

    level: str
    where: str
    detail: str
    fix: str

    def line(self) -> str:
        """The finding as one readable line."""
        return f"{self.level}: {self.where}: {self.detail} — {self.fix}"


def matrix_rows(agreements: Agreements, day: date | None = None) -> list[Row]:
    """Every (party, role, class) that a clause in force on *day* (today) names for an active party with the
    standing to receive it, sorted.
    """
    rows: list[Row] = []
    for agreement, clause, party in _applied(agreements, day or _today()):
        purposes = sorted(p for p in clause.purposes if clause.carried_by(party, p))
        if not purposes:
            continue
        bases = sorted({str(b) for p in purposes for b in clause.carried_by(party, p)})
        for role, name, outcome in _words(clause):
            rows.append(
                Row(
                    recipient=party.id,
                    kind=party.kind,
                    role=role,
                    data_class=name,
                    outcome=outcome,
                    clause=agreement.name_of(clause),
                    sources=" ".join(sorted(clause.sources)),
                    purposes=" ".join(purposes),
                    conditions=" ".join(clause.conditions),
                    basis="; ".join(bases),
                )
            )
    return sorted(rows)


def who_can_learn(agreements: Agreements, data_class: str, role: str, day: date | None = None) -> list[Row]:
    """The rows about *data_class* and *role*: everybody who could ever learn it on *day*, and under what
    conditions.
    """
    return [row for row in matrix_rows(agreements, day) if row.data_class == data_class and row.role == role]


def matrix_csv(rows: Iterable[Row]) -> str:
    """*rows* as CSV with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    return out.getvalue()


def matrix_text(rows: Iterable[Row], role: str | None = None) -> str:
    """Classes against kinds of recipient, the widest outcome about *role* (or any role): A in full, R
    reduced, H a person decides, - never.
    """
    widest: dict[tuple[str, str], str] = {}
    for row in rows:
        if role is None or row.role == role:
            key = (row.data_class, row.kind)
            widest[key] = max(widest.get(key, ""), row.outcome, key=_RANK.__getitem__)
    names = [name for name in CLASSES if name != "FRAME"]
    width = max(map(len, names))
    lines = [" " * width + "  " + " ".join(f"{kind:4}" for kind in KINDS)]
    lines += [
        f"{name:{width}}  " + " ".join(f"{_LETTERS[widest.get((name, kind), '')]:4}" for kind in KINDS)
        for name in names
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


_STYLE = (
    "body{font:14px/1.4 sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid #999;padding:.2em .5em;text-align:left;vertical-align:top}"
    ".A{background:#cfe8cf}.R{background:#fdf3c0}.H{background:#d9e2f3}"
)


def matrix_html(rows: Sequence[Row], roles: Iterable[str]) -> str:
    """A page that stands alone: for each of *roles* the classes against the kinds of recipient, and below all
    *rows* with source, conditions and basis.
    """
    said = ["<!doctype html><html lang=en><meta charset=utf-8><title>Matrix of the agreements</title>"]
    said.append(f"<style>{_STYLE}</style><h1>Who can ever learn what</h1>")
    said.append("<p>A in full, R in the reduced view, H a person of the holder decides, - never.</p>")
    for role in roles:
        head, *lines = matrix_text(rows, role).splitlines()
        kinds = "".join(f"<th>{escape(kind)}" for kind in head.split())
        said.append(f"<h2>About {escape(role)}</h2><table><tr><th>class{kinds}")
        for name, *letters in (line.split() for line in lines):
            cells = "".join(f'<td class="{letter}">{letter}' for letter in letters)
            said.append(f"<tr><th>{escape(name)}{cells}")
        said.append("</table>")
    said.append("<h2>By clause</h2><table><tr>" + "".join(f"<th>{name}" for name in Row._fields))
    said += ["<tr>" + "".join(f"<td>{escape(str(value))}" for value in row) for row in rows]
    return "\n".join([*said, "</table>"]) + "\n"


class Change(NamedTuple):
    """What *recipient* could get of *data_class* about *role*, *before* and *after* (full, reduced, refer
    or "").
    """

    recipient: str
    role: str
    data_class: str
    before: str
    after: str

    @property
    def widens(self) -> bool:
        """Whether more may be given than before."""
        return _RANK[self.after] > _RANK[self.before]


def difference(before: Agreements, after: Agreements, day: date | None = None) -> list[Change]:
    """Where the widest outcome for a party, role and class differs between two versions, sorted."""
    old, new = _widest(matrix_rows(before, day)), _widest(matrix_rows(after, day))
    return [
        Change(*key, old.get(key, ""), new.get(key, ""))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def check(folder: str | Path, today: date | None = None) -> list[Finding]:
    """What is wrong or will soon be wrong with the agreements in *folder*; empty when nothing is. Never
    raises for what the folder holds.
    """
    today = today or _today()
    try:
        agreements = Agreements.load(folder)
    except BadAgreement as error:
        return [Finding("error", p.pointer, p.detail, p.fix) for p in error.problems]
    findings = [
        *_expiring(agreements, today),
        *_unreachable(agreements, today),
        *_without_standing(agreements, today),
        *_overlapping(agreements, today),
        *_carried_by_nothing(agreements, today),
        *_held_by_nobody(agreements, today),
        *_without_belief(agreements, today),
        *_guards_made_pointless(agreements, today),
    ]
    return sorted(set(findings), key=lambda f: (f.level != "warning", f.where, f.detail))


def _today() -> date:
    return utc_now().astimezone(NEW_ZEALAND).date()


def _applied(agreements: Agreements, day: date) -> Iterator[tuple[Agreement, Clause, Party]]:
    for agreement in agreements:
        if agreement.in_force(day):
            for clause in agreement.clauses:
                if clause.belief.decided_on <= day <= clause.belief.until:
                    for party in agreements.parties.values():
                        if party.active and clause.to(party):
                            yield agreement, clause, party


def _words(clause: Clause) -> Iterator[tuple[str, str, str]]:
    for role, classes in clause.grants.items():
        for name, view in classes.items():
            yield role, name, view
    for role, names in clause.refer.items():
        for name in sorted(names):
            yield role, name, "refer"


def _widest(rows: Iterable[Row]) -> dict[tuple[str, str, str], str]:
    found: dict[tuple[str, str, str], str] = {}
    for row in rows:
        key = (row.recipient, row.role, row.data_class)
        found[key] = max(found.get(key, ""), row.outcome, key=_RANK.__getitem__)
    return found


def _place(agreement: Agreement, clause: Clause) -> str:
    return f"{agreement.file}:{clause.line} {agreement.name_of(clause)}"


def _soon(where: str, what: str, end: date, today: date, fix: str) -> Iterator[Finding]:
    if end < today:
        yield Finding("warning", where, f"{what} ended on {end.isoformat()}", fix)
    elif end - today <= AHEAD:
        yield Finding("warning", where, f"{what} ends on {end.isoformat()}", fix)


def _expiring(agreements: Agreements, today: date) -> Iterator[Finding]:
    for agreement in agreements:
        where = f"{agreement.file}:{agreement.line} {agreement.name}"
        if agreement.status != "active":
            yield Finding(
                "note",
                where,
                f"is {agreement.status}; nothing is given under it",
                "activate or remove it",
            )
            continue
        if agreement.effective_to is not None:
            yield from _soon(where, "the agreement", agreement.effective_to, today, "renew it")
        yield from _soon(
            where, "the time for its review", agreement.review_by, today, "review it and set a new date"
        )
        for clause in agreement.clauses:
            yield from _soon(
                _place(agreement, clause),
                "the belief",
                clause.belief.until,
                today,
                "decide again and record who did",
            )
    for party in agreements.parties.values():
        for name, value in party.status.items():
            if name.endswith("_until"):
                yield from _soon(
                    f"{party.place} {party.id}",
                    name,
                    date.fromisoformat(value),
                    today,
                    "record the new date once it is shown",
                )


def _unreachable(agreements: Agreements, today: date) -> Iterator[Finding]:
    """Grants that a guard always holds back, and conditions that cannot hold for the party."""
    for agreement, clause, party in _applied(agreements, today):
        for name in clause.conditions:
            if not any(CONDITIONS[name](facts) for facts in _best_facts(party, today)):
                yield Finding(
                    "warning",
                    _place(agreement, clause),
                    f"{name} can never hold for {party.id}",
                    "record the party's status, or drop the clause",
                )
        for role, data_class, outcome in _words(clause):
            if not any(
                _passes(party, role, facet, outcome)
                for facet in _facets(data_class, role) or (Facet(data_class, CLASSES[data_class].locates),)
            ):
                yield Finding(
                    "warning",
                    _place(agreement, clause),
                    f"{data_class} about {role} can never fire for {party.id}: a guard holds it back",
                    "drop the class",
                )


def _passes(party: Party, role: str, facet: Facet, outcome: str) -> bool:
    for audience in ("table", "addressee"):
        situation = Situation(
            kind=party.kind,
            capacity=party.capacity,
            audience=audience,
            risk="high",
            linked=party.kind in PERPETRATOR_SIDE,
            conflicted=False,
            knows_places=party.kind not in PERPETRATOR_SIDE,
            own_pupil=True,
            others_at_risk=False,
            perpetrator_represents_pupil=False,
            for_care=True,
        )
        subject = Subject(role, TASK_SERVICES, own_pupil=role == "child", contact_said=True, numbered=True)
        effect, _ = guarded(situation, subject, facet, "full" if outcome == "refer" else outcome)
        if effect is None or (outcome == "refer" and effect is not Effect.NOTHING):
            return True
    return False


def _best_facts(party: Party, today: date) -> Iterator[Facts]:
    for audience in ("table", "addressee"):
        yield Facts(
            kind=party.kind,
            status=party.status,
            today=today,
            audience=audience,
            case_open=True,
            risk="high",
            linked=party.kind in PERPETRATOR_SIDE,
            conflicted=False,
            role="child",
            services=TASK_SERVICES,
            in_case=True,
            own_pupil=True,
        )


def _without_standing(agreements: Agreements, today: date) -> Iterator[Finding]:
    reached: set[int] = set()
    for agreement, clause, party in _applied(agreements, today):
        reached.add(id(clause))
        lacking = sorted(p for p in clause.purposes if not clause.carried_by(party, p))
        if lacking:
            yield Finding(
                "warning",
                _place(agreement, clause),
                f"{party.id} has no standing on record for {', '.join(lacking)}",
                "record its standing, or take the purpose and its basis out",
            )
        if party.kind == "GP" and clause.grants and "NAMED_RECIPIENT" not in clause.conditions:
            yield Finding(
                "warning",
                _place(agreement, clause),
                "a practice receives as its named practitioner only (Family Violence Act 2018 s 19)",
                "add the condition NAMED_RECIPIENT",
            )
    for agreement in agreements:
        if agreement.in_force(today):
            for clause in agreement.clauses:
                if id(clause) not in reached and clause.belief.until >= today:
                    yield Finding(
                        "note",
                        _place(agreement, clause),
                        "reaches no active party",
                        "define the party, or drop the clause",
                    )


def _overlapping(agreements: Agreements, today: date) -> Iterator[Finding]:
    seen: dict[tuple[str, str, str, str, str], tuple[Agreement, Clause]] = {}
    for agreement, clause, party in _applied(agreements, today):
        for role, data_class, _outcome in _words(clause):
            for purpose in clause.purposes:
                for source in clause.sources:
                    key = (party.id, role, data_class, purpose, source)
                    first = seen.setdefault(key, (agreement, clause))
                    if first[1] is not clause:
                        yield Finding(
                            "note",
                            _place(agreement, clause),
                            f"{data_class}, {role}, {party.id}: {first[0].name_of(first[1])} names it too",
                            "keep one, unless their conditions are meant as alternatives",
                        )


def _carried_by_nothing(agreements: Agreements, today: date) -> Iterator[Finding]:
    named: dict[tuple[str, str], str] = {}
    for agreement, clause, _ in _applied(agreements, today):
        for role, data_class, _outcome in _words(clause):
            named.setdefault((data_class, role), agreement.name_of(clause))
    for data_class in sorted({name for name, _ in named}):
        roles = sorted(role for name, role in named if name == data_class and not _facets(name, role))
        if roles:
            yield Finding(
                "note",
                data_class,
                f"is granted about {', '.join(roles)}, but no message carries it",
                "nothing to do; it stays ready",
            )


def _held_by_nobody(agreements: Agreements, today: date) -> Iterator[Finding]:
    """Clauses whose classes none of their sources can send for their purposes: they can never fire."""
    checked: set[int] = set()
    for agreement, clause, _ in _applied(agreements, today):
        if id(clause) in checked:
            continue
        checked.add(id(clause))
        sendable = _sendable(agreements, clause)
        words = {(name, role) for role, name, _ in _words(clause) if _facets(name, role)}
        lacking = sorted(words - sendable)
        sources, purposes = ", ".join(sorted(clause.sources)), ", ".join(sorted(clause.purposes))
        if words and len(lacking) == len(words):
            yield Finding(
                "warning",
                _place(agreement, clause),
                f"can never fire: no message of {sources} for {purposes} carries any of its classes",
                "name who holds the classes, or the purpose of the messages that carry them",
            )
            continue
        for name, role in lacking:
            if clause.sources != {ANY}:
                yield Finding(
                    "note",
                    _place(agreement, clause),
                    f"{name} about {role}: nobody of {sources} holds it in a message for {purposes}",
                    "name who holds it, or drop the class",
                )


def _sendable(agreements: Agreements, clause: Clause) -> set[tuple[str, str]]:
    """(class, role) that the sources of *clause* can send for one of its purposes."""
    agencies = {
        party.agency.partition(".")[0]
        for party in agreements.parties.values()
        if party.active and (ANY in clause.sources or party.kind in clause.sources)
    }
    return {
        cell
        for kind in published()
        if kind.purpose in clause.purposes and kind.senders & {"any", *agencies}
        for cell in _cells(kind.name)
    }


@cache
def _cells(type_name: str) -> frozenset[tuple[str, str]]:
    return frozenset((facet.name, role) for role, facet, _, _ in carried(published()[type_name].shape))


def _without_belief(agreements: Agreements, today: date) -> Iterator[Finding]:
    checked: set[int] = set()
    for agreement, clause, _ in _applied(agreements, today):
        if clause.belief.kind == "case" and clause.grants and id(clause) not in checked:
            checked.add(id(clause))
            yield Finding(
                "warning",
                _place(agreement, clause),
                "gives on a belief that somebody has to form in each case, and asks nobody",
                "refer the classes, so that a person of the holder decides, or state a standing belief",
            )
        for basis in clause.basis:
            if not clause.purposes & BASES[basis.code].purposes:
                yield Finding(
                    "warning",
                    _place(agreement, clause),
                    f"{basis.code} carries none of its purposes",
                    "take the basis out, or name a purpose that it carries",
                )


_BOUND = frozenset({"ASSIGNED", "TASKED", "IN_CASE", "OWN_PUPIL"})


def _guards_made_pointless(agreements: Agreements, today: date) -> Iterator[Finding]:
    """V2 lets what locates go to whoever is given all addresses: a grant of addresses that depends on no work
    with the person gives everything that locates to somebody who works with nobody.
    """
    for agreement, clause, party in _applied(agreements, today):
        if party.kind in PERPETRATOR_SIDE or _BOUND & set(clause.conditions):
            continue
        for role, name, outcome in _words(clause):
            if name in ("ADDR-V", "CONTACT-V") and outcome == "full" and role in ("victim", "child", "case"):
                yield Finding(
                    "warning",
                    _place(agreement, clause),
                    f"{name} about {role} makes guard V2 pointless for {party.id}: it depends on no work "
                    "with anybody of the case",
                    "add ASSIGNED, TASKED or IN_CASE",
                )


@cache
def _held() -> dict[tuple[str, str], set[Facet]]:
    found: dict[tuple[str, str], set[Facet]] = {}
    for kind in published():
        for role, facet, _, _ in carried(kind.shape):
            found.setdefault((facet.name, role), set()).add(facet)
    return found


def _facets(data_class: str, role: str) -> set[Facet]:
    return _held().get((data_class, role), set())
