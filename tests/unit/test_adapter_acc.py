"""ACC's claims: ordinary ones in codes, sensitive ones as existence and nothing else, bad ones alone."""

import contextlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import acc
from adapters.adapter import Native, Reading
from schemas.catalogue import published
from schemas.errors import HubError, Unreadable
from schemas.message import Message, new_message

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DOC = (Path(__file__).parents[2] / "docs" / "formats" / "acc.md").read_text(encoding="utf-8")
CORRELATION = "0f8fad5b-d9cb-469f-a165-70867728950e"


def diagnosis(**changed: Any) -> dict[str, Any]:
    return {
        "diagnosisCodeType": "READ",
        "diagnosisCode": "S646.",
        "primaryDiagnosisIndicator": True,
        **changed,
    }


def claim(**changed: Any) -> dict[str, Any]:
    made = {
        "claimNumber": "AA12345",
        "sensitiveClaim": False,
        "diagnosis": [diagnosis()],
        "patient": {"details": details()},
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def details(**changed: Any) -> dict[str, Any]:
    made = {
        "surname": "Tūhoe",
        "firstName": "Mārama",
        "dateOfBirth": "12-08-1993",
        "nhi": "ZZZ0016",
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def read(*claims: Any, **beside: Any) -> Reading:
    value = {
        "correlationId": CORRELATION,
        "reportedAt": "2026-11-22T08:00:00+13:00",
        "claims": list(claims),
        **beside,
    }
    return acc.read(Native(json.dumps(value).encode(), "application/json"), "acc", NOW)


def only(reading: Reading) -> dict[str, Any]:
    assert reading.rejected == []
    (message,) = valid(reading)
    return message.data


def valid(reading: Reading) -> list[Message]:
    for message in reading.messages:
        published().validate(message.to_json(), NOW)
    return reading.messages


def examples() -> list[str]:
    return re.findall(r"```json\n(.*?)```", DOC, re.DOTALL)


def test_read_understands_the_documented_claims() -> None:
    reading = acc.read(Native(examples()[0].encode(), "application/json"), "acc", NOW)
    ordinary, sensitive = (m.data for m in valid(reading))
    assert ordinary == {
        "claims": [
            {
                "person": "p1",
                "reference": {"system": "acc45", "value": "AA12345"},
                "accidentOn": "2026-11-02",
                "cause": "struck by person",
                "bodySites": ["head", "hand"],
                "diagnoses": ["READ/S646.", "ICD10/S62.50"],
                "sensitiveClaim": False,
            }
        ],
        "people": [
            {
                "ref": "p1",
                "role": "associate",
                "identifiers": [{"system": "nhi", "value": "ZZZ0016"}],
                "name": {"family": "Tūhoe", "given": "Mārama", "other": "Rose"},
                "birthDate": "1993-08-12",
                "gender": "female",
                "address": {
                    "line1": "14 Example Road",
                    "suburb": "Horotiu",
                    "city": "Ngāruawāhia",
                    "postcode": "3288",
                },
                "area": "Horotiu, Ngāruawāhia",
                "phones": [{"number": "+64215550134", "kind": "mobile"}],
            }
        ],
    }
    assert sensitive["claims"] == [{"person": "p1", "sensitiveClaim": True}]


def test_read_understands_the_documented_report() -> None:
    data = only(acc.read(Native(examples()[1].encode(), "application/json"), "acc", NOW))
    assert data["people"][0]["identifiers"] == [{"system": "acc-claimant", "value": "C100200"}]


def test_read_carries_of_a_sensitive_claim_its_existence_and_nothing_else() -> None:
    full = json.loads(examples()[0])["claims"][0]
    full["patient"]["details"]["occupation"] = "teacher"
    reading = read({**full, "sensitiveClaim": True, "accidentDescription": "at home", "employer": "Acme"})
    data = only(reading)
    assert data["claims"] == [{"person": "p1", "sensitiveClaim": True}]
    assert set(data["people"][0]) == {"ref", "role", "name", "birthDate", "gender", "identifiers"}
    assert {p.pointer for p in reading.unplaced} == {
        "/claims/0",
        "/claims/0/claimNumber",
        "/claims/0/diagnosis",
        "/claims/0/accidentCause",
        "/claims/0/accidentDescription",
        "/claims/0/patient/address",
        "/claims/0/patient/contact",
        "/claims/0/patient/details",
    }
    assert "READ" not in json.dumps([p.line() for p in reading.unplaced])


def test_read_reads_a_sensitive_claim_whose_detail_would_not_be_valid() -> None:
    assert only(read(claim(sensitiveClaim=True, diagnosis="?", accidentCause=7)))["claims"][0][
        "sensitiveClaim"
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("12-08-1993", "1993-08-12"),
        ("1993-08-12", "1993-08-12"),
        ("12/08/1993", "1993-08-12"),
        ("19930812", "1993-08-12"),
        ("19930812235959", "1993-08-12"),
    ],
)
def test_read_takes_dates_in_every_form_of_accs_interfaces(written: str, meant: str) -> None:
    data = only(read(claim(patient={"details": details(dateOfBirth=written, accidentDate=written)})))
    assert data["people"][0]["birthDate"] == meant == data["claims"][0]["accidentOn"]


@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        (claim(claimNumber=None), "/claimNumber"),
        (claim(claimNumber="1234567890123"), "/claimNumber"),
        (claim(claimNumber="A-1"), "/claimNumber"),
        (claim(claimNumber=7), "/claimNumber"),
        (claim(sensitiveClaim=None), "/sensitiveClaim"),
        (claim(sensitiveClaim="no"), "/sensitiveClaim"),
        (claim(diagnosis=None), "/diagnosis"),
        (claim(diagnosis=[]), "/diagnosis"),
        (claim(diagnosis=[diagnosis()] * 21), "/diagnosis"),
        (claim(diagnosis=[diagnosis(), diagnosis()]), "/diagnosis"),
        (claim(diagnosis=[diagnosis(primaryDiagnosisIndicator=False)]), "/diagnosis"),
        (claim(diagnosis=[diagnosis(primaryDiagnosisIndicator="true")]), "/diagnosis"),
        (claim(diagnosis=["S646."]), "/diagnosis"),
        (claim(diagnosis=[diagnosis(diagnosisCode=None)]), "/diagnosis/0/diagnosisCode"),
        (claim(diagnosis=[diagnosis(diagnosisCode="broken arm")]), "/diagnosis/0/diagnosisCode"),
        (
            claim(
                diagnosis=[
                    diagnosis(diagnosisCodeType="own", primaryDiagnosisIndicator=False),
                    diagnosis(),
                ]
            ),
            "/diagnosis/0/diagnosisCodeType",
        ),
        (claim(patient="Mārama"), "/patient"),
        (claim(patient=None), "/patient/details"),
        (claim(patient={"details": details(surname=None)}), "/patient/details"),
        (claim(patient={"details": details(surname="x" * 201)}), "/patient/details/surname"),
        (claim(patient={"details": details(surname="a\nb")}), "/patient/details/surname"),
        (claim(patient={"details": details(dateOfBirth="8-12-93")}), "/patient/details/dateOfBirth"),
        (claim(patient={"details": details(dateOfBirth="31-02-1993")}), "/patient/details/dateOfBirth"),
        (claim(patient={"details": details(dateOfBirth="01-01-2090")}), "/patient/details/dateOfBirth"),
        (claim(patient={"details": details(accidentDate=20260101)}), "/patient/details/accidentDate"),
        (claim(patient={"details": details(), "address": []}), "/patient/address"),
        (claim(patient={"details": details(), "contact": "021"}), "/patient/contact"),
        ("Mārama Tūhoe", "/claimNumber"),
    ],
)
def test_read_rejects_a_bad_claim_alone_and_names_its_place(bad: Any, pointer: str) -> None:
    reading = read(claim(), bad, claim(claimNumber="AA2"))
    assert len(valid(reading)) == 2
    (rejected,) = reading.rejected
    assert isinstance(rejected.error, Unreadable)
    assert rejected.error.problems[0].pointer == f"/claims/1{pointer}"
    assert not re.search("Tūhoe|Mārama|1993|broken", json.dumps(rejected.error.as_json(), ensure_ascii=False))
    again = acc.read(rejected.raw, "acc", NOW)
    assert again.messages == []
    assert again.rejected[0].error.problems[0].pointer == f"/claims/0{pointer}"


def test_read_takes_the_mended_claim_as_the_same_event_when_it_comes_alone() -> None:
    good = claim(claimNumber="AA2")
    (rejected,) = read(claim(), {**good, "sensitiveClaim": None}).rejected
    fixed = rejected.raw.content.replace(b'"sensitiveClaim":null', b'"sensitiveClaim":false')
    again = acc.read(Native(fixed, rejected.raw.media_type), "acc", NOW)
    assert again.messages == read(claim(), good).messages[1:]


def test_read_gives_the_same_ids_when_the_same_file_comes_twice() -> None:
    assert (
        read(claim(), claim(claimNumber="AA2")).messages == read(claim(), claim(claimNumber="AA2")).messages
    )
    assert read(claim()).messages == read(claim(), correlationId=CORRELATION.upper()).messages


def test_read_has_one_effect_when_a_claim_stands_twice_and_rejects_a_number_used_for_two() -> None:
    reading = read(claim(), claim(), claim(accidentCause="FALL"))
    assert len(reading.messages) == 1
    assert [r.error.problems[0].pointer for r in reading.rejected] == ["/claims/2/claimNumber"]


@pytest.mark.parametrize("cause", ["He pushed her at 14 Example Road", 7, ["FALL"], {"code": "FALL"}])
def test_read_takes_no_cause_but_an_agreed_word(cause: Any) -> None:
    reading = read(claim(accidentCause=cause))
    assert "cause" not in only(reading)["claims"][0]
    assert [p.pointer for p in reading.unplaced] == ["/claims/0/accidentCause"]


def test_read_reports_what_has_no_place_by_position() -> None:
    patient = {
        "details": details(occupation="x", gender="Q"),
        "address": {"line1": "1 A Rd", "country": "NZ", "postCode": "1"},
        "contact": {"emailAddress": "a@example.nz", "homePhone": "111"},
        "next of kin: Mārama": 1,
    }
    one = claim(
        patient=patient,
        accidentDescription="text",
        diagnosis=[diagnosis(diagnosisDescription="text", diagnosisSide="L")],
    )
    reading = read(one, providerId="P1")
    assert only(reading)["people"][0].keys() == {"ref", "role", "name", "identifiers", "birthDate"}
    assert {p.pointer for p in reading.unplaced} == {
        "/providerId",
        "/claims/0/accidentDescription",
        "/claims/0/diagnosis/0/diagnosisDescription",
        "/claims/0/diagnosis/0/diagnosisSide",
        "/claims/0/patient/details/occupation",
        "/claims/0/patient/details/gender",
        "/claims/0/patient/address",
        "/claims/0/patient/address/country",
        "/claims/0/patient/contact/emailAddress",
        "/claims/0/patient/contact/homePhone",
        "/claims/0/patient/(unreadable name)",
    }


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"correlationId": None}, "/correlationId"),
        ({"correlationId": "ZZZ0016"}, "/correlationId"),
        ({"claims": []}, "/claims"),
        ({"claims": {}}, "/claims"),
        ({"claims": [{}] * 201}, "/claims"),
        ({"reportedAt": "2026-11-22"}, "/reportedAt"),
        ({"reportedAt": 5}, "/reportedAt"),
    ],
)
def test_read_refuses_a_file_that_has_no_claims_or_no_name(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(claim(), **change)
    assert caught.value.problems[0].pointer == pointer


def test_read_raises_a_hub_error_for_what_is_no_json() -> None:
    for raw in (b"", b"{", b"[]", b"\xff", b'{"claims": ' + b"[" * 100, b'{"claims":' + b"9" * 5000 + b"}"):
        with pytest.raises(HubError):
            acc.read(Native(raw, "application/json"), "acc", NOW)


def test_read_takes_macrons_in_either_composition() -> None:
    decomposed = claim(patient={"details": details(surname="Tu\u0304hoe")})
    assert read(decomposed).messages == read(claim()).messages


_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = ["claimNumber", "sensitiveClaim", "diagnosis", "patient", "accidentCause"]


@given(
    st.dictionaries(st.sampled_from(_FIELDS), _VALUE),
    st.dictionaries(st.sampled_from(["address", "contact", "details"]), _VALUE),
)
def test_read_raises_nothing_but_hub_errors_for_any_claim(
    change: dict[str, Any], patient: dict[str, Any]
) -> None:
    with contextlib.suppress(HubError):
        read({**claim(), **change}, claim(patient={"details": details(), **patient}))


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
def test_read_lets_nothing_of_a_sensitive_claim_through(beside: dict[str, str]) -> None:
    reading = read({**beside, **claim(sensitiveClaim=True)})
    assert only(reading)["claims"] == [{"person": "p1", "sensitiveClaim": True}]


def test_write_gives_the_written_notice_with_accs_number() -> None:
    data = {
        "people": [
            {"ref": "p1", "role": "victim", "identifiers": [{"system": "acc-claimant", "value": "C1"}]}
        ]
    }
    native = acc.write(new_message("fss", "fss.information-requested", data, key="k", at=NOW), "acc")
    assert json.loads(native.content)["about"][0]["claimantId"] == "C1"
