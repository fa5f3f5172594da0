"""Education: attendance, and that a school was told."""

from typing import Any

import pytest

from adapters import education
from adapters.adapter import Reading
from schemas.errors import Unreadable
from tests.format_examples import SHARED, examples, read, records, replaced, undocumented, unshown

ATTENDANCE = records("education", "return")["attendance"]
NOTIFIED = records("education", "return")["school-notified"]


def read_one(record: Any) -> Reading:
    return read(education, record, "education")


def test_education_reads_every_example_of_its_page() -> None:
    for example in examples("education"):
        reading = read_one(example)
        assert reading.messages
        assert reading.rejected == []
        assert reading.unplaced == []


def test_education_page_names_and_shows_every_field() -> None:
    assert set() == undocumented(education.FORMAT, "education")
    assert unshown(education.FORMAT, "education", SHARED) == {}


def test_education_turns_half_days_into_whole_percent() -> None:
    [message] = read_one(ATTENDANCE).messages
    assert message.data["attendance"] == [
        {
            "child": "p1",
            "concern": True,
            "percent": 67,
            "school": {"name": "Example School", "number": "3456"},
        }
    ]
    assert message.data["people"][0]["role"] == "child"
    assert message.data["people"][0]["identifiers"] == [{"system": "learner", "value": "EX-2291"}]


@pytest.mark.parametrize(
    ("possible", "attended", "percent"), [(90, 0, 0), (90, 90, 100), (1000, 999, 99), (3, 2, 66)]
)
def test_education_never_rounds_a_concern_away(possible: int, attended: int, percent: int) -> None:
    counted = {"possible": possible, "attended": attended}
    [message] = read_one(replaced(ATTENDANCE, ("pupils", 0, "halfDays"), counted)).messages
    assert percent == message.data["attendance"][0]["percent"]


@pytest.mark.parametrize(
    ("counted", "pointer"),
    [
        ({"possible": 10, "attended": 11}, "/pupils/0/halfDays"),
        ({"possible": 0, "attended": 0}, "/pupils/0/halfDays/possible"),
        ({"attended": 1}, "/pupils/0/halfDays/possible"),
        ({"possible": 10, "attended": 9.5}, "/pupils/0/halfDays/attended"),
        (67, "/pupils/0/halfDays"),
    ],
)
def test_education_refuses_half_days_that_cannot_be(counted: Any, pointer: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read_one(replaced(ATTENDANCE, ("pupils", 0, "halfDays"), counted))
    assert [pointer] == [p.pointer for p in refused.value.problems]


def test_education_never_takes_in_the_national_student_number() -> None:
    record = replaced(ATTENDANCE, ("people", 0, "nsn"), "123456789")
    reading = read_one(record)
    assert [p.pointer for p in reading.unplaced] == ["/people/0/nsn"]
    assert b"123456789" not in reading.messages[0].encode()
    assert not any("123456789" in p.line() for p in reading.unplaced)


def test_education_says_that_a_school_was_told() -> None:
    [message] = read_one(NOTIFIED).messages
    assert message.type == "nz.isr.education.school-notified.v1"
    assert message.data["notice"] == {
        "child": "p1",
        "task": "T-88122",
        "notifiedOn": "2026-11-22",
        "designatedPerson": "Deputy principal Example",
    }
