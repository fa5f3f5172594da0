"""What JSON Schema cannot say of a message is found wherever in a message it may stand."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.catalogue import MessageType, published
from schemas.coherence import Rules

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
WRONG = {
    "ref": "refers to nobody in people",
    "date": "lies in the future",
    "date-time": "lies in the future",
    "nhi": "is not an NHI number",
}


def filled(schema: Mapping[str, Any], base: str, at: str, wrong: dict[str, str]) -> Any:
    """A value with everything that *schema* allows, each place that has a rule breaking it; *wrong* gets
    pointer → finding."""
    catalogue = published()
    schema, base = catalogue._resolve(schema, base)
    if "items" in schema:
        item, _ = catalogue._resolve(schema["items"], base)
        if item.get("x-person-ref"):
            wrong[at] = WRONG["ref"]
            return ["p9"]
        return [filled(schema["items"], base, f"{at}/0", wrong)]
    if "properties" in schema:
        made = {n: filled(s, base, f"{at}/{n}", wrong) for n, s in schema["properties"].items()}
        if "nhi" in made.get("system", ()):
            wrong[f"{at}/value"] = WRONG["nhi"]
            return {**made, "system": "nhi", "value": "ZZZ0017"}
        return made
    if schema.get("x-person-ref"):
        if at.startswith("/data/people/0/") and at.endswith("/ref"):
            return "p1"
        wrong[at] = WRONG["ref"]
        return "p9"
    if schema.get("x-not-future"):
        wrong[at] = WRONG[schema["format"]]
        return "2031-01-01" if schema["format"] == "date" else "2031-01-01T00:00:00Z"
    return schema.get("enum", ["anything"])


@pytest.mark.parametrize("kind", list(published()), ids=lambda kind: kind.name)
def test_every_place_with_a_rule_is_looked_at(kind: MessageType) -> None:
    """A message of every type with everything in it, wrong wherever it can be: all of it is found."""
    wrong: dict[str, str] = {}
    data = filled(kind.schema, kind.schema_id, "/data", wrong)
    found = kind.rules.broken(data, NOW, test_numbers=True)
    assert {p.pointer: p.detail for p in found} == wrong
    assert len(found) == len(wrong)


@pytest.mark.parametrize(
    ("value", "late"),
    [
        pytest.param({"on": "2026-11-22"}, False, id="today in New Zealand"),
        pytest.param({"on": "2026-11-23"}, True, id="tomorrow there"),
        pytest.param({"at": "2026-11-22T03:05:00Z"}, False, id="within the skew of clocks"),
        pytest.param({"at": "2026-11-22T03:05:00.001Z"}, True, id="beyond it"),
        pytest.param({"at": "2026-11-22T16:05:00+13:00"}, False, id="within it, in local time"),
        pytest.param({}, False, id="nothing stated"),
    ],
)
def test_late_is_what_has_not_happened_yet(value: dict[str, Any], late: bool) -> None:
    """Days are New Zealand's, instants have five minutes."""
    schema = {
        "properties": {
            "on": {"x-not-future": True, "format": "date"},
            "at": {"x-not-future": True, "format": "date-time"},
        }
    }
    rules = Rules(schema, "", lambda s, base: (s, base))
    assert bool(rules.broken(value, NOW, test_numbers=True)) == late


def test_nothing_is_looked_for_where_nothing_has_a_rule() -> None:
    """Texts and numbers need no look; what stands beside an identifier's number still gets one."""
    resolve = lambda s, base: (s, base)  # noqa: E731  # the schemas here refer to nothing
    plain = Rules({"properties": {"note": {"items": {"properties": {"text": {}}}}}}, "", resolve)
    assert plain.broken({"note": [{"text": "x"}]}, NOW, test_numbers=True) == []
    given = {"properties": {"system": {}, "value": {}, "on": {"x-not-future": True, "format": "date"}}}
    found = Rules(given, "", resolve).broken(
        {"system": "nhi", "value": "ZZZ0016", "on": "2031-01-01"}, NOW, test_numbers=False
    )
    assert [(p.pointer, p.detail) for p in found] == [
        ("/data/value", "is a test number"),
        ("/data/on", "lies in the future"),
    ]
