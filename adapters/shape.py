"""Reading an agency's JSON by declaration.

A `Shape` says for every native field where its value goes and how it is taken; `adapters.record` says what a
file of such objects is. Findings carry native positions (JSON Pointers), never values; a field nobody has
declared is reported, never dropped in silence.
"""

import re
import unicodedata
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from adapters.local import e164
from schemas.clock import NEW_ZEALAND, instant_of, rfc3339
from schemas.errors import Problem

NOTHING: Final = object()  # what a take gives when it has reported a problem, or nothing is left to place
_SPELLINGS = 50  # of words that a list does not spell so, remembered a list
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


class Place:
    """A position in the native input, with the findings of its record. Its JSON Pointer is spelt only when
    something is to be said of it. Whoever reads several values in turn moves one place along, by its *key*.
    """

    __slots__ = ("_above", "findings", "key")

    def __init__(self, key: str | int, findings: Findings, above: "Place | None" = None) -> None:
        self.key = key  # the whole pointer, where there is nothing above
        self.findings = findings
        self._above = above

    @property
    def pointer(self) -> str:
        """Where it is."""
        return f"{self._above.pointer}/{self.key}" if self._above else str(self.key)

    def step(self, key: str | int) -> "Place":
        """The place of *key* below this one."""
        return Place(key, self.findings, self)

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


def way(to: str) -> Callable[[dict[str, Any], Any], None]:
    """What puts a value where the dotted path *to* leads."""
    *above, last = to.split(".")
    named = last.removesuffix("[]")

    def put(into: dict[str, Any], value: Any) -> None:
        for step in above:
            into = into.setdefault(step, {})
        if last == "*":
            for name, inner in value.items():
                way(name)(into, inner)
        elif named != last:
            into.setdefault(named, []).append(value)
        else:
            into[last] = value

    return put


class Reader:
    """Reads objects of *shape*; other fields than its own and those *beside* it are reported (none, when
    *beside* is None)."""

    __slots__ = ("_fields", "_known")

    def __init__(self, shape: Shape, beside: Iterable[str] | None = ()) -> None:
        self._known = None if beside is None else {*shape, *beside}
        self._fields = [
            (key, one.take, one.required, one.to if one.to.isalnum() else "", way(one.to))
            for key, one in shape.items()
        ]

    def read(self, value: Any, at: Place, into: dict[str, Any]) -> None:
        """Puts what *value*, at the place *at*, says *into* the canonical object."""
        if not isinstance(value, dict):
            at.wrong("is not an object", "send an object with the fields of docs/formats")
            return
        if self._known is not None and not value.keys() <= self._known:
            _report_others(self._known, value, at)
        here = Place("", at.findings, at)
        for key, take, required, plain, put in self._fields:
            raw = value.get(key)
            if raw is None or raw == "":
                if required:
                    at.step(key).wrong("is missing", "add it")
                continue
            here.key = key
            got = take(raw, here)
            if got is NOTHING:
                continue
            if plain:
                into[plain] = got
            else:
                put(into, got)


def _report_others(known: Container[str], value: dict[str, Any], at: Place) -> None:
    for number, key in enumerate(value):
        if key not in known and value[key] is not None:
            # A key may itself be somebody's name or number; only what looks like a field name is repeated.
            shown = key if _FIELD_NAME.fullmatch(key) else f"(field {number + 1})"
            at.step(shown).no_place("has no place in the message", "leave it out, or agree on a place for it")


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
    most = len(words) + _SPELLINGS

    def take(value: Any, at: Place) -> Any:
        if not isinstance(value, str):
            return at.wrong("is not a word of its list", fix)
        if value in words:  # most senders spell as the list does, and folding is slow
            return words[value]
        got = folded.get(fold(value), NOTHING)
        if got is NOTHING:
            return at.wrong("is not a word of its list", fix)
        if len(words) < most:
            words[value] = got  # senders repeat their own spelling
        return got

    return take


def matching(pattern: re.Pattern[str], detail: str, fix: str) -> Take:
    """A text of the form *pattern*; *detail* and *fix* say what is wrong with any other."""

    def take(value: Any, at: Place) -> Any:
        return value if isinstance(value, str) and pattern.fullmatch(value) else at.wrong(detail, fix)

    return take


local_code = matching(_CODE, "is not a code", "send up to 40 letters, digits, dots, slashes or hyphens")
token = matching(_TOKEN, "is not a reference", "send up to 64 letters, digits, dots, colons or hyphens")
party_id = matching(_PARTY, "is not the id of a party", "use an id of the register of parties")
case_id = matching(
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
        here, found = Place(0, at.findings, at), []
        for i, one in enumerate(value):
            here.key = i
            if (got := take(one, here)) is not NOTHING:
                found.append(got)
        return found

    return taken


def within(shape: Shape, finish: Callable[[dict[str, Any]], None] | None = None) -> Take:
    """An object of *shape*; *finish* adds what follows from it."""
    reader = Reader(shape)

    def take(value: Any, at: Place) -> Any:
        found: dict[str, Any] = {}
        reader.read(value, at, found)
        if finish and found:
            finish(found)
        return found or NOTHING

    return take
