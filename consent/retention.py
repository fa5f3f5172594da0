"""What the hub keeps, how long, and on whose authority it is disposed of: classes read from a file, and legal
holds that outrank all of them.

A public record is disposed of only with the Chief Archivist's authority (Public Records Act 2005, section
18), and what somebody has asked for is never destroyed (Privacy Act 2020, section 212). So unknown
means kept: a class without an authority in force, a period that cannot be read, a record of which nobody can
tell whether it is under a hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from consent.strict_yaml import line_of, read
from schemas.database import metadata
from schemas.errors import BadAgreement, Problem

DECISION_INPUTS, DEAD_LETTERS, INBOX, CASES, PEOPLE = (
    "decision-inputs",
    "dead-letters",
    "inbox",
    "cases",
    "people",
)
# From what the period of each class is counted; there is one moment that the hub knows of each.
_FROM = {
    DECISION_INPUTS: "decided",
    DEAD_LETTERS: "set-aside",
    INBOX: "taken-in",
    CASES: "seen-closed",
    PEOPLE: "seen-without-case",
}
CLASSES = tuple(_FROM)  # in the order of disposal: cases before the people who are in none then
# Why something must be kept whatever its class says.
HOLD_REASONS: Mapping[str, str] = {
    "access-request": "somebody asked for access (IPP 6; destroying it now is an offence, section 212)",
    "correction-request": "somebody asked for a correction (IPP 7)",
    "complaint": "a complaint is open",
    "breach": "a privacy breach is examined (Part 6)",
    "proceeding": "a court or tribunal may want it",
    "care-record": "it is a protected record of somebody's care",
}
SCOPES = ("all", "person", "case", "message")
_CHUNK = 500

legal_hold = sa.Table(
    "legal_hold",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("reason", sa.String(30), nullable=False),
    sa.Column("reference", sa.String(40), nullable=False),
    sa.Column("scope", sa.String(10), nullable=False),
    sa.Column("ref", sa.String(64), nullable=False),  # pseudonym, case or message; "" for all
    sa.Column("at", sa.String(30), nullable=False),
    sa.Column("due", sa.String(30), nullable=False),  # when a request is to be decided; "" for none
    sa.Column("released", sa.String(30), nullable=False),  # "" while it holds
)
retention_mark = sa.Table(
    "retention_mark",
    metadata,
    sa.Column("kind", sa.String(20), primary_key=True),  # CASES or PEOPLE
    sa.Column("ref", sa.String(64), primary_key=True),
    sa.Column("at", sa.String(30), nullable=False),  # since when it is seen closed, or without a case
)
# Dead letters lie with the broker, outside the database's transaction: what is still to be taken out there.
disposal_due = sa.Table(
    "disposal_due",
    metadata,
    sa.Column("letter", sa.String(100), primary_key=True),
    sa.Column("at", sa.String(30), nullable=False),
)


@dataclass(frozen=True, slots=True)
class Authority:
    """On whose word something is disposed of: nobody's, unless it is *in_force*."""

    id: str
    title: str
    in_force: bool


@dataclass(frozen=True, slots=True)
class RetentionClass:
    """One class of records: kept *days* from a moment, then disposed of under *authority*; with
    *keeps_care_records* never when it concerns a child or Oranga Tamariki's work.
    """

    id: str
    what: str
    since: str
    days: int
    authority: Authority
    keeps_care_records: bool

    def until(self, now: datetime) -> datetime:
        """What began at or before this instant is due at *now*."""
        return now - timedelta(days=self.days)


def load(path: Path | None = None) -> dict[str, RetentionClass]:
    """The classes in the file at *path* (default: those that come with the hub), each of `CLASSES` once.

    Raises `BadAgreement` with file and line for anything that is not exactly understood: then nothing is
    disposed of.
    """
    name = path.name if path else "retention.yaml"
    try:
        text = (path or Path(str(files("consent") / "retention.yaml"))).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise BadAgreement(f"{name} cannot be read", Problem(name, "is no readable UTF-8 file")) from None
    value, lines = read(text, name)
    reader = _Reader(name, lines)
    found = reader.classes(value)
    if reader.problems:
        raise BadAgreement(f"{name} is not understood; nothing is disposed of", *reader.problems)
    return {id: found[id] for id in CLASSES}


@dataclass(slots=True)
class _Reader:
    name: str
    lines: dict[Any, int]
    problems: list[Problem] = field(default_factory=list)

    def classes(self, value: Any) -> dict[str, RetentionClass]:
        found: dict[str, RetentionClass] = {}
        if not self._has(value, (), {"authorities": list, "classes": list}):
            return found
        authorities: dict[str, Authority] = {}
        for i, item in enumerate(value["authorities"]):
            if self._has(item, ("authorities", i), {"id": str, "title": str, "in_force": bool}):
                if item["id"] in authorities:
                    self._wrong(("authorities", i, "id"), "stands here twice", "keep one of the two")
                authorities[item["id"]] = Authority(item["id"], item["title"], item["in_force"])
        shape = {"id": str, "what": str, "from": str, "keep_days": int, "authority": str, "care_records": str}
        for i, item in enumerate(value["classes"]):
            place = ("classes", i)
            if self._has(item, place, shape) and self._is_class(item, place, found, authorities):
                found[item["id"]] = RetentionClass(
                    item["id"],
                    item["what"],
                    item["from"],
                    item["keep_days"],
                    authorities[item["authority"]],
                    item["care_records"] == "keep",
                )
        if missing := set(CLASSES) - found.keys():
            self._wrong(("classes",), "lacks " + ", ".join(sorted(missing)), "give each class its period")
        return found

    def _is_class(
        self,
        item: Mapping[str, Any],
        place: tuple[str | int, ...],
        found: Mapping[str, object],
        authorities: Mapping[str, object],
    ) -> bool:
        wrong = len(self.problems)
        if item["id"] not in _FROM:
            self._wrong((*place, "id"), "is no class of the hub", "one of " + ", ".join(CLASSES))
        elif item["from"] != _FROM[item["id"]]:
            self._wrong((*place, "from"), "is not known of this class", f"write {_FROM[item['id']]}")
        if item["id"] in found:
            self._wrong((*place, "id"), "stands here twice", "keep one of the two")
        if not 1 <= item["keep_days"] <= 36_500:
            self._wrong((*place, "keep_days"), "is not between a day and a hundred years", "count the days")
        if item["authority"] not in authorities:
            self._wrong((*place, "authority"), "is not among the authorities", "add it there")
        if item["care_records"] not in ("keep", "dispose"):
            self._wrong(
                (*place, "care_records"), "is neither keep nor dispose", "write keep if you are not sure"
            )
        return len(self.problems) == wrong

    def _has(self, value: Any, place: tuple[str | int, ...], shape: Mapping[str, type]) -> bool:
        if not isinstance(value, dict):
            self._wrong(place, "is not a mapping", "write " + ", ".join(shape))
            return False
        wrong = len(self.problems)
        for key in value.keys() - shape.keys():
            self._wrong((*place, key), "is not known here", "one of " + ", ".join(shape))
        for key, kind in shape.items():
            if type(value.get(key)) is not kind:
                self._wrong((*place, key), f"lacks {key}, or it has the wrong form", f"give {key}")
        return len(self.problems) == wrong

    def _wrong(self, place: tuple[str | int, ...], detail: str, fix: str) -> None:
        self.problems.append(Problem(f"{self.name}:{line_of(self.lines, place)}", detail, fix))


@dataclass(slots=True)
class Holds:
    """What is under a legal hold now: *everything*, or what concerns these people (pseudonyms), cases and
    messages. A person's cases, and the people of a message's cases, are held with them.
    """

    everything: bool = False
    people: set[str] = field(default_factory=set)
    cases: set[str] = field(default_factory=set)
    messages: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, connection: sa.Connection) -> "Holds":
        """The holds that are not released: read them in the very transaction that disposes, so that none can
        come between.
        """
        found = cls()
        rows = connection.execute(
            sa.select(legal_hold.c.scope, legal_hold.c.ref).where(legal_hold.c.released == "")
        )
        for scope, ref in rows:
            match scope:
                case "person":
                    found.people.add(ref)
                case "case":
                    found.cases.add(ref)
                case "message":
                    found.messages.add(ref)
                case _:  # all, and whatever a newer hub wrote
                    found.everything = True
        return found

    @property
    def is_any(self) -> bool:
        """Whether there is a hold at all."""
        return self.everything or bool(self.people or self.cases or self.messages)


def marked(connection: sa.Connection, kind: str, refs: set[str], at: str) -> dict[str, str]:
    """Since when each of *refs* is seen in its state, new ones since *at*; forgets those of *kind* that are
    not in it any more. In the caller's transaction.
    """
    rows = connection.execute(
        sa.select(retention_mark.c.ref, retention_mark.c.at).where(retention_mark.c.kind == kind)
    )
    known: dict[str, str] = {row.ref: row.at for row in rows}
    gone = sorted(known.keys() - refs)
    for start in range(0, len(gone), _CHUNK):
        connection.execute(
            sa.delete(retention_mark).where(
                retention_mark.c.kind == kind, retention_mark.c.ref.in_(gone[start : start + _CHUNK])
            )
        )
    new = [{"kind": kind, "ref": ref, "at": at} for ref in sorted(refs - known.keys())]
    if new:
        connection.execute(sa.insert(retention_mark), new)
    return {ref: known.get(ref, at) for ref in refs}
