"""Hospitals' FHIR flags, and what goes to them and comes from them as JSON."""

import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import fhir, health
from adapters.adapter import Native, Reading
from schemas.catalogue import published
from schemas.errors import HubError, Unreadable
from schemas.message import Message, new_message
from tests.unit.hospital import DOC, NOW, only, valid

REQUEST: dict[str, Any] = {
    "to": "health.waikato",
    "alert": {
        "person": "p1",
        "code": "D02",
        "startedOn": "2026-11-22",
        "reviewOn": "2027-05-22",
        "contact": "ISR team, 03 555 0100",
        "display": {"portal": False, "proxy": False, "letter": False},
    },
    "people": [{"ref": "p1", "role": "victim", "identifiers": [{"system": "nhi", "value": "ZZZ0016"}]}],
}


def request(data: dict[str, Any]) -> Message:
    return new_message("fss", "health.alert-requested", data, key="k", at=NOW)


def flag_of(message: Message) -> dict[str, Any]:
    native = health.write(message, "health.waikato")
    assert native.media_type == "application/fhir+json"
    flag: dict[str, Any] = json.loads(native.content)
    assert fhir.check_flag(flag) == []
    return flag


def read_flag(resource: Any) -> Reading:
    return health.read(
        Native(json.dumps(resource).encode(), "application/fhir+json; charset=utf-8"), "health.waikato", NOW
    )


def flag(**changed: Any) -> dict[str, Any]:
    made = {**flag_of(request(REQUEST)), "meta": {"lastUpdated": "2026-11-22T20:00:00Z"}, **changed}
    return {name: value for name, value in made.items() if value is not None}


def test_write_gives_the_documented_flag() -> None:
    published().validate(request(REQUEST).to_json(), NOW)
    example = next(
        json.loads(block) for block in re.findall(r"```json\n(.*?)```", DOC, re.DOTALL) if '"Flag"' in block
    )
    written = flag_of(request(REQUEST))
    own = {"id": example["id"], "identifier": example["identifier"]}
    assert {**written, **own} == example
    assert written["identifier"][0]["value"] == f"urn:uuid:{request(REQUEST).id}"


def test_write_is_deterministic() -> None:
    assert health.write(request(REQUEST), "x") == health.write(request(REQUEST), "x")


def test_write_restricts_the_flag_whatever_was_withheld() -> None:
    for data in ({}, {"alert": {}}, {"alert": {"code": "D02"}, "people": []}):
        meta = flag_of(request(data))["meta"]
        assert [c["code"] for c in meta["security"]] == ["R", "SDV"]
        assert [c["code"] for c in meta["tag"]] == ["no-portal", "no-proxy", "no-letter"]


def test_write_marks_what_was_withheld_and_invents_nothing() -> None:
    written = flag_of(request({"people": [{"ref": "p1", "role": "victim"}], "alert": {"person": "p1"}}))
    masked = {
        "extension": [
            {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}
        ]
    }
    assert (written["code"], written["subject"]) == (masked, masked)
    assert not {"period", "extension", "contained"} & set(written)


def test_write_contains_the_person_when_there_is_no_nhi_and_says_no_role() -> None:
    person = {
        "ref": "p1",
        "role": "victim",
        "name": {"family": "Tūhoe", "given": "Mārama", "other": "Rose"},
        "birthDate": "1993-08-12",
        "gender": "another",
        "address": {"line1": "1 A Rd", "suburb": "Horotiu", "city": "Hamilton", "postcode": "3288"},
        "safeAddress": {"line1": "Refuge", "city": "Hamilton"},
    }
    written = flag_of(request({**REQUEST, "people": [person]}))
    assert written["subject"] == {"reference": "#subject"}
    assert written["contained"] == [
        {
            "resourceType": "Patient",
            "id": "subject",
            "name": [{"use": "official", "family": "Tūhoe", "given": ["Mārama", "Rose"]}],
            "birthDate": "1993-08-12",
            "gender": "other",
            "address": [{"line": ["1 A Rd", "Horotiu"], "city": "Hamilton", "postalCode": "3288"}],
        }
    ]
    assert "victim" not in json.dumps(written)
    assert "Refuge" not in json.dumps(written)


@pytest.mark.parametrize(
    ("status", "event"),
    [("active", "placed"), ("inactive", "removed"), ("entered-in-error", "removed")],
)
def test_read_takes_a_flag_as_the_answer_to_its_request(status: str, event: str) -> None:
    (message,) = valid(read_flag(flag(status=status)))
    assert message.type == f"nz.isr.health.alert-{event}.v1"
    assert message.causationid == request(REQUEST).id
    assert message.time == "2026-11-22T20:00:00.000Z"
    assert message.data["alert"] == {
        "person": "p1",
        "code": "D02",
        "startedOn": "2026-11-22",
        "reviewOn": "2027-05-22",
    }
    assert message.data["people"][0]["identifiers"] == [{"system": "nhi", "value": "ZZZ0016"}]


def test_read_gives_the_same_id_when_the_same_flag_comes_twice_in_another_order() -> None:
    turned = dict(reversed(flag().items()))
    assert read_flag(flag()).messages == read_flag(turned).messages
    assert read_flag(flag()).messages[0].id != read_flag(flag(status="inactive")).messages[0].id


def test_read_takes_a_contained_patient_and_dates_on_local_clocks() -> None:
    patient = {
        "resourceType": "Patient",
        "id": "x",
        "identifier": [{"system": "https://standards.digital.health.nz/id/nhi", "value": "zdr69yx"}],
        "name": [{"family": "Tūhoe", "given": ["Mārama", "Rose"]}],
        "gender": "female",
    }
    period = {"start": "2026-11-21T12:00:00Z"}
    data = only(read_flag(flag(subject={"reference": "#x"}, contained=[patient], period=period)))
    assert data["alert"]["startedOn"] == "2026-11-22"
    assert data["people"] == [
        {
            "ref": "p1",
            "role": "associate",
            "identifiers": [{"system": "nhi", "value": "ZDR69YX"}],
            "name": {"family": "Tūhoe", "given": "Mārama", "other": "Rose"},
            "gender": "female",
        }
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"category": [{"coding": [{"system": fhir.ALERT_CATEGORY, "code": "H2"}]}]},
        {"category": None},
        {"code": {"coding": [{"system": fhir.ALERT_CODE, "code": "O01"}]}},
        {"code": {"coding": [{"system": "http://snomed.info/sct", "code": "D02"}]}},
        {
            "category": [
                {"coding": [{"system": fhir.ALERT_CATEGORY, "code": "H5"}]},
                {"coding": [{"system": fhir.ALERT_CATEGORY, "code": "H2"}]},
            ]
        },
    ],
)
def test_read_never_forwards_a_flag_of_another_kind(other: dict[str, Any]) -> None:
    reading = read_flag(flag(**other))
    assert reading.messages == []
    assert len(reading.unplaced) == 1
    assert "H2" not in reading.unplaced[0].line()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"status": "actve"}, "/status"),
        ({"status": None}, "/status"),
        ({"status": ["active"]}, "/status"),
        ({"code": None}, "/code"),
        ({"code": {"text": "violence"}}, "/code"),
        ({"code": {"coding": [{"code": "D02"}]}}, "/code"),
        ({"subject": None}, "/subject"),
        ({"subject": {}}, "/subject"),
        ({"subject": {"display": "Mārama"}}, "/subject"),
        ({"subject": {"reference": "Patient/1"}}, "/subject"),
        ({"category": []}, "/category"),
        ({"category": "safety"}, "/category"),
        ({"contained": [1]}, "/contained"),
        ({"period": {}}, "/period"),
        ({"period": {"start": "2026"}}, "/period/start"),
        ({"period": {"end": "2026-02-30"}}, "/period/end"),
        ({"period": {"end": "2026-02-01T10:00"}}, "/period/end"),
        ({"meta": {"lastUpdated": "yesterday"}}, "/meta"),
        ({"meta": []}, "/meta"),
        ({"resourceType": "Patient"}, "/resourceType"),
    ],
)
def test_read_refuses_a_flag_that_breaks_a_binding_or_a_rule(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_flag(flag(**change))
    assert caught.value.problems[0].pointer == pointer
    assert "Mārama" not in json.dumps(caught.value.as_json(), ensure_ascii=False)


def test_read_rejects_one_bad_entry_of_a_bundle_alone() -> None:
    entries = [flag(), {"resourceType": "Patient"}, flag(status="actve"), None, flag()]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": e} for e in entries]}
    reading = read_flag(bundle)
    assert len(valid(reading)) == 1
    assert [r.error.problems[0].pointer for r in reading.rejected] == [
        "/entry/2/resource/status",
        "/entry/3/resource/resourceType",
    ]
    assert json.loads(reading.rejected[0].raw.content)["status"] == "actve"
    assert [p.pointer for p in reading.unplaced] == ["/entry/1/resource"]


@pytest.mark.parametrize("change", [{"type": "bundle"}, {"type": None}, {"entry": {}}, {"entry": None}])
def test_read_refuses_a_bundle_that_breaks_its_binding(change: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        read_flag({"resourceType": "Bundle", "type": "message", "entry": [], **change})


_JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_ELEMENTS = [
    "status",
    "code",
    "subject",
    "category",
    "period",
    "identifier",
    "contained",
    "extension",
    "meta",
]


@given(st.dictionaries(st.sampled_from(_ELEMENTS), _JSON_VALUE, max_size=3))
def test_read_raises_nothing_but_hub_errors_for_any_element(change: dict[str, Any]) -> None:
    with contextlib.suppress(HubError):
        read_flag({**flag_of(request(REQUEST)), **change})


def test_read_flag_of_bytes_that_are_no_json_raises_a_hub_error() -> None:
    for raw in (b"", b"[", b'{"a":' + b"9" * 5000 + b"}", b"[]", b"null", b'{"resourceType": "\\ud800"}'):
        with pytest.raises(HubError):
            health.read(Native(raw, "application/fhir+json"), "health.waikato", NOW)


# --- JSON


def test_read_understands_the_documented_involvement() -> None:
    example = next(b for b in re.findall(r"```json\n(.*?)```", DOC, re.DOTALL) if "involvement" in b)
    reading = health.read(Native(example.encode(), "application/json"), "health.waikato", NOW)
    data = only(reading)
    assert reading.unplaced == []
    assert [one["involved"] for one in data["involvement"]] == [True, False]
    assert data["people"][1]["identifiers"] == [{"system": "nhi", "value": "ZZZ0016"}]


def test_write_gives_everything_else_as_the_written_notice_with_the_nhi() -> None:
    data = {"recall": {"disclosure": "d", "reason": "wrong-person", "instruction": "do-not-use"}, **REQUEST}
    written = json.loads(
        health.write(new_message("fss", "hub.recall", data, key="k", at=NOW), "gp.x").content
    )
    assert written["about"][0]["nhi"] == "ZZZ0016"
