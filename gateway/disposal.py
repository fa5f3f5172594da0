"""Retention: disposing of what is due, and holding what must be kept.

Each class goes in parts of some hundred; a part's removal and the entry that says so are one transaction, so
a crash leaves whole parts, and a repetition goes on from there. Legal holds are read in that same
transaction. Only dead letters lie elsewhere (with the broker): their entry comes first, with a note of what
is still to be taken out.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from broker.outbox import inbox
from consent import inputs, recalls
from consent.case import Case
from consent.entry import DECISION_KINDS, RETENTION
from consent.ledger import Entry, ledger_entry
from consent.people import person_identifier, person_key
from consent.placing import case_person, case_table
from consent.referral import OPEN
from consent.retention import (
    CASES,
    DEAD_LETTERS,
    DECISION_INPUTS,
    INBOX,
    PEOPLE,
    Holds,
    RetentionClass,
    disposal_due,
    legal_hold,
    marked,
    retention_mark,
)
from consent.subjects import Subjects, commitment
from consent.waiting import referral
from gateway.access import Viewer
from gateway.due import CALENDARS
from gateway.hub import Hub
from schemas.clock import NEW_ZEALAND, rfc3339
from schemas.database import in_sequence
from schemas.errors import NotFound
from schemas.message import identity

PART = 400  # rows in one transaction, below every limit on bound parameters
_LETTERS = 10_000
DECIDING_DAYS = 20  # working days to decide on a request (Privacy Act 2020, sections 44 and 65)


@dataclass(slots=True)
class Disposed:
    """What became of one class: how many were *due*, *disposed* of, *held* by a legal hold, kept as *care*
    records, or *busy* in something unfinished. Without an authority in force nothing is disposed.
    """

    rule: RetentionClass
    until: str
    due: int = 0
    disposed: int = 0
    held: int = 0
    care: int = 0
    busy: int = 0

    def as_json(self) -> dict[str, object]:
        """For a program."""
        return {
            "class": self.rule.id,
            "what": self.rule.what,
            "keep_days": self.rule.days,
            "from": self.rule.since,
            "authority": self.rule.authority.id,
            "in_force": self.rule.authority.in_force,
            "until": self.until,
            "due": self.due,
            "disposed": self.disposed,
            "held": self.held,
            "care": self.care,
            "busy": self.busy,
        }


class _Part(NamedTuple):
    """Some candidates of a class, and how to remove those that may go; *said* is added to their entry."""

    keys: Sequence[Any]
    verdict: Callable[[Any], str]  # "" to dispose of it, else held, care or busy
    remove: Callable[[sa.Connection, Sequence[Any]], Mapping[str, Any]]


class Disposal:
    """Disposes of what is due in *hub* by *rules*, on behalf of *viewer*."""

    def __init__(self, hub: Hub, rules: Mapping[str, RetentionClass], viewer: Viewer) -> None:
        self._hub, self._rules, self._viewer = hub, rules, viewer
        self._parts: Mapping[str, Callable[[sa.Connection, Any, str, _Held], _Part | None]] = {
            DECISION_INPUTS: self._inputs,
            DEAD_LETTERS: self._letters,
            INBOX: self._inbox,
            CASES: self._cases,
            PEOPLE: self._people,
        }

    def run(
        self, only: str | None = None, *, dry: bool = False, progress: Callable[[str], None] = lambda _: None
    ) -> list[Disposed]:
        """Disposes of each class, or of *only* one, and says what became of it; *dry*: only counts.

        Safe to repeat, and to break off anywhere. What the hub itself is not allowed to delete (in
        PostgreSQL, where a role of its own does this) ends with the database's error.
        """
        if not dry:
            self.take_out()
        return [self._class(rule, dry, progress) for rule in self._rules.values() if only in (None, rule.id)]

    def take_out(self) -> int:
        """Takes those dead letters out of the broker whose disposal is in the ledger; returns how many."""
        with self._hub.engine.begin() as connection:
            numbers = list(connection.execute(sa.select(disposal_due.c.letter)).scalars())
        for number in numbers:
            self._hub.broker.take_dead_letter(number)  # gone already: nothing
            # ‖ It is out. A crash here comes back to it, and finds nothing to take.
            with self._hub.engine.begin() as connection:
                connection.execute(sa.delete(disposal_due).where(disposal_due.c.letter == number))
        return len(numbers)

    def _class(self, rule: RetentionClass, dry: bool, progress: Callable[[str], None]) -> Disposed:
        now = self._hub.clock()
        found = Disposed(rule, rfc3339(rule.until(now)))
        after: Any = None
        while True:
            with self._transaction(dry) as connection:
                held = _Held.read(connection)
                part = self._parts[rule.id](connection, after, found.until, held)
                if part is None or not part.keys:
                    break
                after = part.keys[-1]
                self._dispose(connection, part, found, dry)
            # ‖ The part and its entry are durable, or neither. A crash here leaves the rest for the next run.
            progress(rule.id)
            if rule.id == DEAD_LETTERS:
                if not dry:
                    self.take_out()
                break  # all there are were looked at at once
        return found

    @contextmanager
    def _transaction(self, dry: bool) -> Iterator[sa.Connection]:
        with self._hub.engine.connect() as connection, connection.begin() as transaction:
            in_sequence(connection)  # no batch may be working with a case that goes, no hold come between
            yield connection
            if dry:
                transaction.rollback()

    def _dispose(self, connection: sa.Connection, part: _Part, found: Disposed, dry: bool) -> None:
        going = []
        kept = {"held": 0, "care": 0, "busy": 0}
        for key in part.keys:
            verdict = part.verdict(key)
            if verdict:
                kept[verdict] += 1
            else:
                going.append(key)
        found.due += len(part.keys)
        found.held, found.care, found.busy = (
            found.held + kept["held"],
            found.care + kept["care"],
            found.busy + kept["busy"],
        )
        if dry or not going or not found.rule.authority.in_force:
            return
        said = part.remove(connection, going)
        found.disposed += len(going)
        entry = self._entry(
            "disposed",
            {
                "class": found.rule.id,
                "count": len(going),
                "until": found.until,
                "authority": found.rule.authority.id,
                **said,
            },
        )
        self._hub.ledger.append(connection, [entry])

    def _entry(self, act: str, more: Mapping[str, Any], message: str = "") -> Entry:
        return retention_entry(self._hub, self._viewer, act, more, message)

    def _inputs(self, connection: sa.Connection, after: Any, until: str, held: "_Held") -> _Part:
        care = self._rules[DECISION_INPUTS].keeps_care_records
        rows = dict(inputs.older(connection, until, -1 if after is None else after, PART))

        def verdict(number: int) -> str:
            asked = rows[number]
            question = asked.question
            cases = {case.id for case in (*question.cases, *question.elsewhere)}
            if held.has(asked.message, cases, question.pseudonyms.values()):
                return "held"
            return "care" if care and any(_is_care_record(case) for case in question.cases) else ""

        def remove(connection: sa.Connection, numbers: Sequence[int]) -> Mapping[str, Any]:
            inputs.forget(connection, numbers)
            gone = [rows[number] for number in numbers]
            cases = {case.id for asked in gone for case in asked.question.cases}
            recalls.forget(connection, cases, [asked.message for asked in gone])
            return {"numbers": [numbers[0], numbers[-1]]}

        return _Part(list(rows), verdict, remove)

    def _inbox(self, connection: sa.Connection, after: Any, until: str, held: "_Held") -> _Part:
        query = sa.select(inbox.c.source, inbox.c.message).where(inbox.c.at <= until)
        if after is not None:
            source, message = after
            query = query.where(
                sa.or_(
                    inbox.c.source > source,
                    sa.and_(inbox.c.source == source, inbox.c.message > message),
                )
            )
        keys = [
            (row.source, row.message)
            for row in connection.execute(query.order_by(inbox.c.source, inbox.c.message).limit(PART))
        ]
        cases = _cases_of(connection, {message for _, message in keys}) if held.is_any else {}

        def verdict(key: tuple[str, str]) -> str:
            if not held.is_any:
                return ""
            # Nobody can tell whom a message was about on which nothing was decided.
            known = cases.get(key[1])
            return "held" if known is None or held.has(key[1], known) else ""

        def remove(connection: sa.Connection, going: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
            for source in sorted({source for source, _ in going}):
                messages = [message for s, message in going if s == source]
                connection.execute(
                    sa.delete(inbox).where(inbox.c.source == source, inbox.c.message.in_(messages))
                )
            return {}

        return _Part(keys, verdict, remove)

    def _letters(self, connection: sa.Connection, _after: Any, until: str, held: "_Held") -> _Part:
        letters = {d.number: d for d in self._hub.broker.dead_letters(limit=_LETTERS) if d.at <= until}
        waiting = set(connection.execute(sa.select(disposal_due.c.letter)).scalars())
        indices = {
            number: int(d.headers["entry"])
            for number, d in letters.items()
            if d.headers.get("entry", "").isdecimal()
        }
        released = _messages_at(connection, set(indices.values())) if held.is_any else {}

        def verdict(number: str) -> str:
            if not held.is_any:
                return ""
            # What was never decided on may be about anybody.
            known = released.get(indices.get(number, -1))
            return "held" if known is None or held.has(*known) else ""

        def remove(connection: sa.Connection, going: Sequence[str]) -> Mapping[str, Any]:
            at = rfc3339(self._hub.clock())
            connection.execute(sa.insert(disposal_due), [{"letter": n, "at": at} for n in going])
            return {}

        return _Part([n for n in letters if n not in waiting], verdict, remove)

    def _cases(self, connection: sa.Connection, after: Any, until: str, held: "_Held") -> _Part | None:
        keep_care = self._rules[CASES].keeps_care_records
        if after is None:
            # ‖ From here the period of a case counts that is seen closed for the first time.
            marked(connection, CASES, _closed(connection), rfc3339(self._hub.clock()))
        query = (
            sa.select(retention_mark.c.ref, case_table.c.facts)
            .join(case_table, case_table.c.id == retention_mark.c.ref)
            .where(retention_mark.c.kind == CASES, retention_mark.c.at <= until)
            .order_by(retention_mark.c.ref)
            .limit(PART)
        )
        if after is not None:
            query = query.where(retention_mark.c.ref > after)
        cases = {id: Case.from_json(id, orjson.loads(facts)) for id, facts in connection.execute(query)}
        busy = _busy_cases(connection)

        def verdict(id: str) -> str:
            case = cases[id]
            if held.has("", {id}, case.people):
                return "held"
            if keep_care and _is_care_record(case):
                return "care"
            return "busy" if case.open or id in busy else ""

        def remove(connection: sa.Connection, going: Sequence[str]) -> Mapping[str, Any]:
            connection.execute(sa.delete(case_person).where(case_person.c.case_id.in_(going)))
            connection.execute(sa.delete(case_table).where(case_table.c.id.in_(going)))
            connection.execute(
                sa.delete(retention_mark).where(
                    retention_mark.c.kind == CASES, retention_mark.c.ref.in_(going)
                )
            )
            return {"cases": list(going)}

        return _Part(list(cases), verdict, remove)

    def _people(self, connection: sa.Connection, after: Any, until: str, held: "_Held") -> _Part:
        if after is None:
            marked(connection, PEOPLE, _without_case(connection), rfc3339(self._hub.clock()))
        query = (
            sa.select(retention_mark.c.ref)
            .where(retention_mark.c.kind == PEOPLE, retention_mark.c.at <= until)
            .order_by(retention_mark.c.ref)
            .limit(PART)
        )
        if after is not None:
            query = query.where(retention_mark.c.ref > after)
        people = list(connection.execute(query).scalars())

        def verdict(pseudonym: str) -> str:
            # Whom a held message or a case that is gone was about, only the commitments know.
            return "held" if held.has("", (), [pseudonym]) or held.messages else ""

        def remove(connection: sa.Connection, going: Sequence[str]) -> Mapping[str, Any]:
            self.erase(connection, going)
            return {}

        return _Part(people, verdict, remove)

    def erase(self, connection: sa.Connection, pseudonyms: Sequence[str]) -> None:
        """Forgets how *pseudonyms* are recognised, and their identifiers, and destroys the keys of their
        commitments, in the caller's transaction: the entries stand and open for nobody.
        """
        subjects = Subjects(self._hub.keys)
        for pseudonym in pseudonyms:
            subjects.destroy(connection, pseudonym)
        for table in (person_key, person_identifier):
            connection.execute(sa.delete(table).where(table.c.pseudonym.in_(pseudonyms)))
        connection.execute(
            sa.delete(retention_mark).where(
                retention_mark.c.kind == PEOPLE, retention_mark.c.ref.in_(pseudonyms)
            )
        )


@dataclass(slots=True)
class _Held:
    """What is under a hold, with the cases that a held person or message belongs to."""

    everything: bool
    people: set[str]
    cases: set[str]
    messages: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, connection: sa.Connection) -> "_Held":
        holds = Holds.read(connection)
        cases = set(holds.cases)
        people = sorted(holds.people)
        for start in range(0, len(people), PART):
            query = sa.select(case_person.c.case_id).where(
                case_person.c.pseudonym.in_(people[start : start + PART])
            )
            cases.update(connection.execute(query).scalars())
        for found in _cases_of(connection, holds.messages).values():
            cases |= found
        return cls(holds.everything, holds.people, cases, holds.messages)

    @property
    def is_any(self) -> bool:
        return self.everything or bool(self.people or self.cases or self.messages)

    def has(self, message: str, cases: Iterable[str] = (), people: Iterable[str] = ()) -> bool:
        """Whether what concerns *message*, *cases* and *people* must be kept."""
        return (
            self.everything
            or message in self.messages
            or not self.cases.isdisjoint(cases)
            or not self.people.isdisjoint(people)
        )


def hold(
    hub: Hub, viewer: Viewer, reason: str, scope: str, ref: str, reference: str
) -> tuple[str, datetime | None]:
    """Puts what concerns *ref* (a pseudonym, case or message, "" for *scope* all) under a legal hold for
    *reason* until it is released; returns its id, and when a request is to be decided (end of the working day
    in New Zealand, as an instant).
    """
    now = hub.clock()
    due = None
    if reason in ("access-request", "correction-request"):
        day = CALENDARS["privacy-act-2020"].after(now.astimezone(NEW_ZEALAND).date(), DECIDING_DAYS)
        due = datetime.combine(day, datetime.min.time(), NEW_ZEALAND) + timedelta(hours=17)
    id = identity("hub", f"hold\n{rfc3339(now)}\n{os.urandom(16).hex()}")
    said: dict[str, Any] = {"hold": id, "reason": reason, "reference": reference, "scope": scope}
    if scope == "case":
        said["cases"] = [ref]
    row = {
        "id": id,
        "reason": reason,
        "reference": reference,
        "scope": scope,
        "ref": ref,
        "at": rfc3339(now),
        "due": rfc3339(due) if due else "",
        "released": "",
    }
    with hub.engine.begin() as connection:
        in_sequence(connection)  # a disposal that runs now ends before, or sees the hold
        if scope == "person":
            key = Subjects(hub.keys).made_for(connection, [ref])[ref]
            said["subjects"] = [["held", commitment(key, "hub", id, ref)]]
        entry = retention_entry(hub, viewer, "held", said, ref if scope == "message" else "")
        connection.execute(sa.insert(legal_hold), [row])
        hub.ledger.append(connection, [entry])
    # ‖ The hold and its entry are durable together.
    return id, due


def release(hub: Hub, viewer: Viewer, id: str) -> None:
    """Ends the hold *id*. Raises `NotFound` when there is none, or it was released before."""
    with hub.engine.begin() as connection:
        in_sequence(connection)
        result = connection.execute(
            sa.update(legal_hold)
            .where(legal_hold.c.id == id, legal_hold.c.released == "")
            .values(released=rfc3339(hub.clock()))
        )
        if result.rowcount != 1:
            raise NotFound("there is no such hold, or it was released before")
        hub.ledger.append(connection, [retention_entry(hub, viewer, "released", {"hold": id})])


def holds(hub: Hub) -> list[dict[str, str]]:
    """The holds that are not released, the oldest first; whom they concern stays in the database."""
    columns = ("id", "reason", "reference", "scope", "at", "due")
    query = (
        sa.select(*(legal_hold.c[name] for name in columns))
        .where(legal_hold.c.released == "")
        .order_by(legal_hold.c.at, legal_hold.c.id)
    )
    with hub.engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def retention_entry(hub: Hub, viewer: Viewer, act: str, more: Mapping[str, Any], message: str = "") -> Entry:
    """The entry for an *act* of retention: disposed, held or released."""
    at = rfc3339(hub.clock())
    body = {
        "v": 1,
        "kind": RETENTION,
        "act": act,
        "at": at,
        "source": "hub",
        "message": message,
        "party": viewer.party,
        "officer": viewer.officer,
        **more,
        # Without it an entry could be guessed and tried against the public leaf hashes.
        "salt": hashlib.sha256(hub.keys.salt("entry", RETENTION, act, at, orjson.dumps(dict(more)).decode()))
        .digest()[:16]
        .hex(),
    }
    return Entry(RETENTION, "hub", message, viewer.party, body)


def _is_care_record(case: Case) -> bool:
    """Whether *case* is about a child, or Oranga Tamariki works in it beyond its seat at the table."""
    return any("child" in person.roles for person in case.people.values()) or any(
        party.partition("#")[0] == "oranga-tamariki" and service != "table"
        for party, _, service in case.assignments
    )


def _closed(connection: sa.Connection) -> set[str]:
    rows = connection.execution_options(yield_per=1000).execute(
        sa.select(case_table.c.id, case_table.c.facts)
    )
    return {id for id, facts in rows if not orjson.loads(facts)["open"]}


def _without_case(connection: sa.Connection) -> set[str]:
    query = (
        sa.select(person_key.c.pseudonym)
        .distinct()
        .where(~sa.exists().where(case_person.c.pseudonym == person_key.c.pseudonym))
    )
    return set(connection.execute(query).scalars())


def _busy_cases(connection: sa.Connection) -> set[str]:
    """The cases in which a person of a holder agency still has to decide."""
    query = sa.select(referral.c.cases).where(referral.c.state.in_([state.value for state in OPEN]))
    return {case for cases in connection.execute(query).scalars() for case in orjson.loads(cases)}


def _cases_of(connection: sa.Connection, messages: Iterable[str]) -> dict[str, set[str]]:
    """message → the cases that its decisions name; messages without a decision are missing."""
    found: dict[str, set[str]] = {}
    wanted = sorted(messages)
    for start in range(0, len(wanted), PART):
        query = sa.select(ledger_entry.c.message, ledger_entry.c.entry).where(
            ledger_entry.c.message.in_(wanted[start : start + PART]), ledger_entry.c.kind.in_(DECISION_KINDS)
        )
        for message, entry in connection.execute(query):
            found.setdefault(message, set()).update(orjson.loads(bytes(entry))["cases"])
    return found


def _messages_at(connection: sa.Connection, indices: Iterable[int]) -> dict[int, tuple[str, set[str]]]:
    """index → (message, cases) of the entries at *indices*."""
    found: dict[int, tuple[str, set[str]]] = {}
    wanted = sorted(indices)
    for start in range(0, len(wanted), PART):
        query = sa.select(ledger_entry.c.idx, ledger_entry.c.message, ledger_entry.c.entry).where(
            ledger_entry.c.idx.in_(wanted[start : start + PART])
        )
        for index, message, entry in connection.execute(query):
            found[index] = (message, set(orjson.loads(bytes(entry)).get("cases", ())))
    return found
