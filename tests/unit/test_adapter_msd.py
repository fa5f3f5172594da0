"""MSD's two files in, the review request out: rows that fail alone, cells that no spreadsheet runs."""

import csv
import hashlib
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import csvfile, msd
from adapters.adapter import Native, Reading
from schemas.catalogue import published
from schemas.errors import Unreadable
from schemas.message import Message, new_message

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DOC = (Path(__file__).parents[2] / "docs" / "formats" / "msd.md").read_text(encoding="utf-8")
PERSON = {
    "REFERENCE": "W-1",
    "SWN": "123456789",
    "FAMILY NAME": "Tūhoe",
    "GIVEN NAMES": "Mārama",
    "BIRTH DATE": "12/08/1993",
}
RECORD = {**PERSON, "HELP AVAILABLE": "Y", "BENEFIT": "Sole-parent support"}
REVIEW = {**PERSON, "COMPLETED ON": "20/11/2026", "HELP GRANTED": "N", "GRANTS": ""}


def native(content: bytes, rows: int, name: str = "benefits.csv") -> Native:
    digest = hashlib.sha256(content).hexdigest()
    manifest = csvfile.Manifest(name, rows, digest, datetime(2026, 11, 21, 17, tzinfo=UTC))
    return Native(content, "text/csv", name, {csvfile.manifest_name(name): manifest.to_json()})


def read(layout: tuple[str, ...], *rows: dict[str, str]) -> Reading:
    content = csvfile.write_table([column.removesuffix("?") for column in layout], rows)
    return msd.read(native(content, len(rows)), "msd", NOW)


def valid(reading: Reading) -> list[Message]:
    for message in reading.messages:
        published().validate(message.to_json(), NOW)
    return reading.messages


def documented(name: str) -> Native:
    section = DOC.split(f"`{name}.csv`\n")[1]
    text, manifest = re.findall(r"```(?:csv|json)\n(.*?)\n```", section, re.DOTALL)[:2]
    content = (text.replace("\n", "\r\n") + "\r\n").encode()
    file = f"{name}.csv"
    return Native(content, "text/csv", file, {csvfile.manifest_name(file): manifest.encode()})


def test_read_understands_the_documented_records() -> None:
    reading = msd.read(documented("benefits-20261122"), "msd", NOW)
    assert reading.rejected == []
    first, second = valid(reading)
    assert first.type == "nz.isr.msd.income-and-housing-reported.v1"
    assert first.data == {
        "records": [
            {
                "person": "p1",
                "helpAvailable": True,
                "benefit": "sole-parent",
                "onHousingRegister": True,
                "housingAddress": {
                    "line1": "14 Example Road",
                    "suburb": "Horotiu",
                    "city": "Ngāruawāhia",
                    "postcode": "3288",
                },
            }
        ],
        "people": [
            {
                "ref": "p1",
                "role": "associate",
                "identifiers": [{"system": "swn", "value": "123456789"}],
                "name": {"family": "Tūhoe", "given": "Mārama", "other": "Rose"},
                "birthDate": "1993-08-12",
                "gender": "female",
            }
        ],
    }
    assert second.data["records"][0] == {
        "person": "p1",
        "helpAvailable": False,
        "benefit": "jobseeker",
        "onHousingRegister": False,
    }


def test_read_understands_the_documented_review() -> None:
    (message,) = valid(msd.read(documented("reviews-20261122"), "msd", NOW))
    assert message.data["review"] == {
        "person": "p1",
        "task": "T-88130",
        "completedOn": "2026-11-20",
        "helpGranted": True,
        "grants": ["accommodation-supplement", "bond-grant"],
    }


def test_read_understands_the_documented_report() -> None:
    example = DOC.split("## Other reports")[1].split("```json\n")[1].split("```")[0]
    (message,) = valid(msd.read(Native(example.encode(), "application/json"), "msd", NOW))
    assert message.data["task"]["status"] == "done"


@pytest.mark.parametrize(
    ("layout", "row", "change", "column"),
    [
        (msd.RECORDS, RECORD, {"SWN": "12345678"}, "SWN"),
        (msd.RECORDS, RECORD, {"SWN": ""}, "SWN"),
        (msd.RECORDS, RECORD, {"REFERENCE": ""}, "REFERENCE"),
        (msd.RECORDS, RECORD, {"BENEFIT": "lottery"}, "BENEFIT"),
        (msd.RECORDS, RECORD, {"BENEFIT": ""}, "BENEFIT"),
        (msd.RECORDS, RECORD, {"HELP AVAILABLE": "sometimes"}, "HELP AVAILABLE"),
        (msd.RECORDS, RECORD, {"HOUSING ADDRESS": "1 Road"}, "CITY"),
        (msd.RECORDS, RECORD, {"GIVEN NAMES": ""}, "GIVEN NAMES"),
        (msd.RECORDS, RECORD, {"GENDER": "W"}, "GENDER"),
        (msd.REVIEWS, REVIEW, {"COMPLETED ON": ""}, "COMPLETED ON"),
        (msd.REVIEWS, REVIEW, {"COMPLETED ON": "31/12/2026"}, "COMPLETED ON"),
        (msd.REVIEWS, REVIEW, {"HELP GRANTED": ""}, "HELP GRANTED"),
        (msd.REVIEWS, REVIEW, {"GRANTS": "Bond grant; lottery"}, "GRANTS"),
        (msd.REVIEWS, REVIEW, {"TASK": "a task"}, "TASK"),
    ],
)
def test_read_rejects_a_bad_row_alone_and_names_its_cell(
    layout: tuple[str, ...], row: dict[str, str], change: dict[str, str], column: str
) -> None:
    reading = read(layout, row, {**row, "REFERENCE": "W-2", **change}, {**row, "REFERENCE": "W-3"})
    assert len(valid(reading)) == 2
    (rejected,) = reading.rejected
    assert isinstance(rejected.error, Unreadable)
    assert rejected.error.problems[0].pointer == f"row 3, column {column}"
    assert "lottery" not in json.dumps(rejected.error.as_json())
    assert len(msd.read(rejected.raw, "msd", NOW).rejected) == 1


def test_read_tells_the_two_files_apart_by_their_header_and_refuses_a_third() -> None:
    assert read(msd.RECORDS, RECORD).messages[0].type.endswith("income-and-housing-reported.v1")
    assert read(msd.REVIEWS, REVIEW).messages[0].type.endswith("entitlement-review-completed.v1")
    with pytest.raises(Unreadable) as caught:
        read((*msd.RECORDS, "PARTNER"), RECORD)
    assert [p.pointer for p in caught.value.problems] == ["row 1, field 14"]


def test_read_gives_the_same_ids_when_the_same_file_comes_twice() -> None:
    assert read(msd.RECORDS, RECORD).messages == read(msd.RECORDS, RECORD).messages


# --- Requests

REQUEST: dict[str, Any] = {
    "to": "msd",
    "review": {
        "person": "p2",
        "task": "T-1",
        "kinds": ["full-and-correct-entitlement", "bond"],
        "dueAt": "2026-11-29T22:00:00.000Z",
    },
    "people": [
        {"ref": "p1", "role": "perpetrator", "name": {"family": "Example", "given": "Rāwiri"}},
        {
            "ref": "p2",
            "role": "victim",
            "identifiers": [{"system": "swn", "value": "123456789"}],
            "name": {"family": "Tūhoe", "given": "Mārama", "other": "Rose"},
            "birthDate": "1993-08-12",
            "phones": [{"number": "+6475550101"}, {"number": "+64215550134"}],
            "preferredPhone": {"number": "+64215550134"},
            "address": {
                "line1": "14 Example Road",
                "suburb": "Horotiu",
                "city": "Ngāruawāhia",
                "postcode": "3288",
            },
            "safeContact": {
                "doNotContact": False,
                "channels": ["text", "through-worker"],
                "times": "weekdays 9 to 2",
                "leaveMessage": False,
                "codeWord": "library book",
            },
        },
    ],
}


def request(data: dict[str, Any]) -> Message:
    return new_message("fss", "msd.entitlement-review-requested", data, key="k", at=NOW)


def cells(data: dict[str, Any]) -> dict[str, str]:
    written = msd.write(request(data), "msd")
    assert (written.media_type, written.name) == ("text/csv", f"{request(data).id}.csv")
    (row,) = csv.DictReader(io.StringIO(written.content.decode(), newline=""), strict=True)
    return row


def test_write_gives_a_review_request_as_one_row() -> None:
    published().validate(request(REQUEST).to_json(), NOW)
    assert cells(REQUEST) == {
        "REQUEST": request(REQUEST).id,
        "TASK": "T-1",
        "DUE": "30/11/2026 11:00",
        "REVIEWS": "full-and-correct-entitlement; bond",
        "SWN": "123456789",
        "FAMILY NAME": "Tūhoe",
        "GIVEN NAMES": "Mārama Rose",
        "BIRTH DATE": "12/08/1993",
        "PHONE": "'+64215550134",
        "ADDRESS": "14 Example Road",
        "SUBURB": "Horotiu",
        "CITY": "Ngāruawāhia",
        "POSTCODE": "3288",
        "DO NOT CONTACT": "N",
        "SAFE CHANNELS": "text; through-worker",
        "SAFE TIMES": "weekdays 9 to 2",
        "LEAVE MESSAGE": "N",
        "CODE WORD": "library book",
    }
    assert msd.write(request(REQUEST), "msd") == msd.write(request(REQUEST), "msd")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"review": {}},
        {"review": {"person": "p1"}, "people": []},
        {"people": [{"ref": "p1", "role": "victim"}]},
    ],
)
def test_write_leaves_withheld_cells_empty_and_invents_no_safety(data: dict[str, Any]) -> None:
    row = cells(data)
    assert {value for name, value in row.items() if name != "REQUEST"} == {""}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_write_puts_a_would_be_formula_behind_an_apostrophe(start: str) -> None:
    family = f"{start}HYPERLINK(1)"
    person = {"ref": "p1", "role": "victim", "name": {"family": family, "given": "'Aho"}}
    row = cells({"review": {"person": "p1"}, "people": [person]})
    assert row["FAMILY NAME"] == f"'{family}"
    assert row["GIVEN NAMES"] == "'Aho"
    assert csvfile.unguarded(row["FAMILY NAME"]) == family


@given(st.text(st.sampled_from("=+-@'\t\r\nax"), max_size=6))
def test_guarded_starts_no_formula_and_unguarded_gives_it_back(cell: str) -> None:
    assert not csvfile.guarded(cell).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert csvfile.unguarded(csvfile.guarded(cell)) == cell


def test_read_takes_the_apostrophe_off_that_write_put_on() -> None:
    (message,) = read(msd.RECORDS, {**RECORD, "FAMILY NAME": "-Example"}).messages
    assert message.data["people"][0]["name"]["family"] == "-Example"


def test_write_gives_everything_else_as_the_written_notice() -> None:
    message = new_message("fss", "fss.task-assigned", {"people": REQUEST["people"]}, key="k", at=NOW)
    assert json.loads(msd.write(message, "msd").content)["about"][1]["swn"] == "123456789"
