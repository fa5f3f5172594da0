"""Reads agreements from YAML: everything is checked at load, by a JSON Schema (agreement.schema.json) and
by the rules below; what cannot be understood is an error with file, line and fix, never a clause that is
skipped.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema

from consent.clause import (
    BASES,
    KINDS,
    LOCKED,
    NEVER_GRANTED,
    OBLIGATIONS,
    PURPOSES,
    THREATS,
    Agreement,
    Basis,
    Belief,
    BreakGlass,
    Clause,
    Party,
)
from consent.conditions import CONDITIONS
from consent.strict_yaml import Place, line_of, read
from consent.terms import outsiders, settled
from schemas.canonical import canonical
from schemas.classes import CLASSES, SUBJECT_ROLES
from schemas.errors import BadAgreement, Problem

SCHEMA = "agreement.schema.json"
PARTIES = "PARTIES"  # how the file of the parties is called where agreements are called by their id


class Read(NamedTuple):
    """What files say together. *version_hash* is over all of it, *hashes* over each file's content by its
    name: of what it says, so that spaces and comments count for nothing.
    """

    parties: dict[str, Party]
    agreements: list[Agreement]
    version_hash: str
    hashes: dict[str, str]


def texts_of(folder: str | Path) -> dict[str, bytes]:
    """The `*.yaml` files of *folder*, by name. Raises `BadAgreement` when there are none."""
    found = {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.yaml"))}
    if not found:
        raise BadAgreement(
            "there are no agreements",
            Problem(Path(folder).name, "holds no .yaml file", "add parties.yaml and an agreement"),
        )
    return found


def content_of(name: str, text: bytes) -> tuple[Any, str]:
    """What the file *name* with this *text* says, checked alone, and its hash. Raises `BadAgreement`."""
    document, problems = _checked(name, text)
    if problems:
        raise BadAgreement(f"{name} cannot be read: " + "; ".join(p.line() for p in problems), *problems)
    return document.value, _hash(document.value)


def read_texts(
    texts: Mapping[str, bytes], superseded: Mapping[str, str] | None = None, *, approved: bool = False
) -> Read:
    """What the files *texts* (name → bytes) say together. *superseded* says, beside what the files say, which
    agreement (`ID@version`) was superseded by which. *approved*: all of them were, whatever status they give
    themselves.

    Raises `BadAgreement` with one `Problem` per finding (`file:line`, what, fix).
    """
    contents: dict[str, Any] = {}
    documents: list[_Document] = []
    problems: list[Problem] = []
    for name, text in sorted(texts.items()):
        try:
            document, found = _checked(name, text)
        except BadAgreement as error:
            problems.extend(error.problems)
            continue
        if found:
            problems.extend(found)
            continue
        contents[name] = document.value
        documents.append(document)
    hashes = {name: _hash(value) for name, value in contents.items()}
    parties = _parties(documents, problems)
    agreements = _agreements(documents, parties, problems)
    if approved:
        agreements = [replace(agreement, status="active") for agreement in agreements]
    by_file = {document.name: document for document in documents}

    def wrong(agreement: Agreement, place: Place, detail: str, fix: str) -> None:
        problems.append(by_file[agreement.file].problem(place, detail, fix))

    for agreement in agreements:
        outsiders(agreement, parties, wrong)
    agreements = settled(agreements, superseded or {}, wrong)
    if problems:
        raise BadAgreement(
            "the agreements cannot be loaded: " + "; ".join(p.line() for p in problems[:20]), *problems
        )
    said = {**contents, "": dict(superseded)} if superseded else contents
    return Read(parties, agreements, _hash(said), hashes)


def schema_text() -> str:
    """The JSON Schema (2020-12) of a file of agreements, as published and as applied here."""
    return (files("consent") / SCHEMA).read_text(encoding="utf-8")


@lru_cache(maxsize=64)
def _checked(name: str, text: bytes) -> "tuple[_Document, tuple[Problem, ...]]":
    """The file *name* and what in it is not as the schema has it. The same text is read once: reading is
    most of what opening a hub costs. Do not change what it says.
    """
    try:
        document = _Document(name, *read(text.decode("utf-8"), name))
    except UnicodeDecodeError:
        raise BadAgreement(
            f"{name} is not UTF-8", Problem(name, "is not UTF-8", "save it as UTF-8")
        ) from None
    return document, tuple(_against_schema(document))


def _hash(said: Any) -> str:
    return hashlib.sha256(canonical(said)).hexdigest()


class _Document(NamedTuple):
    name: str
    value: dict[str, Any]
    lines: dict[Place, int]

    def problem(self, place: Place, detail: str, fix: str) -> Problem:
        return Problem(f"{self.name}:{line_of(self.lines, place)}", detail, fix)


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        json.loads(schema_text()), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


def _against_schema(document: _Document) -> list[Problem]:
    found: list[Problem] = []
    errors = list(_validator().iter_errors(document.value))
    while any(e.context for e in errors):  # a choice of forms: report what is wrong within the nearest form
        errors = [inner for e in errors for inner in (_nearest(e) if e.context else [e])]
    for error in sorted(errors, key=lambda e: [str(p) for p in e.absolute_path])[:20]:
        place = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            for name in sorted(set(error.instance) - set(error.schema.get("properties", {}))):
                found.append(
                    document.problem(
                        (*place, name), f"{name} is not a known key", "remove it, or correct the spelling"
                    )
                )
        elif error.validator == "enum":
            found.append(
                document.problem(
                    place,
                    "is not one of the allowed words",
                    "use one of: " + ", ".join(map(str, error.validator_value)),
                )
            )
        elif error.validator == "required":
            missing = [n for n in error.validator_value if n not in error.instance]
            found.append(document.problem(place, f"lacks {', '.join(missing)}", "add it"))
        else:
            found.append(
                document.problem(
                    place,
                    f"breaks the rule {error.validator}",
                    f"see agreement.schema.json: {error.schema.get('description', error.validator_value)}",
                )
            )
    return list(dict.fromkeys(found))


def _nearest(error: jsonschema.ValidationError) -> list[jsonschema.ValidationError]:
    branches: dict[Any, list[jsonschema.ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    return min(
        branches.values(), key=lambda errors: (-max(len(e.absolute_path) for e in errors), len(errors))
    )


def _parties(documents: Iterable[_Document], problems: list[Problem]) -> dict[str, Party]:
    parties: dict[str, Party] = {}
    for document in documents:
        for i, raw in enumerate(document.value.get("parties", ())):
            place: Place = ("parties", i)
            agency, _, capacity = raw["id"].partition("#")
            if raw["id"] in parties:
                problems.append(
                    document.problem(place, f"the party {raw['id']} is defined twice", "keep one definition")
                )
            for name, value in raw["status"].items():
                if name.endswith("_until") and _date(value) is None:
                    problems.append(
                        document.problem((*place, "status", name), "is not a date", "write YYYY-MM-DD")
                    )
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
                place=f"{document.name}:{line_of(document.lines, place)}",
            )
    return parties


def _agreements(
    documents: Iterable[_Document], parties: Mapping[str, Party], problems: list[Problem]
) -> list[Agreement]:
    agreements: list[Agreement] = []
    for document in documents:
        if "agreement" not in document.value:
            continue
        head = document.value["agreement"]
        dates = {
            name: _day(document, ("agreement", name), head.get(name), problems)
            for name in ("effective_from", "effective_to", "review_by")
        }
        start, end, review = dates["effective_from"], dates["effective_to"], dates["review_by"]
        if head["lead"] not in parties:
            problems.append(
                document.problem(
                    ("agreement", "lead"), f"{head['lead']} is not a party", "name a party of parties.yaml"
                )
            )
        if start and ((end and end < start) or (review and review <= start)):
            problems.append(
                document.problem(("agreement",), "ends or is reviewed before it begins", "correct the dates")
            )
        clauses: dict[str, Clause] = {}
        for i, raw in enumerate(document.value.get("clauses", ())):
            if raw["id"] in clauses:
                problems.append(
                    document.problem(
                        ("clauses", i, "id"),
                        f"the clause {raw['id']} exists twice",
                        "give it an id of its own",
                    )
                )
            clauses[raw["id"]] = _clause(document, ("clauses", i), raw, parties, problems)
        glass = _break_glass(document, clauses, parties, problems)
        for i, name in enumerate(head.get("parties", ())):
            if name not in KINDS and name not in parties:
                problems.append(
                    document.problem(
                        ("agreement", "parties", i),
                        f"{name} is neither a kind nor a party",
                        "use one of: " + ", ".join((*KINDS, *parties)),
                    )
                )
        made = Agreement(
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
            break_glass=glass,
            content=_hash(document.value),
            parties=tuple(head.get("parties", ())),
            supersedes=head.get("supersedes", ""),
            line=line_of(document.lines, ("agreement",)),
        )
        agreements.append(made)
    return agreements


def _break_glass(
    document: _Document,
    clauses: Mapping[str, Clause],
    parties: Mapping[str, Party],
    problems: list[Problem],
) -> tuple[BreakGlass, ...]:
    """The clauses of *document* that count only while an override runs."""
    found: dict[str, BreakGlass] = {}
    for i, raw in enumerate(document.value.get("break_glass", ())):
        place: Place = ("break_glass", i)
        if raw["id"] in clauses or raw["id"] in found:
            problems.append(
                document.problem(
                    (*place, "id"), f"the clause {raw['id']} exists twice", "give it an id of its own"
                )
            )
        clause = _clause(document, place, raw, parties, problems)
        locked = sorted({name for views in clause.grants.values() for name in views} & LOCKED)
        if locked:
            problems.append(
                document.problem(
                    (*place, "grants"),
                    f"no override opens {', '.join(locked)} (safety rule V17)",
                    "remove it",
                )
            )
        for j, threat in enumerate(raw["threats"]):
            if threat not in THREATS:
                problems.append(
                    document.problem(
                        (*place, "threats", j),
                        f"{threat} is not a threat",
                        "use one of: " + ", ".join(THREATS),
                    )
                )
        found[raw["id"]] = BreakGlass(clause, frozenset(raw["threats"]), raw["minutes"], raw["approval"])
    return tuple(found.values())


def _clause(
    document: _Document,
    place: Place,
    raw: Mapping[str, Any],
    parties: Mapping[str, Party],
    problems: list[Problem],
) -> Clause:

    def wrong(key: Place, detail: str, fix: str) -> None:
        problems.append(document.problem((*place, *key), detail, fix))

    if raw["to"] not in KINDS and raw["to"] not in parties:
        wrong(
            ("to",),
            f"{raw['to']} is neither a kind nor a party",
            "use one of: " + ", ".join((*KINDS, *parties)),
        )
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
        wrong(
            ("grants" if role in grants else "refer", role),
            f"{role} is not a role",
            "use one of: " + ", ".join(SUBJECT_ROLES),
        )
    known = _words(raw, wrong)
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
        belief=Belief(
            stated["kind"],
            stated["statement"],
            stated["decided_by"],
            decided_on or date.max,
            until or date.min,
        ),
        conditions=tuple(raw["conditions"]),
        obligations=tuple(raw["obligations"]),
        line=line_of(document.lines, place),
    )


def _words(raw: Mapping[str, Any], wrong: Any) -> list[Mapping[str, str]]:
    """Checks the words a clause takes from closed lists; returns its known bases."""
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
            wrong(
                ("purposes", i), f"{purpose} is not a purpose", "use one of: " + ", ".join(sorted(PURPOSES))
            )
        elif not any(purpose in BASES[b["code"]].purposes for b in known):
            wrong(
                ("purposes", i),
                f"no basis of the clause carries {purpose}",
                "add the basis, or drop the purpose",
            )
    return known


def _class(name: str, key: Place, wrong: Any, seen: Mapping[str, str]) -> None:
    if name in NEVER_GRANTED:
        wrong(key, f"{name} can never be granted or referred", "remove it")
    elif name not in CLASSES:
        wrong(key, f"{name} is not a data class", "use a class of schemas/classes.py")
    elif name in seen:
        wrong(key, f"{name} is named twice for this role", "grant it once or refer it, not both")


def _date(text: Any) -> date | None:
    try:
        return (
            date.fromisoformat(text)
            if isinstance(text, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", text)
            else None
        )
    except ValueError:
        return None


def _day(document: _Document, place: Place, text: str | None, problems: list[Problem]) -> date | None:
    day = _date(text)
    if text is not None and day is None:
        problems.append(document.problem(place, "is not a date", "write YYYY-MM-DD"))
    return day
