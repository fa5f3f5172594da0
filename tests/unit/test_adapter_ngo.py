"""NGOs: engagement, and the reports of any agency."""

from typing import Any

import pytest

from adapters import ngo, notice
from adapters.adapter import Reading
from schemas.errors import Unreadable
from schemas.message import Message
from tests.format_examples import SHARED, examples, page, read, records, replaced, undocumented, unshown

PARTY = "ngo.aviva#ivs"
ENGAGEMENT = records("ngo", "form")["engagement"]
COMMON = [e for e in examples("notice") if "form" in e]


def read_one(record: Any) -> Reading:
    return read(ngo, record, PARTY)


def test_ngo_reads_every_example_of_its_page_and_of_the_common_one() -> None:
    assert {e["form"] for e in COMMON} == SHARED
    for example in [*examples("ngo"), *COMMON]:
        reading = read_one(example)
        assert len(reading.messages) == 1
        assert reading.rejected == []
        assert reading.unplaced == []


def test_ngo_page_names_and_shows_every_field() -> None:
    assert set() == undocumented(ngo.FORMAT, "ngo")
    assert unshown(ngo.FORMAT, "ngo", SHARED) == {}


def test_ngo_places_every_field_of_an_engagement() -> None:
    [message] = read_one(ENGAGEMENT).messages
    assert message.data["engagement"] == {
        "person": "p1",
        "service": "ivs",
        "reportedOn": "2026-11-22",
        "outcome": "support-accepted",
        "hours": 12,
        "safetyRating": 4,
        "progress": "Locks changed, kaumātua visits weekly.",
        "views": {"recorded": True, "sharing": "limit", "statement": "Not with the school, please."},
    }


@pytest.mark.parametrize(
    ("hours", "whole", "reported"), [(1.25, 2, True), (4.0, 4, False), (0, 0, False), (999.5, 1000, True)]
)
def test_ngo_rounds_a_part_of_an_hour_up_and_says_so(hours: float, whole: int, reported: bool) -> None:
    reading = read_one({**ENGAGEMENT, "hours": hours})
    assert whole == reading.messages[0].data["engagement"]["hours"]
    assert (["/hours"] if reported else []) == [p.pointer for p in reading.unplaced]


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("hours", -1),
        ("hours", 1000.5),
        ("hours", True),
        ("hours", "12"),
        ("safetyRating", 5),
        ("safetyRating", True),
        ("safetyRating", "Great"),
        ("service", "counselling"),
        ("reportedOn", "11/22/2026"),
        ("reportedOn", "23/11/2026"),
        ("person", "b"),
        ("outcome", ""),
    ],
)
def test_ngo_says_where_a_value_is_wrong(field: str, bad: Any) -> None:
    with pytest.raises(Unreadable) as refused:
        read_one({**ENGAGEMENT, field: bad})
    assert [f"/{field}"] == [p.pointer for p in refused.value.problems]


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ("Some engagement, no uptake", "some-engagement"),
        ("Uncontactable", "uncontactable-or-unsafe"),
        ("UNSAFE TO CONTACT", "uncontactable-or-unsafe"),
        ("no attempt", "no-attempt"),
    ],
)
def test_ngo_translates_its_words_for_outcomes(words: str, outcome: str) -> None:
    [message] = read_one({**ENGAGEMENT, "outcome": words}).messages
    assert outcome == message.data["engagement"]["outcome"]


def test_ngo_of_two_providers_gives_two_messages_for_one_name() -> None:
    [here] = read_one(ENGAGEMENT).messages
    [there] = read(ngo, ENGAGEMENT, "ngo.manaaki#pos").messages
    assert here.id != there.id


def test_ngo_carries_whether_contact_is_safe_with_every_number() -> None:
    record = next(e for e in COMMON if e["form"] == "contact-details")
    [message] = read_one(record).messages
    assert message.data["report"] == {"asOf": "2026-11-21", "site": "christchurch"}
    assert message.data["people"] == [
        {
            "ref": "p1",
            "role": "victim",
            "name": {"family": "Tūhoe", "given": "Mārama", "other": "Jane"},
            "phones": [
                {"number": "+64215550134", "kind": "mobile"},
                {"number": "+6435550101", "kind": "landline"},
            ],
            "preferredPhone": {"number": "+64215550134", "kind": "mobile"},
            "safeContact": {
                "doNotContact": False,
                "channels": ["text", "through-worker"],
                "times": "weekdays before 2 pm",
                "codeWord": "library book",
                "leaveMessage": False,
                "confirmedOn": "2026-11-21",
            },
        }
    ]


def test_ngo_refuses_contact_safety_that_does_not_say_whether_contact_is_safe() -> None:
    record = next(e for e in COMMON if e["form"] == "contact-details")
    with pytest.raises(Unreadable) as refused:
        read_one(replaced(record, ("people", 0, "safeContact"), {"by": ["text"]}))
    assert [p.pointer for p in refused.value.problems] == ["/people/0/safeContact/safeToContact"]


def test_ngo_refuses_two_preferred_numbers() -> None:
    record = next(e for e in COMMON if e["form"] == "contact-details")
    with pytest.raises(Unreadable):
        read_one(replaced(record, ("people", 0, "phones", 1, "preferred"), True))


def test_notice_page_shows_a_notice_as_it_is_written() -> None:
    shown = next(e for e in examples("notice") if "notice" in e)
    message = Message(
        source="hub",
        id="d0b1f1c2-7a55-5a0e-8a44-5d0b52e1a001",
        type="nz.isr.police.episode-recorded.v1",
        time="2026-11-21T12:15:00.000Z",
        correlationid="case-7f3a9c10",
        origin="police",
        data={
            "episode": {
                "site": "christchurch",
                "occurredAt": "2026-11-21T10:40:00.000Z",
                "childrenPresent": True,
            },
            "people": [
                {
                    "role": "child",
                    "ref": "p1",
                    "name": {"given": "Tūī", "family": "Example"},
                    "birthDate": "2019-05-30",
                    "identifiers": [{"system": "cyras", "value": "40021"}],
                }
            ],
        },
    )
    written = notice.write(message, notice.Vocabulary(own={"cyras": "cyrasId"}))
    assert written.name == f"{message.id}.json"
    assert written.content.decode() in page("notice")
    assert shown["about"][0]["cyrasId"] == "40021"
