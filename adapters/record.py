"""What an agency's JSON file is: a `Record` says which native fields name the event and what shape the others
have, a `Format` which records an agency sends.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from adapters.adapter import Native, Reading, Rejected
from adapters.shape import Field, Findings, Place, Reader, Shape, case_id, may, need, past_instant, token, way
from schemas.clock import instant_of
from schemas.errors import HubError, Problem, Unreadable
from schemas.message import Message, decode, new_message

MEDIA_TYPE = "application/json"
BATCH = "batch"  # the field of a file that holds several records


@dataclass(frozen=True, slots=True)
class Record:
    """One kind of native record. *key* are the native fields that name the event and its revision (never a
    person's number), *at* the one that says when it was recorded, *people* the list of people and the field
    of each that labels them, *fixed* what the format implies.

    With *split*, the native list of that name holds several events: each entry of shape *entry*, named by
    *entry_key*, gives a message that also holds the record's own fields.
    """

    event: str
    fields: Shape
    key: tuple[str, ...]
    at: str
    people: tuple[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[dict[str, Any]], None] | None = None
    split: str = ""
    entry: Shape = field(default_factory=dict)
    entry_key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """An agency's JSON: the field *kind* says which of *records* a file holds; a file `{"batch": [...]}`
    holds several."""

    kind: str
    records: Mapping[str, Record]
    _readers: dict[str, "_RecordReader"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        readers = {name: _RecordReader(record, self.kind) for name, record in self.records.items()}
        object.__setattr__(self, "_readers", readers)

    def read(self, native: Native, party: str, now: datetime) -> Reading:
        """The messages in *native*, sent by *party*. One bad record of a batch, or entry of a record that is
        split, is rejected alone.

        Raises:
            Unreadable: nothing can be read; problems name native positions.
            HubError: the bytes are no JSON, or too large.
        """
        content = decode(native.content)
        reading = _Gathered(party, now)
        if isinstance(content, dict) and BATCH in content:
            records = content[BATCH]
            if not isinstance(records, list):
                raise Unreadable(
                    "the file is not readable",
                    Problem(f"/{BATCH}", "is not a list", "send a list of records"),
                )
            for number, key in enumerate(content):
                if key != BATCH:
                    reading.unplaced.append(
                        Problem(
                            f"/(field {number + 1})", "has no place beside a batch", "put it into the records"
                        )
                    )
            for i, one in enumerate(records):
                try:
                    self._read(one, f"/{BATCH}/{i}", reading)
                except HubError as error:
                    reading.rejected.append(Rejected(_native(one, f"record-{i + 1}.json"), error))
        else:
            self._read(content, "", reading)
        return Reading(list(reading.messages.values()), reading.rejected, reading.unplaced)

    def _read(self, value: Any, pointer: str, into: "_Gathered") -> None:
        if not isinstance(value, dict):
            raise _unreadable(
                Problem(pointer, "is not an object", "send an object with the fields of docs/formats")
            )
        stated = value.get(self.kind)
        reader = self._readers.get(stated) if isinstance(stated, str) else None
        if reader is None:
            fix = "use one of: " + ", ".join(self.records)
            raise _unreadable(Problem(f"{pointer}/{self.kind}", "does not name a kind of record", fix))
        record, findings = reader.record, Findings(into.now)
        head = reader.head(value, Place(pointer, findings))
        if not record.split:
            into.add(head.message(record, into.party), pointer, findings)
            return
        into.unplaced.extend(findings.unplaced)
        entries = value.get(record.split)
        if not isinstance(entries, list):
            raise _unreadable(
                Problem(
                    f"{pointer}/{record.split}", "is not a list", "send a list, empty when there is nothing"
                )
            )
        for i, one in enumerate(entries):
            where = Place(f"{pointer}/{record.split}/{i}", Findings(into.now, dict(findings.refs)))
            try:
                whole_event = reader.entry(head, one, where)
                into.add(whole_event.message(record, into.party), where.pointer, where.findings)
            except HubError as error:
                again = _native({**value, record.split: [one]}, f"{record.split}-{i + 1}.json")
                into.rejected.append(Rejected(again, error))


@dataclass(slots=True)
class _Gathered:
    """What has been read of a file so far; a message is kept by id, so that a repetition inside the file has
    one effect."""

    party: str
    now: datetime
    messages: dict[str, Message] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    unplaced: list[Problem] = field(default_factory=list)

    def add(self, message: Message, pointer: str, findings: Findings) -> None:
        """Keeps *message*, read at *pointer*. Raises `Unreadable` when another one of the file has the same
        key and says something else."""
        earlier = self.messages.get(message.id)
        if earlier is not None and earlier.body_digest() != message.body_digest():
            fix = "give every event, and every revision of it, a name of its own"
            raise _unreadable(
                Problem(pointer, "has the key of an earlier record but says something else", fix)
            )
        self.messages.setdefault(message.id, message)
        self.unplaced.extend(findings.unplaced)


@dataclass(slots=True)
class _Head:
    """A record while it is read: its *data* so far, what it calls the event, and what goes into the
    envelope."""

    data: dict[str, Any]
    key: list[str]
    at: str
    case: str | None
    answers: str | None

    def message(self, record: Record, party: str) -> Message:
        """The canonical message."""
        if record.finish:
            record.finish(self.data)
        at = instant_of(self.at)
        return new_message(
            party, record.event, self.data, key="/".join(self.key), at=at, case=self.case, cause=self.answers
        )


def _key_part(value: Any, at: Place) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    return token(value, at)


_ENVELOPE = {"case": may("case", case_id), "answers": may("answers", case_id)}


def _naming(key: tuple[str, ...]) -> dict[str, Field]:
    return {k: need(f"key{i}", _key_part) for i, k in enumerate(key)}


class _RecordReader:
    """Reads records of one kind, in a format whose field *kind* says so."""

    __slots__ = ("_entry", "_entry_names", "_fields", "_names", "record")

    def __init__(self, record: Record, kind: str) -> None:
        self.record = record
        names = {**_naming(record.key), record.at: need("at", past_instant), **_ENVELOPE}
        self._names = Reader(names, None)
        self._fields = Reader(record.fields, {kind, record.split, *names})
        names = {**_naming(record.entry_key), **_ENVELOPE}
        self._entry_names = Reader(names, None)
        self._entry = Reader(record.entry, names)

    def head(self, value: dict[str, Any], at: Place) -> _Head:
        """What *value* says but for the entries that it is split into. Raises `Unreadable`."""
        record = self.record
        _label(record, value, at)
        names: dict[str, Any] = {}
        self._names.read(value, at, names)
        data: dict[str, Any] = {}
        for path, fixed in record.fixed.items():
            way(path)(data, fixed)
        self._fields.read(value, at, data)
        if at.findings.problems:
            raise _unreadable(*at.findings.problems)
        key = [names[f"key{i}"] for i in range(len(record.key))]
        return _Head(data, key, names["at"], names.get("case"), names.get("answers"))

    def entry(self, head: _Head, value: Any, at: Place) -> _Head:
        """What the entry *value* says, with what its record's *head* says. Raises `Unreadable`."""
        if not isinstance(value, dict):
            raise _unreadable(
                Problem(at.pointer, "is not an object", "send an object with the fields of docs/formats")
            )
        _label(self.record, value, at)
        names: dict[str, Any] = {}
        self._entry_names.read(value, at, names)
        data = copy.deepcopy(head.data)
        self._entry.read(value, at, data)
        if at.findings.problems:
            raise _unreadable(*at.findings.problems)
        key = head.key + [names[f"key{i}"] for i in range(len(self.record.entry_key))]
        return _Head(data, key, head.at, names.get("case", head.case), names.get("answers", head.answers))


def _label(record: Record, value: dict[str, Any], at: Place) -> None:
    """Numbers the people of *value* p1, p2 … by their labels before anything refers to them."""
    listed, label = record.people
    people = value.get(listed)
    if not isinstance(people, list):
        return  # when the list is required, its field says so
    for i, person in enumerate(people):
        called = person.get(label) if isinstance(person, dict) else None
        if isinstance(called, bool) or not isinstance(called, str | int) or called == "":
            continue  # the person's own fields say so
        if str(called) in at.findings.refs:
            at.step(listed).step(i).step(label).wrong(
                "is used twice", "label every person of the record differently"
            )
        at.findings.refs[str(called)] = f"p{i + 1}"


def _unreadable(*problems: Problem) -> Unreadable:
    # A field that names the event is read twice, as a key and as what it is: the second says more.
    once = {problem.pointer: problem for problem in problems}
    return Unreadable("the record cannot be read as the agency's format", *once.values())


def _native(value: Any, named: str) -> Native:
    # Escaped to ASCII, so that even what was rejected for its text can be sent again unchanged.
    return Native(json.dumps(value).encode("ascii"), MEDIA_TYPE, named)
