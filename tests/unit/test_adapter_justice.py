"""Justice: what courts decided, and orders."""

from typing import Any

import pytest

from adapters import justice
from adapters.adapter import Reading
from schemas.errors import Unreadable
from tests.format_examples import SHARED, examples, read, records, replaced, undocumented, unshown

HEARING = records("justice", "document")["hearing-result"]
ORDER = records("justice", "document")["order"]


def read_one(record: Any) -> Reading:
    return read(justice, record, "justice")


def test_justice_reads_every_example_of_its_page() -> None:
    for example in examples("justice"):
        reading = read_one(example)
        assert reading.messages
        assert reading.rejected == []
        assert reading.unplaced == []


def test_justice_page_names_and_shows_every_field() -> None:
    assert set() == undocumented(justice.FORMAT, "justice")
    assert unshown(justice.FORMAT, "justice", SHARED) == {}


def test_justice_gives_each_result_of_a_hearing_a_message() -> None:
    bailed, withdrawn = read_one(HEARING).messages
    assert bailed.data["outcome"] == {
        "reference": {"system": "court-file", "value": "CRI-2026-009-001234"},
        "court": "Christchurch District Court",
        "heardOn": "2026-11-22",
        "person": "p1",
        "result": "remanded-on-bail",
        "bailConditions": ["Not to go within 500 m of the complainant's home", "Curfew 7 pm to 7 am"],
        "bailAddress": {
            "line1": "3 Sample Street",
            "suburb": "Hornby",
            "city": "Christchurch",
            "postcode": "8042",
        },
        "offences": ["1543", "6841"],
    }
    assert withdrawn.data["outcome"]["person"] == "p3"
    assert withdrawn.data["outcome"]["result"] == "withdrawn"
    assert "bailAddress" not in withdrawn.data["outcome"]
    assert [p["role"] for p in bailed.data["people"]] == ["perpetrator", "victim", "perpetrator"]


def test_justice_does_not_carry_one_results_bail_into_the_next() -> None:
    turned = {**HEARING, "results": list(reversed(HEARING["results"]))}
    assert [m.data for m in read_one(turned).messages] == [
        m.data for m in reversed(read_one(HEARING).messages)
    ]


@pytest.mark.parametrize(
    ("path", "bad", "pointer"),
    [
        (("results", 0, "bail", "address", "postcode"), "804", "/results/0/bail/address/postcode"),
        (("results", 0, "bail", "address", "street"), None, "/results/0/bail/address/street"),
        (("results", 0, "bail", "conditions", 1), 7, "/results/0/bail/conditions/1"),
        (("results", 0, "defendant"), 12, "/results/0/defendant"),
        (("results", 0, "item"), None, "/results/0/item"),
        (("results", 0, "result"), "Guilty-ish", "/results/0/result"),
        (("results", 0), [], "/results/0"),
    ],
)
def test_justice_rejects_only_the_result_that_is_wrong(path: tuple[Any, ...], bad: Any, pointer: str) -> None:
    reading = read_one(replaced(HEARING, path, bad))
    assert [m.data["outcome"]["person"] for m in reading.messages] == ["p3"]
    assert [[pointer]] == [[p.pointer for p in r.error.problems] for r in reading.rejected]


@pytest.mark.parametrize("results", [None, {}, "none"])
def test_justice_refuses_a_hearing_without_a_list_of_results(results: Any) -> None:
    with pytest.raises(Unreadable) as refused:
        read_one({**HEARING, "results": results})
    assert [p.pointer for p in refused.value.problems] == ["/results"]


def test_justice_places_every_field_of_an_order() -> None:
    [message] = read_one(ORDER).messages
    assert message.data["order"] == {
        "restrained": "p1",
        "protected": ["p2", "p3"],
        "kind": "protection",
        "inForce": True,
        "madeOn": "2026-11-22",
        "conditions": ["No contact", "To attend a non-violence programme"],
        "protectedAddress": {"line1": "14 Example Road", "suburb": "Hornby", "city": "Christchurch"},
    }


@pytest.mark.parametrize(
    ("status", "in_force"), [("In force", True), ("Discharged", False), ("LAPSED", False)]
)
def test_justice_tells_orders_in_force_from_others(status: str, in_force: bool) -> None:
    [message] = read_one({**ORDER, "status": status}).messages
    assert in_force is message.data["order"]["inForce"]
