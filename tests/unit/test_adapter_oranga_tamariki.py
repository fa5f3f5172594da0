"""Oranga Tamariki: intake decisions and how children are known."""

from typing import Any

import pytest

from adapters import oranga_tamariki
from adapters.adapter import Reading
from schemas.errors import Unreadable
from tests.format_examples import NOW, SHARED, examples, read, records, replaced, undocumented, unshown

DECISION = records("oranga-tamariki", "record")["intake-decision"]
INVOLVEMENT = records("oranga-tamariki", "record")["child-involvement"]


def read_one(record: Any) -> Reading:
    return read(oranga_tamariki, record, "oranga-tamariki")


def test_oranga_tamariki_reads_every_example_of_its_page() -> None:
    for example in examples("oranga-tamariki"):
        reading = read_one(example)
        assert reading.messages
        assert reading.rejected == []
        assert reading.unplaced == []


def test_oranga_tamariki_page_names_and_shows_every_field() -> None:
    assert set() == undocumented(oranga_tamariki.FORMAT, "oranga-tamariki")
    assert unshown(oranga_tamariki.FORMAT, "oranga-tamariki", SHARED) == {}


def test_oranga_tamariki_gives_each_decision_of_an_intake_a_message() -> None:
    first, second = read_one(DECISION).messages
    assert first.type == "nz.isr.oranga-tamariki.report-of-concern-outcome.v1"
    assert first.data["outcome"] == {
        "child": "p1",
        "decision": "child-and-family-assessment",
        "decidedOn": "2026-11-22",
        "involved": True,
        "socialWorker": {"name": "Hēmi Example", "phone": "+6435550123"},
    }
    assert second.data["outcome"]["decision"] == "no-further-action"
    assert second.data["outcome"]["child"] == "p2"
    assert first.id != second.id
    assert first.causationid == second.causationid == "5c0f6d3e-1d5c-5e53-9b62-0a4f6f1d2c13"
    assert first.data["people"] == second.data["people"]
    assert first.data["people"][1]["identifiers"] == [{"system": "cyras", "value": "40022"}]


def test_oranga_tamariki_rejects_one_decision_so_that_it_can_be_sent_again() -> None:
    reading = read_one(replaced(DECISION, ("decisions", 0, "decision"), "Closed"))
    assert [m.data["outcome"]["child"] for m in reading.messages] == ["p2"]
    [rejected] = reading.rejected
    assert [p.pointer for p in rejected.error.problems] == ["/decisions/0/decision"]
    mended = rejected.raw.content.replace(b'"Closed"', b'"FAR-INV"')
    again = oranga_tamariki.read(type(rejected.raw)(mended, "application/json"), "oranga-tamariki", NOW)
    whole = read_one(replaced(DECISION, ("decisions", 0, "decision"), "FAR-INV"))
    assert [whole.messages[0]] == again.messages


def test_oranga_tamariki_refuses_an_intake_whose_people_are_wrong() -> None:
    with pytest.raises(Unreadable) as refused:
        read_one(replaced(DECISION, ("people", 0, "role"), "Auntie"))
    assert [p.pointer for p in refused.value.problems] == ["/people/0/role"]


@pytest.mark.parametrize(
    ("word", "decision"),
    [
        ("NFA", "no-further-action"),
        ("Refer to service", "referred-to-service"),
        ("FAR – CFA", "child-and-family-assessment"),
        ("far_inv", "investigation"),
        ("Additional information", "additional-information"),
    ],
)
def test_oranga_tamariki_translates_its_words_for_decisions(word: str, decision: str) -> None:
    message = read_one(replaced(DECISION, ("decisions", 0, "decision"), word)).messages[0]
    assert decision == message.data["outcome"]["decision"]


def test_oranga_tamariki_places_every_field_of_an_involvement() -> None:
    [message] = read_one(INVOLVEMENT).messages
    assert message.data["involvement"] == [
        {
            "child": "p1",
            "involved": True,
            "openFile": True,
            "socialWorker": {"name": "Hēmi Example", "phone": "+6435550123"},
            "custody": "whanau",
            "groupConferenceOn": "2026-12-08",
        },
        {"child": "p2", "involved": False},
    ]
    assert [p["role"] for p in message.data["people"]] == ["child", "child", "associate"]
