"""Corrections' daily file: whole or refused, rows that fail alone, the agreed words and nothing guessed."""

import contextlib
import hashlib
import json
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import corrections, csvfile
from adapters.adapter import Native, Reading
from schemas.catalogue import published
from schemas.errors import HubError, TooLarge, Unreadable
from schemas.message import Message, new_message

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DOC = (Path(__file__).parents[2] / "docs" / "formats" / "corrections.md").read_text(encoding="utf-8")
NAME = "custody-20261122.csv"
COLUMNS = [column.removesuffix("?") for column in corrections.LAYOUT]
ROW = {
    "REFERENCE": "C-1",
    "PRN": "1234567",
    "FAMILY NAME": "Example",
    "GIVEN NAMES": "Rāwiri",
    "BIRTH DATE": "03/02/1991",
    "GENDER": "M",
    "EVENT": "BAILED",
    "EVENT DATE": "21/11/2026",
    "EVENT TIME": "15:40",
    "HIGH RISK": "N",
}
PLANNED = {**ROW, "EVENT": "PLANNED PAROLE", "EVENT TIME": "", "HIGH RISK": "Y", "ISR SITE": "Waikato Rural"}


def table(*rows: dict[str, str]) -> bytes:
    return csvfile.write_table(COLUMNS, rows)


def native(content: bytes, rows: int, name: str = NAME, /, **said: object) -> Native:
    manifest = {
        "file": name,
        "rows": rows,
        "sha256": hashlib.sha256(content).hexdigest(),
        "produced": "2026-11-22T05:30:00+13:00",
        **said,
    }
    return Native(content, "text/csv", name, {csvfile.manifest_name(name): json.dumps(manifest).encode()})


def read(*rows: dict[str, str]) -> Reading:
    return corrections.read(native(table(*rows), len(rows)), "corrections", NOW)


def only(reading: Reading) -> Message:
    assert reading.rejected == []
    (message,) = reading.messages
    published().validate(message.to_json(), NOW)
    return message


def refusal(file: Native) -> HubError:
    with pytest.raises(HubError) as caught:
        corrections.read(file, "corrections", NOW)
    return caught.value


def documented() -> Native:
    text = re.search(r"```csv\n(.*?)\n```", DOC, re.DOTALL)
    manifest = re.search(r"manifest\.json`\n\n```json\n(.*?)\n```", DOC, re.DOTALL)
    assert text
    assert manifest
    content = (text[1].replace("\n", "\r\n") + "\r\n").encode()
    return Native(content, "text/csv", NAME, {csvfile.manifest_name(NAME): manifest[1].encode()})


def test_read_understands_the_documented_file() -> None:
    reading = corrections.read(documented(), "corrections", NOW)
    assert reading.rejected == []
    for message in reading.messages:
        published().validate(message.to_json(), NOW)
    release, served, bailed = (m.data for m in reading.messages)
    assert release["release"] == {
        "person": "p1",
        "plannedOn": "2026-12-12",
        "site": "christchurch",
        "type": "parole",
        "prison": "Christchurch Men's Prison",
        "conditions": ["No contact with the victim", "Curfew 19:00 to 07:00"],
        "electronicMonitoring": True,
        "nonAssociation": True,
        "riskOfViolence": "high",
        "address": {
            "line1": "22 Example Avenue",
            "suburb": "Sydenham",
            "city": "Christchurch",
            "postcode": "8023",
        },
        "area": "Sydenham, Christchurch",
    }
    assert release["people"] == [
        {
            "ref": "p1",
            "role": "perpetrator",
            "identifiers": [{"system": "prn", "value": "1234567"}],
            "name": {"family": "Example", "given": "Rāwiri", "other": "Tamati"},
            "aliases": [{"family": "Sample", "given": "Ra"}, {"family": "Example", "given": "Dave"}],
            "birthDate": "1991-02-03",
            "gender": "male",
        },
        {
            "ref": "p2",
            "role": "victim",
            "name": {"family": "Tūhoe", "given": "Mārama"},
            "birthDate": "1993-08-12",
        },
    ]
    assert served["custody"]["event"] == "released-time-served"
    assert served["custody"]["at"] == "2026-11-21T02:40:00.000Z"
    assert bailed["custody"]["conditions"] == [
        "Reside at the bail address",
        "Electronic monitoring",
        "Not to associate with a person named in an order",
    ]
    assert bailed["people"][0]["role"] == "associate"


def test_read_reads_the_documented_json_report() -> None:
    example = DOC.split("## Other reports")[1].split("```json\n")[1].split("```")[0]
    message = only(corrections.read(Native(example.encode(), "application/json"), "corrections", NOW))
    assert message.type == "nz.isr.fss.information-provided.v1"
    assert message.data["people"][0]["identifiers"] == [{"system": "prn", "value": "1234567"}]


@pytest.mark.parametrize("word", [*corrections.EVENTS, *corrections.PLANNED])
def test_read_gives_a_valid_message_for_every_agreed_word(word: str) -> None:
    planned = word in corrections.PLANNED
    row = {**(PLANNED if planned else ROW), "EVENT": word.lower()}
    message = only(read(row))
    if planned:
        assert corrections.PLANNED[word] == message.data["release"]["type"]
    else:
        event, status = corrections.EVENTS[word]
        assert (event, status) == (message.data["custody"]["event"], message.data["custody"].get("status"))
    assert f"| {word} |" in DOC or word in DOC


def test_read_gives_the_same_ids_when_the_same_file_comes_twice() -> None:
    rows = [ROW, {**ROW, "REFERENCE": "C-2"}]
    first, second = read(*rows), read(*rows)
    assert [m.id for m in first.messages] == [m.id for m in second.messages]
    assert len({m.id for m in first.messages}) == 2


def test_read_gives_other_ids_when_the_file_is_of_another_day() -> None:
    content = table(ROW)
    later = native(content, 1, produced="2026-11-22T23:59:00Z")  # the 23rd in New Zealand
    assert read(ROW).messages[0].id != corrections.read(later, "corrections", NOW).messages[0].id


@pytest.mark.parametrize(
    ("change", "position"),
    [
        ({"PRN": "abc"}, "row 3, column PRN"),
        ({"PRN": ""}, "row 3, column PRN"),
        ({"PRN": "١٢٣٤٥٦٧"}, "row 3, column PRN"),
        ({"REFERENCE": ""}, "row 3, column REFERENCE"),
        ({"REFERENCE": "a/b"}, "row 3, column REFERENCE"),
        ({"FAMILY NAME": ""}, "row 3, column FAMILY NAME"),
        ({"FAMILY NAME": "", "GIVEN NAMES": ""}, "row 3, column FAMILY NAME"),
        ({"FAMILY NAME": "x" * 201}, "row 3, column FAMILY NAME"),
        ({"GIVEN NAMES": "two\nlines"}, "row 3, column GIVEN NAMES"),
        ({"ALIASES": "Nocomma"}, "row 3, column ALIASES"),
        ({"BIRTH DATE": "1991-02-03"}, "row 3, column BIRTH DATE"),
        ({"BIRTH DATE": "30/02/1991"}, "row 3, column BIRTH DATE"),
        ({"BIRTH DATE": "01/01/2090"}, "row 3, column BIRTH DATE"),
        ({"GENDER": "?"}, "row 3, column GENDER"),
        ({"EVENT": "VANISHED"}, "row 3, column EVENT"),
        ({"EVENT": ""}, "row 3, column EVENT"),
        ({"EVENT DATE": ""}, "row 3, column EVENT DATE"),
        ({"EVENT TIME": ""}, "row 3, column EVENT TIME"),
        ({"EVENT TIME": "25:00"}, "row 3, column EVENT TIME"),
        # Clocks went from 02:00 to 03:00 on 27 September 2026.
        ({"EVENT DATE": "27/09/2026", "EVENT TIME": "02:30"}, "row 3, column EVENT TIME"),
        ({"HIGH RISK": ""}, "row 3, column HIGH RISK"),
        ({"HIGH RISK": "perhaps"}, "row 3, column HIGH RISK"),
        ({"ELECTRONIC MONITORING": "1"}, "row 3, column ELECTRONIC MONITORING"),
        ({"ADDRESS": "1 Example Road"}, "row 3, column CITY"),
        ({"ADDRESS": "1 Example Road", "CITY": "Huntly", "POSTCODE": "37"}, "row 3, column POSTCODE"),
        ({"CONDITIONS": ";".join("x" * 19)}, "row 3, column CONDITIONS"),
        ({"NON-ASSOCIATION": "maybe"}, "row 3, column NON-ASSOCIATION"),
        (
            {"NON-ASSOCIATION": "N", "OTHER FAMILY NAME": "A", "OTHER GIVEN NAMES": "B"},
            "row 3, column NON-ASSOCIATION",
        ),
        ({**PLANNED, "ISR SITE": ""}, "row 3, column ISR SITE"),
        ({**PLANNED, "ISR SITE": "Otago"}, "row 3, column ISR SITE"),
        ({**PLANNED, "EVENT DATE": ""}, "row 3, column EVENT DATE"),
    ],
)
def test_read_rejects_a_bad_row_alone_and_names_its_cell(change: dict[str, str], position: str) -> None:
    bad = {**ROW, "REFERENCE": "C-2", **change}
    if change.get("REFERENCE", "C-1") == "C-1":
        bad["REFERENCE"] = "C-2"
    reading = read(ROW, bad, {**ROW, "REFERENCE": "C-3"})
    assert len(reading.messages) == 2
    (rejected,) = reading.rejected
    assert isinstance(rejected.error, Unreadable)
    assert position == rejected.error.problems[0].pointer
    said = json.dumps(rejected.error.as_json(), ensure_ascii=False)
    assert not any(
        value in said for value in change.values() if len(value) > 3 and value in ("Nocomma", "VANISHED")
    )


def test_read_takes_the_corrected_row_as_the_same_event_when_it_comes_alone() -> None:
    good = {**ROW, "REFERENCE": "C-2", "FAMILY NAME": "Tūhoe, Jr"}
    (rejected,) = read(ROW, {**good, "PRN": "x"}).rejected
    fixed = rejected.raw.content.replace(b",x,", b",1234567,")
    again = native(fixed, 1, produced="2026-11-22T05:30:00+13:00")
    assert read(ROW, good).messages[1] == only(corrections.read(again, "corrections", NOW))


def test_read_reads_what_it_rejected_as_a_whole_file_with_one_rejected_row() -> None:
    (rejected,) = read(ROW, {**ROW, "REFERENCE": "C-2", "PRN": "x"}).rejected
    again = corrections.read(rejected.raw, "corrections", NOW)
    assert (again.messages, again.rejected[0].error.problems[0].pointer) == ([], "row 2, column PRN")


def test_read_has_one_effect_when_a_row_stands_twice() -> None:
    reading = read(ROW, {**ROW, "REFERENCE": "C-2"}, ROW)
    assert len(reading.messages) == 2
    assert [p.pointer for p in reading.unplaced] == ["row 4"]


def test_read_rejects_a_reference_used_for_two_things() -> None:
    reading = read(ROW, {**ROW, "EVENT": "ESCAPED"})
    assert len(reading.messages) == 1
    assert reading.rejected[0].error.problems[0].pointer == "row 3, column REFERENCE"


def test_read_does_not_carry_a_planned_release_without_high_risk() -> None:
    reading = read({**PLANNED, "HIGH RISK": "N"})
    assert (reading.messages, reading.rejected) == ([], [])
    assert [p.pointer for p in reading.unplaced] == ["row 2, column HIGH RISK"]


def test_read_calls_nobody_perpetrator_or_victim_when_corrections_does_not() -> None:
    other = {"NON-ASSOCIATION": "OTHER", "OTHER FAMILY NAME": "Test", "OTHER GIVEN NAMES": "Jay"}
    people = only(read({**ROW, **other})).data["people"]
    assert [p["role"] for p in people] == ["associate", "associate"]


def test_read_takes_the_first_of_the_hour_that_clocks_show_twice() -> None:
    message = only(read({**ROW, "EVENT DATE": "05/04/2026", "EVENT TIME": "02:30"}))
    assert message.data["custody"]["at"] == "2026-04-04T13:30:00.000Z"  # still daylight time, +13


def test_read_makes_one_spelling_of_a_decomposed_macron() -> None:
    content = table({**ROW, "FAMILY NAME": unicodedata.normalize("NFD", "Tūhoe")})
    message = only(corrections.read(native(content, 1), "corrections", NOW))
    assert message.data["people"][0]["name"]["family"] == "Tūhoe"


def test_read_accepts_a_byte_order_mark_and_bare_line_feeds() -> None:
    content = b"\xef\xbb\xbf" + table(ROW).replace(b"\r\n", b"\n")
    assert read(ROW).messages == corrections.read(native(content, 1), "corrections", NOW).messages


def test_read_goes_by_column_names_whatever_their_order() -> None:
    content = csvfile.write_table(list(reversed(COLUMNS)), [ROW])
    assert read(ROW).messages == corrections.read(native(content, 1), "corrections", NOW).messages


@pytest.mark.parametrize(
    ("broken", "pointer"),
    [
        (lambda c: native(c[:-9], 1, sha256=hashlib.sha256(c).hexdigest()), "manifest /sha256"),
        (lambda c: native(c, 2), "manifest /rows"),
        (lambda c: native(c, 1, rows=True), "manifest /rows"),
        (lambda c: native(c, 1, rows=-1), "manifest /rows"),
        (lambda c: native(c, 1, sha256="00"), "manifest /sha256"),
        (lambda c: native(c, 1, sha256=7), "manifest /sha256"),
        (lambda c: native(c, 1, file="other.csv"), "manifest /file"),
        (lambda c: native(c, 1, produced="2026-11-22"), "manifest /produced"),
        (lambda c: native(c, 1, produced="2026-11-22T05:30:00"), "manifest /produced"),
        (lambda c: native(c, 1, produced=5), "manifest /produced"),
        (lambda c: native(c, 1, more="1"), "manifest"),
        (lambda c: Native(c, "text/csv", NAME), "manifest"),
        (lambda c: Native(c, "text/csv", NAME, {csvfile.manifest_name(NAME): b"[]"}), "manifest"),
        (lambda c: Native(c, "text/csv", NAME, {csvfile.manifest_name(NAME): b"{"}), "manifest"),
        (lambda c: native(c.replace("ā".encode(), b"\xe4"), 1), "row 2"),
        (lambda c: native(c.decode().encode("utf-16"), 1), "row 1"),
        (lambda c: native(b"", 0), "row 1"),
        (lambda c: native(c.replace(b"PRN", b"PNR", 1), 1), "row 1, column PRN"),
        (lambda c: native(c.replace(b"PRISON", b"BLOOD TYPE", 1), 1), "row 1, field 11"),
        (lambda c: native(c.replace(b"PRISON", b"PRN", 1), 1), "row 1"),
        (lambda c: native(b'"' + c, 1), "row 1"),
    ],
)
def test_read_refuses_the_whole_file_when_it_is_not_what_the_manifest_says(
    broken: object, pointer: str
) -> None:
    error = refusal(broken(table(ROW)))  # type: ignore[operator]
    assert pointer == error.problems[0].pointer
    assert "Example" not in json.dumps(error.as_json())


def test_read_refuses_a_file_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvfile, "MAX_FILE_BYTES", 100)
    assert isinstance(refusal(native(table(ROW), 1)), TooLarge)


def test_read_reads_an_empty_file_of_a_day_without_events() -> None:
    assert Reading([]) == read()


@pytest.mark.parametrize(
    "line",
    [
        b'C-2,12"34567,Example',
        b'C-2,"1234567"x,Example',
        b'C-2,"unclosed',
        b"C-2,1234567",
        b"C-2\rC-2",
        b"",
        b"C-2," + b"x" * 70_000,
    ],
)
def test_read_rejects_a_malformed_row_alone(line: bytes) -> None:
    header, first, _ = table(ROW).split(b"\r\n")
    third = table({**ROW, "REFERENCE": "C-3"}).split(b"\r\n")[1]
    content = b"\r\n".join([header, first, line, third, b""])
    reading = corrections.read(native(content, 3), "corrections", NOW)
    assert len(reading.messages) == 2
    (rejected,) = reading.rejected
    assert rejected.error.problems[0].pointer.startswith("row 3")


def test_read_reads_five_thousand_rows() -> None:
    rows = [{**ROW, "REFERENCE": f"C-{i}"} for i in range(5_000)]
    assert len(read(*rows).messages) == 5_000


def test_write_gives_the_written_notice_with_the_prn() -> None:
    data = {
        "to": "corrections",
        "task": {"task": "T-1", "person": "p1", "kind": "liaise", "dueAt": "2026-11-30T00:00:00.000Z"},
        "people": [
            {"ref": "p1", "role": "perpetrator", "identifiers": [{"system": "prn", "value": "1234567"}]}
        ],
    }
    message = new_message("fss", "fss.task-assigned", data, key="k", at=NOW)
    first, second = (corrections.write(message, "corrections") for _ in range(2))
    assert first == second
    assert json.loads(first.content)["about"][0]["prn"] == "1234567"


@given(st.binary(max_size=300))
def test_read_raises_nothing_but_hub_errors_for_any_bytes(content: bytes) -> None:
    for file in (native(content, 0), native(table(ROW) + content, 1), Native(content, "application/json")):
        with contextlib.suppress(HubError):
            corrections.read(file, "corrections", NOW)


_CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)


@given(st.lists(_CELL, min_size=3, max_size=3))
def test_read_table_gives_back_what_write_table_wrote(cells: list[str]) -> None:
    columns = ["A", "B", "C"]
    wanted = {
        name: text
        for name, cell in zip(columns, cells, strict=True)
        if (text := unicodedata.normalize("NFC", cell.strip(" ")))
    }
    content = csvfile.write_table(columns, [{k: c.strip(" ") for k, c in zip(columns, cells, strict=True)}])
    (row,) = csvfile.read_table(native(content, 1), [columns]).rows
    assert isinstance(row, csvfile.Row)
    assert wanted == row.cells
