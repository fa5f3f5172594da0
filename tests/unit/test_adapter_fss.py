"""FSS: meeting lists, questions, tasks, risk, plans and requests."""

from typing import Any

import pytest

from adapters import fss
from adapters.adapter import Native, Reading
from schemas.errors import Unreadable
from tests.format_examples import (
    NOW,
    SHARED,
    examples,
    read,
    records,
    replaced,
    undocumented,
    unshown,
    without,
)

RECORDS = records("fss", "kind")
LIST = RECORDS["sam-list"]


def read_one(record: Any) -> Reading:
    return read(fss, record, "fss")


def test_fss_reads_every_example_of_its_page() -> None:
    for example in examples("fss"):
        reading = read_one(example)
        assert reading.messages
        assert reading.rejected == []
        assert reading.unplaced == []


def test_fss_page_names_and_shows_every_field() -> None:
    assert set() == undocumented(fss.FORMAT, "fss")
    assert unshown(fss.FORMAT, "fss", SHARED) == {}


def test_fss_gives_each_case_of_a_meeting_list_a_message() -> None:
    first, second = read_one(LIST).messages
    assert first.data["list"] == {
        "meetingOn": "2026-11-22",
        "site": "christchurch",
        "of": 2,
        "item": 1,
        "kind": "episode",
        "occurredOn": "2026-11-21",
        "riskLevel": "high",
        "conflicts": ["ngo.manaaki#pos"],
        "openTasks": [{"task": "T-88120", "party": "ngo.aviva#ivs", "dueAt": "2026-11-22T17:00:00.000Z"}],
    }
    assert (first.correlationid, second.correlationid) == ("case-7f3a9c10", "case-8aa01b22")
    assert second.data["list"]["kind"] == "prison-release"
    assert len(first.data["people"]) == 3
    assert len(second.data["people"]) == 1
    assert first.data["people"][0]["identifiers"] == [
        {"system": "fss-person", "value": "F-5501"},
        {"system": "police-person", "value": "PR1000001"},
        {"system": "prn", "value": "1234567"},
    ]


def test_fss_reads_the_same_message_when_one_case_is_sent_alone() -> None:
    alone = {**LIST, "cases": LIST["cases"][1:]}
    assert read_one(LIST).messages[1:] == read_one(alone).messages


def test_fss_loses_one_bad_case_of_a_large_list_and_no_other() -> None:
    cases = [{**LIST["cases"][1], "item": n, "case": f"case-{n:08}"} for n in range(1, 301)]
    cases[41] = {**cases[41], "people": [{"person": 1, "role": "boss"}]}
    cases[99] = "nonsense"
    reading = read_one({**LIST, "of": 300, "cases": cases})
    assert len(reading.messages) == 298
    assert [[p.pointer for p in r.error.problems] for r in reading.rejected] == [
        ["/cases/41/people/0/role"],
        ["/cases/99"],
    ]
    mended = reading.rejected[0].raw.content.replace(b'"boss"', b'"victim"')
    [late] = fss.read(Native(mended, "application/json"), "fss", NOW).messages
    assert late.correlationid == "case-00000042"
    assert late.id not in {m.id for m in reading.messages}


def test_fss_rejects_a_second_case_with_the_same_number() -> None:
    twice = {**LIST, "cases": [LIST["cases"][0], {**LIST["cases"][1], "item": 1}]}
    reading = read_one(twice)
    assert [m.correlationid for m in reading.messages] == ["case-7f3a9c10"]
    assert len(reading.rejected) == 1


def test_fss_reads_an_empty_list_as_nothing() -> None:
    reading = read_one({**LIST, "cases": []})
    assert (reading.messages, reading.rejected) == ([], [])


@pytest.mark.parametrize("field", ["reference", "revision", "sentAt", "meetingOn", "site", "of", "cases"])
def test_fss_refuses_a_list_whose_head_is_incomplete(field: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read_one(without(LIST, (field,)))
    assert [f"/{field}"] == [p.pointer for p in refused.value.problems]


def test_fss_asks_each_party_its_own_questions() -> None:
    police, aviva = read_one(RECORDS["information-request"]).messages
    assert police.data["to"] == "police"
    assert police.data["request"] == {
        "request": "IR-2026-1122-04",
        "purpose": "FV-RISK",
        "site": "christchurch",
        "occurredOn": "2026-11-21",
        "asks": ["prior-episodes", "firearms"],
        "dueAt": "2026-11-21T20:30:00.000Z",
    }
    assert aviva.data["to"] == "ngo.aviva#ivs"
    assert aviva.data["request"]["asks"] == ["engagement"]
    assert "dueAt" not in aviva.data["request"]


def test_fss_gives_each_task_a_message() -> None:
    first, second = read_one(RECORDS["tasks"]).messages
    assert first.data["to"] == "ngo.aviva#ivs"
    assert first.data["task"] == {
        "task": "T-88120",
        "person": "p2",
        "kind": "make-contact",
        "dueAt": "2026-11-22T21:10:00.000Z",
        "detail": "First contact, by text only.",
        "riskLevel": "high",
    }
    assert first.data["episode"] == {"occurredOn": "2026-11-21", "kind": "family-harm"}
    assert second.data["task"]["kind"] == "immediate-safety-action"


def test_fss_takes_no_risk_without_its_reasons() -> None:
    with pytest.raises(Unreadable) as refused:
        read_one(without(RECORDS["risk"], ("rationale",)))
    assert [p.pointer for p in refused.value.problems] == ["/rationale"]


def test_fss_cannot_ask_for_an_alert_that_is_shown() -> None:
    record = {**RECORDS["alert-request"], "display": {"portal": True}}
    reading = read_one(record)
    assert reading.messages[0].data["alert"]["display"] == {"portal": False, "proxy": False, "letter": False}
    assert [p.pointer for p in reading.unplaced] == ["/display"]
    again = read_one(RECORDS["alert-request"]).messages[0]
    again.data["alert"]["display"]["portal"] = True
    assert read_one(record).messages[0].data["alert"]["display"]["portal"] is False


def test_fss_asks_for_a_review_of_entitlements() -> None:
    [message] = read_one(RECORDS["entitlement-review"]).messages
    assert message.data["to"] == "msd"
    assert message.data["review"]["kinds"] == ["full-and-correct-entitlement", "relocation"]


def test_fss_opens_and_closes_plans() -> None:
    [opened] = read_one(RECORDS["plan-opened"]).messages
    [closed] = read_one(RECORDS["plan-closed"]).messages
    assert opened.data["plan"]["specialists"][0]["service"] == "ivs"
    assert opened.data["plan"]["goals"] == [{"person": "p1", "goal": "An alarm and new locks by Friday."}]
    assert closed.data["plan"] == {
        "plan": "PLAN-29001",
        "closedOn": "2026-11-22",
        "reason": "goals-met",
        "safetyRating": 3,
    }


@pytest.mark.parametrize("bad", ["Aviva", "ngo.aviva#", "", 7])
def test_fss_refuses_a_party_id_that_cannot_be_one(bad: Any) -> None:
    reading = read_one(replaced(RECORDS["tasks"], ("tasks", 0, "to"), bad))
    assert len(reading.messages) == 1
    assert [p.pointer for p in reading.rejected[0].error.problems] == ["/tasks/0/to"]
