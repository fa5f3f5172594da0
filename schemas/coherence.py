"""What JSON Schema cannot say of a message: references point at its people, an NHI number has its check
character, and what is past does not lie in the future.

`Rules` are made once of a type's schema, from `x-person-ref`, `x-not-future` and what has the shape of an
identifier, and visit only the places where such a value may stand. The data must meet the schema.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from schemas.clock import NEW_ZEALAND, instant_of
from schemas.errors import Problem
from schemas.identifiers import NHI, is_nhi, is_test_nhi

CLOCK_SKEW = timedelta(minutes=5)  # agencies' clocks differ; more than this is a date in the future
Resolve = Callable[[Mapping[str, Any], str], tuple[Mapping[str, Any], str]]


@dataclass(slots=True)
class _Looking:
    """What one message is held against, and what is wrong with it so far."""

    refs: set[str]
    latest: datetime
    today: date
    test_numbers: bool
    wrong: list[Problem] = field(default_factory=list)
    late: list[Problem] = field(default_factory=list)


_Look = Callable[[Any, str, _Looking], None]  # value, its JSON Pointer


def in_future(pointer: str) -> Problem:
    """The finding that what stands at *pointer* has not happened yet."""
    return Problem(pointer, "lies in the future", "send the date at which it happened")


class Rules:
    """The rules of the type with this *schema*, whose id is *base*; *resolve* follows its references."""

    def __init__(self, schema: Mapping[str, Any], base: str, resolve: Resolve) -> None:
        self._look = _look(schema, base, resolve)

    def broken(self, data: Mapping[str, Any], now: datetime, *, test_numbers: bool) -> list[Problem]:
        """What *data* breaks, by its place below `/data`; *test_numbers*: whether NHI numbers of the testing
        range are taken."""
        refs: set[str] = set()
        wrong = list(_labels(data.get("people", ()), refs))
        today = now.astimezone(NEW_ZEALAND).date()
        looking = _Looking(refs, now + CLOCK_SKEW, today, test_numbers, wrong)
        if self._look is not None:
            self._look(data, "/data", looking)
        return looking.wrong + looking.late


def _labels(people: Any, refs: set[str]) -> Iterator[Problem]:
    """Fills *refs* with those of *people*; each must be one person's."""
    for i, person in enumerate(people):
        if person["ref"] in refs:
            yield Problem(
                f"/data/people/{i}/ref", "is used twice", "give every person of the message a ref of its own"
            )
        refs.add(person["ref"])


def _look(schema: Mapping[str, Any], base: str, resolve: Resolve) -> _Look | None:
    """How to look at a value of *schema*; None where nothing below it is to be looked at."""
    schema, base = resolve(schema, base)
    if schema.get("x-person-ref"):
        return _reference
    if schema.get("x-not-future"):
        return _past_date if schema.get("format") == "date" else _past_instant
    if "items" in schema:
        one = _look(schema["items"], base, resolve)
        if one is None or one is _reference:
            return _references if one else None
        return _each(one)
    properties = schema.get("properties", {})
    below = [(name, look) for name, s in properties.items() if (look := _look(s, base, resolve))]
    if {"system", "value"} <= properties.keys():
        return _identifier(below)
    return _inside(below) if below else None


def _inside(below: list[tuple[str, _Look]]) -> _Look:
    def look(value: Any, pointer: str, looking: _Looking) -> None:
        for name, inner in below:
            if name in value:
                inner(value[name], f"{pointer}/{name}", looking)

    return look


def _each(one: _Look) -> _Look:
    def look(value: Any, pointer: str, looking: _Looking) -> None:
        for i, item in enumerate(value):
            one(item, f"{pointer}/{i}", looking)

    return look


def _identifier(below: list[tuple[str, _Look]]) -> _Look:
    inside = _inside(below)

    def look(value: Any, pointer: str, looking: _Looking) -> None:
        if value.get("system") == NHI and "value" in value:
            number = value["value"]
            if not looking.test_numbers and is_test_nhi(number):
                fix = "send real people to this hub, tests to another"
                looking.wrong.append(Problem(f"{pointer}/value", "is a test number", fix))
            if not is_nhi(number):
                fix = "check the check character (HISO 10046, modulus 11 or 23)"
                looking.wrong.append(Problem(f"{pointer}/value", "is not an NHI number", fix))
        inside(value, pointer, looking)

    return look


def _reference(value: Any, pointer: str, looking: _Looking) -> None:
    if value not in looking.refs:
        fix = "use the ref of a person in people"
        looking.wrong.append(Problem(pointer, "refers to nobody in people", fix))


def _references(value: Any, pointer: str, looking: _Looking) -> None:
    for one in value:
        _reference(one, pointer, looking)


def _past_date(value: Any, pointer: str, looking: _Looking) -> None:
    if date.fromisoformat(value) > looking.today:
        looking.late.append(in_future(pointer))


def _past_instant(value: Any, pointer: str, looking: _Looking) -> None:
    if instant_of(value) > looking.latest:
        looking.late.append(in_future(pointer))
