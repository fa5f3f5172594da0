"""Reading an agency's JSON by declaration.

A `Shape` says for every native field where its value goes and how it is taken, a `Record` which native fields
name the event, a `Format` which records an agency sends. Findings carry native positions (JSON Pointers),
never values; a field nobody has declared is reported, never dropped in silence.
"""

import copy
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from adapters.adapter import Native, Reading, Rejected
from adapters.local import e164
from schemas.clock import NEW_ZEALAND, instant_of, rfc3339
from schemas.errors import HubError, Problem, Unreadable
from schemas.message import Message, decode, new_message

MEDIA_TYPE = "application/json"
BATCH = "batch"  # the field of a file that holds several records
NOTHING: Final = object()  # what a take gives when it has reported a problem, or nothing is left to place
_CLOCK_SKEW = timedelta(minutes=5)  # as the catalogue allows
_LINE = re.compile(r"[^\x00-\x1f]{1,200}")
_TEXT = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f]{1,20000}")
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,39}")
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_ENVELOPE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
_PARTY = re.compile(r"[a-z][a-z0-9.-]{1,59}(#[a-z]{2,12})?")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_ISO_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_NZ_DAY = re.compile(r"(?P<d>[0-9]{1,2})/(?P<m>[0-9]{1,2})/(?P<y>[0-9]{4})")
_FIELD_NAME = re.compile(r"[a-z][A-Za-z]{0,39}")


@dataclass(slots=True)
class Findings:
    """What reading one record found: *refs* maps the sender's label of a person to the message's
    reference."""

    now: datetime
    refs: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unplaced: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class Place:
    """A position in the native input, as a JSON Pointer, with the findings of its record."""

    pointer: str
    findings: Findings

    def step(self, key: str | int) -> "Place":
        """The place of *key* below this one."""
        return Place(f"{self.pointer}/{key}", self.findings)

    def wrong(self, detail: str, fix: str) -> Any:
        """Reports a problem that fails the record; gives nothing."""
        self.findings.problems.append(Problem(self.pointer, detail, fix))
        return NOTHING

    def no_place(self, detail: str, fix: str) -> Any:
        """Reports something the canonical message cannot hold; the record is read without it."""
        self.findings.unplaced.append(Problem(self.pointer, detail, fix))
        return NOTHING


Take = Callable[[Any, Place], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """Where a native value goes. *to* is a dotted path in the canonical object; `[]` at its end appends, `*`
    (alone or as the last step) merges an object that *take* gives."""

    to: str
    take: Take
    required: bool = False


Shape = Mapping[str, Field]


def need(to: str, take: Take) -> Field:
    """A field without which the record cannot be read."""
    return Field(to, take, required=True)


def may(to: str, take: Take) -> Field:
    """A field that may be absent, null or empty: the three mean that nothing was stated."""
    return Field(to, take)


def _put(into: dict[str, Any], to: str, value: Any) -> None:
    *above, last = to.split(".")
    for step in above:
        into = into.setdefault(step, {})
    if last == "*":
        for name, inner in value.items():
            _put(into, name, inner)
    elif last.endswith("[]"):
        into.setdefault(last[:-2], []).append(value)
    else:
        into[last] = value


def _read_object(
    shape: Shape, value: Any, at: Place, into: dict[str, Any], consumed: Iterable[str] = ()
) -> None:
    if not isinstance(value, dict):
        at.wrong("is not an object", "send an object with the fields of docs/formats")
        return
    for number, key in enumerate(value):
        if key not in shape and key not in consumed and value[key] is not None:
            # A key may itself be somebody's name or number; only what looks like a field name is repeated.
            shown = key if _FIELD_NAME.fullmatch(key) else f"(field {number + 1})"
            at.step(shown).no_place("has no place in the message", "leave it out, or agree on a place for it")
    for key, one in shape.items():
        raw = value.get(key)
        if raw is None or raw == "":
            if one.required:
                at.step(key).wrong("is missing", "add it")
            continue
        got = one.take(raw, at.step(key))
        if got is not NOTHING:
            _put(into, one.to, got)


# Takes: how one native value becomes a canonical one.


def line(value: Any, at: Place) -> Any:
    """A text of one line, at most 200 characters."""
    if not isinstance(value, str) or not _LINE.fullmatch(value):
        return at.wrong("is not a text of one line", "send up to 200 characters without line breaks")
    return value


def text(value: Any, at: Place) -> Any:
    """A text of any number of lines, at most 20,000 characters."""
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        return at.wrong("is not a text", "send up to 20000 characters without control characters")
    return value


def flag(value: Any, at: Place) -> Any:
    """true or false; `Y` and `N` are taken too."""
    if isinstance(value, bool):
        return value
    if value in ("Y", "N"):
        return value == "Y"
    return at.wrong("is neither true nor false", "send true or false")


def only_true(value: Any, at: Place) -> Any:
    """A flag of which only `true` says something."""
    return flag(value, at) or NOTHING


def negated(value: Any, at: Place) -> Any:
    """The opposite of a flag."""
    got = flag(value, at)
    return got if got is NOTHING else not got


def whole(low: int, high: int) -> Take:
    """An integer from *low* to *high*."""

    def take(value: Any, at: Place) -> Any:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            return at.wrong("is not a whole number of its range", f"send an integer from {low} to {high}")
        return value

    return take


def fold(word: str) -> str:
    """*word* as codes are compared: without case, macrons, or the difference between space, hyphen, dash,
    slash and underscore."""
    bare = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    return re.sub(r"[\s_/–—-]+", " ", bare).strip().casefold()


def code(*same: str, say: Mapping[str, Any] | None = None, see: str = "") -> Take:
    """A word of a closed list: *same* are canonical codes, *say* maps the sender's words; *see* names a list
    too long to repeat in the fix."""
    words: dict[str, Any] = {**{c: c for c in same}, **(say or {})}
    folded = {fold(word): canonical for word, canonical in words.items()}
    fix = f"use a word of {see}" if see else "use one of: " + ", ".join(words)

    def take(value: Any, at: Place) -> Any:
        if not isinstance(value, str):
            return at.wrong("is not a word of its list", fix)
        if value in words:  # most senders spell as the list does, and folding is slow
            return words[value]
        got = folded.get(fold(value), NOTHING)
        return at.wrong("is not a word of its list", fix) if got is NOTHING else got

    return take


def matching(pattern: re.Pattern[str], detail: str, fix: str) -> Take:
    """A text of the form *pattern*; *detail* and *fix* say what is wrong with any other."""

    def take(value: Any, at: Place) -> Any:
        return value if isinstance(value, str) and pattern.fullmatch(value) else at.wrong(detail, fix)

    return take


local_code = matching(_CODE, "is not a code", "send up to 40 letters, digits, dots, slashes or hyphens")
token = matching(_TOKEN, "is not a reference", "send up to 64 letters, digits, dots, colons or hyphens")
party_id = matching(_PARTY, "is not the id of a party", "use an id of the register of parties")
_case_id = matching(
    _ENVELOPE_ID, "is not a reference of the hub", "repeat the reference exactly as the hub sent it"
)


def _moment(value: Any, at: Place, past: bool) -> Any:
    try:
        moment = instant_of(value) if isinstance(value, str) and _INSTANT.fullmatch(value) else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        return at.wrong("is not a time with its offset", "send YYYY-MM-DDThh:mm:ss with +12:00 or +13:00")
    if past and moment > at.findings.now + _CLOCK_SKEW:
        return at.wrong("lies in the future", "send the time at which it happened")
    return rfc3339(moment)


def instant(value: Any, at: Place) -> Any:
    """A local time with its offset; gives RFC 3339 in UTC."""
    return _moment(value, at, past=False)


def past_instant(value: Any, at: Place) -> Any:
    """The same, not in the future."""
    return _moment(value, at, past=True)


def _calendar(value: Any, at: Place, past: bool) -> Any:
    found = None
    if isinstance(value, str):
        try:
            if _ISO_DAY.fullmatch(value):
                found = date.fromisoformat(value)
            elif match := _NZ_DAY.fullmatch(value):
                found = date(int(match["y"]), int(match["m"]), int(match["d"]))
        except ValueError:
            found = None
    if found is None:
        return at.wrong("is not a date", "send YYYY-MM-DD (or DD/MM/YYYY)")
    if past and found > at.findings.now.astimezone(NEW_ZEALAND).date():
        return at.wrong("lies in the future", "send the date at which it happened")
    return found.isoformat()


def day(value: Any, at: Place) -> Any:
    """A calendar date, as YYYY-MM-DD or, as New Zealand writes it, DD/MM/YYYY."""
    return _calendar(value, at, past=False)


def past_day(value: Any, at: Place) -> Any:
    """The same, not in the future."""
    return _calendar(value, at, past=True)


def phone_number(value: Any, at: Place) -> Any:
    """A telephone number as people write it; gives E.164. A number without a country is a New Zealand one."""
    number = e164(value) if isinstance(value, str) else None
    return number or at.wrong("is not a telephone number", "send it with its area code, or + and the country")


def ref(value: Any, at: Place) -> Any:
    """The sender's label of a person of the same record; gives the message's reference."""
    found = (
        at.findings.refs.get(str(value))
        if isinstance(value, str | int) and not isinstance(value, bool)
        else None
    )
    return found or at.wrong("points at nobody", "use the label of a person of this record")


def identifier(system: str, pattern: str = _CODE.pattern) -> Take:
    """An identifier that *system* issues, of the form *pattern*; a whole number is taken as its digits."""
    form = re.compile(pattern)

    def take(value: Any, at: Place) -> Any:
        written = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(written, str) or not form.fullmatch(written):
            return at.wrong("is not an identifier of its kind", "send it as the issuing system shows it")
        return {"system": system, "value": written}

    return take


def never(detail: str, fix: str) -> Take:
    """A field that the hub does not carry, on purpose: it is reported with the reason."""
    return lambda _, at: at.no_place(detail, fix)


def each(take: Take, most: int, least: int = 0) -> Take:
    """A list of at least *least* and at most *most* values."""

    def taken(value: Any, at: Place) -> Any:
        if not isinstance(value, list):
            return at.wrong("is not a list", "send a list")
        if not least <= len(value) <= most:
            return at.wrong("has too few or too many entries", f"send {least} to {most}")
        return [got for i, one in enumerate(value) if (got := take(one, at.step(i))) is not NOTHING]

    return taken


def within(shape: Shape, finish: Callable[[dict[str, Any]], None] | None = None) -> Take:
    """An object of *shape*; *finish* adds what follows from it."""

    def take(value: Any, at: Place) -> Any:
        found: dict[str, Any] = {}
        _read_object(shape, value, at, found)
        if finish and found:
            finish(found)
        return found or NOTHING

    return take


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
        record = self.records.get(stated) if isinstance(stated, str) else None
        if record is None:
            fix = "use one of: " + ", ".join(self.records)
            raise _unreadable(Problem(f"{pointer}/{self.kind}", "does not name a kind of record", fix))
        findings = Findings(into.now)
        head = _head(record, value, Place(pointer, findings), self.kind)
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
                whole_event = _entry(record, head, one, where)
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


def _head(record: Record, value: dict[str, Any], at: Place, kind: str) -> _Head:
    _label(record, value, at)
    names: dict[str, Any] = {}
    naming = {
        **{k: need(f"key{i}", _key_part) for i, k in enumerate(record.key)},
        record.at: need("at", past_instant),
        "case": may("case", _case_id),
        "answers": may("answers", _case_id),
    }
    _read_object(naming, value, at, names, consumed=value)
    data: dict[str, Any] = {}
    for path, fixed in record.fixed.items():
        _put(data, path, fixed)
    _read_object(record.fields, value, at, data, consumed={kind, record.split, *naming})
    if at.findings.problems:
        raise _unreadable(*at.findings.problems)
    key = [names[f"key{i}"] for i in range(len(record.key))]
    return _Head(data, key, names["at"], names.get("case"), names.get("answers"))


def _entry(record: Record, head: _Head, value: Any, at: Place) -> _Head:
    if not isinstance(value, dict):
        raise _unreadable(
            Problem(at.pointer, "is not an object", "send an object with the fields of docs/formats")
        )
    _label(record, value, at)
    names: dict[str, Any] = {}
    naming = {
        **{k: need(f"key{i}", _key_part) for i, k in enumerate(record.entry_key)},
        "case": may("case", _case_id),
        "answers": may("answers", _case_id),
    }
    _read_object(naming, value, at, names, consumed=value)
    data = copy.deepcopy(head.data)
    _read_object(record.entry, value, at, data, consumed=naming)
    if at.findings.problems:
        raise _unreadable(*at.findings.problems)
    key = head.key + [names[f"key{i}"] for i in range(len(record.entry_key))]
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
