"""Agreements: who may learn which class of fact about whom, for which purpose, on which legal basis, on whose belief; read from YAML.

A folder holds one file of parties and any number of agreements. Everything is checked at load, by a JSON Schema (agreement.schema.json) and by the
rules below; what cannot be understood is an error with file, line and fix, never a clause that is skipped. Nothing granted means nothing given.

`Agreements` answers one question quickly: the entries for (recipient, purpose, source kind) at an instant, by role and class. They are compiled
on first use for each New Zealand calendar day, so the cost of a decision does not grow with the number of clauses.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema

from consent.conditions import CONDITIONS
from consent.strict_yaml import Place, line_of, read
from schemas.canonical import canonical
from schemas.classes import CLASSES, SUBJECT_ROLES
from schemas.clock import NEW_ZEALAND
from schemas.errors import BadAgreement, Problem

KINDS = ("POL", "OT", "COR", "HNZ", "GP", "MSD", "ACC", "MOJ", "EDU", "NGOV", "NGOP", "FSS")
ANY = "any"
NEVER_GRANTED = frozenset({"FRAME", "RESTRICT-META", "PRIV"})
_FAMILY_VIOLENCE = frozenset({"FV-RISK", "FV-PLAN", "FV-PROTECT"})
_CHILD_WELFARE = frozenset({"CW-HARM", "CW-ASSESS", "CW-PLAN", "CW-PREVENT", "CW-SERVICE", "CW-CARE"})


class Power(NamedTuple):
    """A legal basis: which *purposes* it carries, and the entry of a party's status that shows the party may rely on it (None: the *kinds* say)."""

    title: str
    purposes: frozenset[str]
    status: str | None
    kinds: frozenset[str] = frozenset(KINDS)


BASES: dict[str, Power] = {
    "FVA20": Power("Family Violence Act 2018", _FAMILY_VIOLENCE, "fva"),
    "OTA66C": Power("Oranga Tamariki Act 1989", _CHILD_WELFARE, "cwpa"),
    "OTA15": Power("Oranga Tamariki Act 1989", frozenset({"CW-ROC"}), None, frozenset({"OT", "POL"})),
    "HIPC11": Power("Health Information Privacy Code 2020", _FAMILY_VIOLENCE | _CHILD_WELFARE, None),
    "HA22C": Power("Health Act 1956", _FAMILY_VIOLENCE | _CHILD_WELFARE, None, frozenset({"POL", "OT", "COR"})),
}
PURPOSES = frozenset().union(*(power.purposes for power in BASES.values()))
OBLIGATIONS: dict[str, str] = {
    "no-onward": "do not pass on without asking the hub again",
    "use-limited": "use only for the purpose of the message",
    "acknowledge-recall": "confirm within 24 hours that recalled information was withdrawn",
    "clinical-staff-only": "show only to clinical staff",
    "no-portal-proxy-letter": "never show in a patient portal, to a proxy, or in a letter",
    "never-to-perpetrator": "never let the perpetrator learn of it, paper he may see included",
    "consult-child": "take the child's views into account where practicable (Oranga Tamariki Act 1989 s 66K)",
    "delete-when-closed": "delete when the case closes",
}


@dataclass(frozen=True, slots=True)
class Party:
    """An agency in a capacity. *kind* is its column of the matrix; *status* what is on record about its legal standing and staff."""

    id: str
    agency: str
    capacity: str
    kind: str
    name: str
    sites: frozenset[str]
    table: bool
    active: bool
    status: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        """By id: one party of an `Agreements` has one id."""
        return hash(self.id)

    def may_rely_on(self, basis: str) -> bool:
        """Whether the record shows that this party may receive on *basis*; nothing on record means no."""
        power = BASES[basis]
        if self.kind not in power.kinds:
            return False
        return power.status is None or self.status.get(power.status, "none") != "none"


@dataclass(frozen=True, slots=True)
class Basis:
    """A legal basis with its *section*."""

    code: str
    section: str

    def __str__(self) -> str:
        return f"{self.code}: {BASES[self.code].title} {self.section}"


@dataclass(frozen=True, slots=True)
class Belief:
    """Who believes, on reasonable grounds and until when, that disclosure will or may help (Family Violence Act 2018 s 20)."""

    kind: str
    statement: str
    decided_by: str
    decided_on: date
    until: date


@dataclass(frozen=True, slots=True)
class Clause:
    """What *recipient* (a kind or a party) may be *grant*ed (role → class → view), and what is put to a person of the holder (*refer*)."""

    id: str
    sources: frozenset[str]
    recipient: str
    grants: Mapping[str, Mapping[str, str]]
    refer: Mapping[str, frozenset[str]]
    purposes: frozenset[str]
    basis: tuple[Basis, ...]
    belief: Belief
    conditions: tuple[str, ...]
    obligations: tuple[str, ...]
    line: int

    def to(self, party: Party) -> bool:
        """Whether the clause is for *party*."""
        return self.recipient in (party.kind, party.id)

    def carried_by(self, party: Party, purpose: str) -> tuple[Basis, ...]:
        """The bases on which *party* may receive for *purpose* under this clause."""
        if purpose not in self.purposes:
            return ()
        return tuple(b for b in self.basis if purpose in BASES[b.code].purposes and party.may_rely_on(b.code))


@dataclass(frozen=True, slots=True)
class Agreement:
    """One agreement. It is in force when it is active and the day lies within its term; `review_by` is a warning, not an end."""

    id: str
    version: int
    title: str
    status: str
    instrument: str
    lead: str
    purpose: str
    effective_from: date
    effective_to: date | None
    review_by: date
    clauses: tuple[Clause, ...]
    file: str

    def in_force(self, day: date) -> bool:
        """Whether the agreement is in force on *day*."""
        return self.status == "active" and self.effective_from <= day and (self.effective_to is None or day <= self.effective_to)

    def name_of(self, clause: Clause) -> str:
        """How a decision cites *clause*."""
        return f"{self.id}@{self.version}/{clause.id}"


class Entry(NamedTuple):
    """One clause's word on one role and class: a *view*, or "" for a referral."""

    view: str
    clause: str
    conditions: tuple[str, ...]
    basis: tuple[str, ...]
    obligations: tuple[str, ...]


Cells = Mapping[tuple[str, str], tuple[Entry, ...]]
NO_CELLS: Cells = {}


class InForce:
    """The clauses in force on one day, compiled as they are asked for. *decisions* is the policy's memory for that day."""

    def __init__(self, day: date, agreements: Iterable[Agreement], parties: Mapping[str, Party]) -> None:
        self.day = day
        self.decisions: dict[Any, Any] = {}
        self._parties = parties
        self._by_recipient: dict[str, list[tuple[str, Clause]]] = {}
        self._cells: dict[tuple[str, str, str], Cells] = {}
        for agreement in agreements:
            if not agreement.in_force(day):
                continue
            for clause in agreement.clauses:
                if clause.belief.decided_on <= day <= clause.belief.until:
                    self._by_recipient.setdefault(clause.recipient, []).append((agreement.name_of(clause), clause))

    def cells(self, party: str, purpose: str, source_kind: str) -> Cells:
        """The entries for (role, class), permits in the fuller view first, then by clause name; referrals last."""
        key = (party, purpose, source_kind)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = self._compile(*key)
        return found

    def _compile(self, party: str, purpose: str, source_kind: str) -> Cells:
        recipient = self._parties.get(party)
        if recipient is None or not recipient.active:
            return NO_CELLS
        cells: dict[tuple[str, str], list[Entry]] = {}
        for name, clause in (*self._by_recipient.get(recipient.kind, ()), *self._by_recipient.get(recipient.id, ())):
            basis = tuple(str(b) for b in clause.carried_by(recipient, purpose))
            if not basis or not (ANY in clause.sources or source_kind in clause.sources):
                continue
            words = [((role, c), view) for role, classes in clause.grants.items() for c, view in classes.items()]
            words += [((role, c), "") for role, classes in clause.refer.items() for c in classes]
            for cell, view in words:
                cells.setdefault(cell, []).append(Entry(view, name, clause.conditions, basis, clause.obligations))
        order = {"full": 0, "reduced": 1, "": 2}
        return {cell: tuple(sorted(entries, key=lambda e: (order[e.view], e.clause))) for cell, entries in cells.items()}


_DAYS_KEPT = 64  # a replay walks through days in order; more than this is not one day's work


class Agreements:
    """All agreements of a folder with their parties. Immutable; safe to share between threads (a lost race compiles twice)."""

    def __init__(self, parties: Mapping[str, Party], agreements: Iterable[Agreement], version_hash: str) -> None:
        self.parties = parties
        self.version_hash = version_hash
        self._agreements = tuple(agreements)
        self._days: dict[date, InForce] = {}
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
        """What is in force at *at*; None when *at* has no offset, since then nobody can say which day it is."""
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
            found = InForce(day, self._agreements, self.parties)
            if len(self._days) >= _DAYS_KEPT:
                self._days.clear()
                self._hours.clear()
            self._days[day] = found
        return found

    @classmethod
    def load(cls, folder: str | Path) -> "Agreements":
        """The parties and agreements of all `*.yaml` files in *folder*.

        Raises `BadAgreement` with one `Problem` per finding (`file:line`, what, fix); then nothing of the folder is in force.
        """
        paths = sorted(Path(folder).glob("*.yaml"))
        if not paths:
            raise BadAgreement("there are no agreements", Problem(Path(folder).name, "holds no .yaml file", "add parties.yaml and an agreement"))
        contents: dict[str, Any] = {}
        documents: list[_Document] = []
        problems: list[Problem] = []
        for path in paths:
            try:
                value, lines = read(path.read_text(encoding="utf-8"), path.name)
            except UnicodeDecodeError:
                problems.append(Problem(path.name, "is not UTF-8", "save it as UTF-8"))
                continue
            except BadAgreement as error:
                problems.extend(error.problems)
                continue
            document = _Document(path.name, value, lines)
            if found := _against_schema(document):
                problems.extend(found)
                continue
            contents[path.name] = value
            documents.append(document)
        parties = _parties(documents, problems)
        agreements = _agreements(documents, parties, problems)
        if problems:
            raise BadAgreement("the agreements cannot be loaded: " + "; ".join(p.line() for p in problems[:20]), *problems)
        return cls(parties, agreements, hashlib.sha256(canonical(contents)).hexdigest())


class _Document(NamedTuple):
    name: str
    value: dict[str, Any]
    lines: dict[Place, int]

    def problem(self, place: Place, detail: str, fix: str) -> Problem:
        return Problem(f"{self.name}:{line_of(self.lines, place)}", detail, fix)


@cache
def _validator() -> jsonschema.Draft202012Validator:
    text = (files("consent") / "agreement.schema.json").read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def _against_schema(document: _Document) -> list[Problem]:
    found: list[Problem] = []
    errors = list(_validator().iter_errors(document.value))
    while any(e.context for e in errors):  # a choice of forms: report what is wrong within the nearest form
        errors = [inner for e in errors for inner in (_nearest(e) if e.context else [e])]
    for error in sorted(errors, key=lambda e: [str(p) for p in e.absolute_path])[:20]:
        place = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            for name in sorted(set(error.instance) - set(error.schema.get("properties", {}))):
                found.append(document.problem((*place, name), f"{name} is not a known key", "remove it, or correct the spelling"))
        elif error.validator == "enum":
            found.append(document.problem(place, "is not one of the allowed words", "use one of: " + ", ".join(map(str, error.validator_value))))
        elif error.validator == "required":
            missing = [n for n in error.validator_value if n not in error.instance]
            found.append(document.problem(place, f"lacks {', '.join(missing)}", "add it"))
        else:
            found.append(document.problem(place, f"breaks the rule {error.validator}", f"see agreement.schema.json: {error.schema.get('description', error.validator_value)}"))
    return list(dict.fromkeys(found))


def _nearest(error: jsonschema.ValidationError) -> list[jsonschema.ValidationError]:
    branches: dict[Any, list[jsonschema.ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    return min(branches.values(), key=lambda errors: (-max(len(e.absolute_path) for e in errors), len(errors)))


def _parties(documents: Iterable[_Document], problems: list[Problem]) -> dict[str, Party]:
    parties: dict[str, Party] = {}
    for document in documents:
        for i, raw in enumerate(document.value.get("parties", ())):
            place: Place = ("parties", i)
            agency, _, capacity = raw["id"].partition("#")
            if raw["id"] in parties:
                problems.append(document.problem(place, f"the party {raw['id']} is defined twice", "keep one definition"))
            for name, value in raw["status"].items():
                if name.endswith("_until") and _date(value) is None:
                    problems.append(document.problem((*place, "status", name), "is not a date", "write YYYY-MM-DD"))
            parties[raw["id"]] = Party(
                id=raw["id"],
                agency=agency,
                capacity=capacity,
                kind=raw["kind"],
                name=raw["name"],
                sites=frozenset(raw["sites"]),
                table=raw["table"],
                active=raw.get("active", True),
                status=dict(raw["status"]),
            )
    return parties


def _agreements(documents: Iterable[_Document], parties: Mapping[str, Party], problems: list[Problem]) -> list[Agreement]:
    agreements: dict[str, Agreement] = {}
    for document in documents:
        if "agreement" not in document.value:
            continue
        head = document.value["agreement"]
        if head["id"] in agreements:
            problems.append(document.problem(("agreement", "id"), f"the agreement {head['id']} exists twice", "give it an id of its own"))
        dates = {name: _day(document, ("agreement", name), head.get(name), problems) for name in ("effective_from", "effective_to", "review_by")}
        start, end, review = dates["effective_from"], dates["effective_to"], dates["review_by"]
        if head["lead"] not in parties:
            problems.append(document.problem(("agreement", "lead"), f"{head['lead']} is not a party", "name a party of parties.yaml"))
        if start and ((end and end < start) or (review and review <= start)):
            problems.append(document.problem(("agreement",), "ends or is reviewed before it begins", "correct the dates"))
        clauses: dict[str, Clause] = {}
        for i, raw in enumerate(document.value["clauses"]):
            if raw["id"] in clauses:
                problems.append(document.problem(("clauses", i, "id"), f"the clause {raw['id']} exists twice", "give it an id of its own"))
            clauses[raw["id"]] = _clause(document, i, raw, parties, problems)
        agreements[head["id"]] = Agreement(
            id=head["id"],
            version=head["version"],
            title=head["title"],
            status=head["status"],
            instrument=head["instrument"],
            lead=head["lead"],
            purpose=head["purpose"],
            effective_from=start or date.max,
            effective_to=end,
            review_by=review or date.min,
            clauses=tuple(clauses.values()),
            file=document.name,
        )
    return list(agreements.values())


def _clause(document: _Document, index: int, raw: Mapping[str, Any], parties: Mapping[str, Party], problems: list[Problem]) -> Clause:
    place: Place = ("clauses", index)

    def wrong(key: Place, detail: str, fix: str) -> None:
        problems.append(document.problem((*place, *key), detail, fix))

    if raw["to"] not in KINDS and raw["to"] not in parties:
        wrong(("to",), f"{raw['to']} is neither a kind nor a party", "use one of: " + ", ".join((*KINDS, *parties)))
    grants: dict[str, dict[str, str]] = {}
    for role, classes in raw.get("grants", {}).items():
        views = grants[role] = {}
        for i, item in enumerate(classes):
            name, view = next(iter(item.items())) if isinstance(item, dict) else (item, "full")
            _class(name, ("grants", role, i), wrong, seen=views)
            views[name] = view
    refer: dict[str, frozenset[str]] = {}
    for role, names in raw.get("refer", {}).items():
        for i, name in enumerate(names):
            _class(name, ("refer", role, i), wrong, seen=grants.get(role, {}))
        refer[role] = frozenset(names)
    for role in {*grants, *refer} - set(SUBJECT_ROLES):
        wrong(("grants" if role in grants else "refer", role), f"{role} is not a role", "use one of: " + ", ".join(SUBJECT_ROLES))
    for i, name in enumerate(raw["conditions"]):
        if name not in CONDITIONS:
            wrong(("conditions", i), f"{name} is not a condition", "use one of: " + ", ".join(CONDITIONS))
    for i, name in enumerate(raw["obligations"]):
        if name not in OBLIGATIONS:
            wrong(("obligations", i), f"{name} is not an obligation", "use one of: " + ", ".join(OBLIGATIONS))
    for i, basis in enumerate(raw["basis"]):
        if basis["code"] not in BASES:
            wrong(("basis", i), f"{basis['code']} is not a legal basis", "use one of: " + ", ".join(BASES))
    known = [b for b in raw["basis"] if b["code"] in BASES]
    for i, purpose in enumerate(raw["purposes"]):
        if purpose not in PURPOSES:
            wrong(("purposes", i), f"{purpose} is not a purpose", "use one of: " + ", ".join(sorted(PURPOSES)))
        elif not any(purpose in BASES[b["code"]].purposes for b in known):
            wrong(("purposes", i), f"no basis of the clause carries {purpose}", "add the basis, or drop the purpose")
    stated = raw["belief"]
    decided_on = _day(document, (*place, "belief", "decided_on"), stated["decided_on"], problems)
    until = _day(document, (*place, "belief", "until"), stated["until"], problems)
    if decided_on and until and until < decided_on:
        wrong(("belief", "until"), "ends before it was decided", "correct the dates")
    return Clause(
        id=raw["id"],
        sources=frozenset(raw["from"]),
        recipient=raw["to"],
        grants=grants,
        refer=refer,
        purposes=frozenset(raw["purposes"]),
        basis=tuple(Basis(b["code"], b["section"]) for b in known),
        belief=Belief(stated["kind"], stated["statement"], stated["decided_by"], decided_on or date.max, until or date.min),
        conditions=tuple(raw["conditions"]),
        obligations=tuple(raw["obligations"]),
        line=line_of(document.lines, place),
    )


def _class(name: str, key: Place, wrong: Any, seen: Mapping[str, str]) -> None:
    if name in NEVER_GRANTED:
        wrong(key, f"{name} can never be granted or referred", "remove it")
    elif name not in CLASSES:
        wrong(key, f"{name} is not a data class", "use a class of schemas/classes.py")
    elif name in seen:
        wrong(key, f"{name} is named twice for this role", "grant it once or refer it, not both")


def _date(text: Any) -> date | None:
    try:
        return date.fromisoformat(text) if isinstance(text, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) else None
    except ValueError:
        return None


def _day(document: _Document, place: Place, text: str | None, problems: list[Problem]) -> date | None:
    day = _date(text)
    if text is not None and day is None:
        problems.append(document.problem(place, "is not a date", "write YYYY-MM-DD"))
    return day
