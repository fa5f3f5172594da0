"""Hospitals' HL7 v2: what concerns family harm comes through, everything else stays and is
reported by position."""

import contextlib
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import health, hl7v2
from adapters.adapter import Native, Reading
from schemas.errors import HubError, TooLarge, Unreadable
from tests.unit.hospital import DOC, NOW, ROOT, only, valid

FIXTURES = sorted((ROOT / "tests" / "fixtures" / "hl7").iterdir())
OID = "&2.16.840.1.113883.2.18.2&ISO"
NHI_FIELD = f"ZZZ0016^^^NHI{OID}^NHI"


def hl7_native(content: bytes | str) -> Native:
    return Native(content.encode() if isinstance(content, str) else content, "application/hl7-v2+er7")


def read(content: bytes | str) -> Reading:
    return health.read(hl7_native(content), "health.waikato", NOW)


def fixture(name: str) -> Reading:
    return read((ROOT / "tests" / "fixtures" / "hl7" / f"{name}.hl7").read_bytes())


def refused(content: bytes | str) -> HubError:
    with pytest.raises(HubError) as caught:
        read(content)
    return caught.value


def adt(
    *segments: str,
    trigger: str = "A04",
    control: str = "1",
    msh18: str = "UNICODE UTF-8",
    more: str = "P|2.4||||||",
) -> str:
    header = rf"MSH|^~\&|PAS|HOSP|HUB|ISR|20260301120000+1300||ADT^{trigger}|{control}|{more}{msh18}"
    return "\r".join([header, *segments]) + "\r"


def pid(**fields: str) -> str:
    values = {"f3": NHI_FIELD, "f5": "Example^Ana", **fields}
    return "PID|" + "|".join(values.get(f"f{n}", "") for n in range(1, 31))


def visit(**fields: str) -> str:
    values = {"f2": "E", "f44": "20260301113000+1300", **fields}
    return "PV1|" + "|".join(values.get(f"f{n}", "") for n in range(1, 51))


def positions(reading: Reading) -> list[str]:
    return [problem.pointer for problem in reading.unplaced]


# --- Presentations


def test_read_understands_an_admission_through_the_emergency_department() -> None:
    reading = fixture("a01-admitted-through-emergency")
    data = only(reading)
    assert data == {
        "presentation": {
            "person": "p1",
            "arrivedAt": "2026-03-01T19:30:00.000Z",
            "facility": "Christchurch Hospital",
            "injuries": ["S62.50", "X91"],
            "accidentOn": "2026-03-01",
            "strangulation": True,
            "pregnant": True,
        },
        "people": [
            {
                "ref": "p1",
                "role": "associate",
                "identifiers": [{"system": "nhi", "value": "ZBN77VL"}],
                "name": {"family": "Tūhoe", "given": "Tūī", "other": "Rose"},
                "aliases": [{"family": "Sample", "given": "T&J"}, {"family": "Brown", "given": "Tui"}],
                "birthDate": "1995-02-28",
                "gender": "female",
                "ethnicities": ["11", "21"],
                "address": {
                    "line1": "7 Example Street, Flat 2",
                    "city": "Christchurch",
                    "suburb": "Linwood",
                    "postcode": "8011",
                },
                "area": "Linwood, Christchurch",
                "phones": [
                    {"number": "+6435550123", "kind": "landline"},
                    {"number": "+64215550134", "kind": "mobile"},
                    {"number": "+6435550199", "kind": "work"},
                ],
            }
        ],
    }
    # Depression, appendicitis and self-harm, a parent's name, insurers, relatives and findings stay behind.
    assert {"DG1[3]-3", "DG1[4]-3", "DG1[5]-3", "PID-6", "PID-3[2]", "NK1", "IN1", "OBX", "AL1"} <= set(
        positions(reading)
    )


def test_read_understands_an_arrival_with_a_byte_order_mark_and_line_feeds() -> None:
    data = only(fixture("a04-arrival"))
    assert data["presentation"]["arrivedAt"] == "2026-02-28T17:05:00.000Z"
    assert data["people"][0]["name"] == {"family": "Example", "given": "Mārama"}


def test_read_understands_a_discharge_in_local_time_without_seconds() -> None:
    presentation = only(fixture("a03-discharge"))["presentation"]
    assert presentation["arrivedAt"] == "2026-03-02T08:00:00.000Z"
    assert presentation["departedAt"] == "2026-03-02T10:15:00.000Z"


def test_read_keeps_back_whatever_locates_when_access_is_restricted() -> None:
    reading = fixture("a08-restricted")
    data = only(reading)
    assert "facility" not in data["presentation"]
    assert not {"address", "area", "phones"} & set(data["people"][0])
    assert "ARV" in positions(reading)


def test_read_takes_a_lifted_restriction_for_none() -> None:
    raw = (ROOT / "tests/fixtures/hl7/a08-restricted.hl7").read_bytes().replace(b"ARV|1|A|", b"ARV|1|D|")
    assert only(read(raw))["people"][0]["address"]["city"] == "Hamilton"


def test_read_does_not_carry_a_visit_that_is_no_emergency() -> None:
    reading = read(adt(pid(), visit(f2="I", f4="R"), "DG1|1||S62.50^x^I10A"))
    assert reading.messages == []
    assert "PV1-2" in positions(reading)


@pytest.mark.parametrize("visit_class", [{"f2": "E"}, {"f2": "I", "f4": "E"}])
def test_read_carries_emergencies_still_there_or_admitted_since(visit_class: dict[str, str]) -> None:
    assert only(read(adt(pid(), visit(**visit_class))))["presentation"]["facility"] == "HOSP"


@pytest.mark.parametrize(
    ("code", "carried"),
    [
        ("S00.0^x^I10A", True),
        ("T35^x^ICD10AM", True),
        ("T74.1^x^ICD-10-AM", True),
        ("Y07.01^x^I10", True),
        ("s62.5^x^I10A", True),
        ("T36.0^x^I10A", False),
        ("T50^x^I10A", False),
        ("X60^x^I10A", False),
        ("X84^x^I10A", False),
        ("Y10^x^I10A", False),
        ("F10.2^x^I10A", False),
        ("O36^x^I10A", False),
        ("S62.5^x^SCT", False),
        ("S62.5^x^READ", False),
        ("S62.5", False),
        ("S62.5; lives at 1 Road^x^I10A", False),
        ("", False),
    ],
)
def test_read_carries_injuries_and_no_other_diagnosis(code: str, carried: bool) -> None:
    reading = read(adt(pid(), visit(), f"DG1|1||{code}"))
    assert ("injuries" in only(reading)["presentation"]) is carried
    assert ("DG1-3" in positions(reading)) is not carried


def test_read_never_says_that_strangulation_or_pregnancy_did_not_occur() -> None:
    assert not {"strangulation", "pregnant"} & set(only(read(adt(pid(), visit())))["presentation"])


def test_read_takes_the_time_of_the_event_for_an_arrival_that_the_visit_lacks() -> None:
    event = "EVN|A04|20260301120000+1300||||20260301111500+1300"
    arrived = only(read(adt(event, pid(), visit(f44=""))))["presentation"]["arrivedAt"]
    assert arrived == "2026-02-28T22:15:00.000Z"
    # At a discharge that time is the departure: it is no arrival.
    assert refused(adt(event, pid(), visit(f44=""), trigger="A03")).problems[0].pointer == "PV1-44"


# --- Alerts


def test_read_gives_situational_alerts_that_stand_or_ended_and_nothing_of_the_others() -> None:
    reading = fixture("a31-alerts")
    placed, removed = valid(reading)
    assert placed.type == "nz.isr.health.alert-placed.v1"
    assert placed.data["alert"] == {
        "person": "p1",
        "code": "D02",
        "startedOn": "2026-03-10",
        "reviewOn": "2026-09-10",
    }
    assert removed.type == "nz.isr.health.alert-removed.v1"
    assert removed.data["alert"]["endedOn"] == "2025-12-31"
    assert {"ZAL[3]", "ZAL[4]", "ZAL[5]-5", "ZAL[6]-5"} <= set(positions(reading))


def test_read_never_forwards_an_alert_of_another_category_nor_says_what_it_is() -> None:
    others = [
        f"ZAL|1|{c}|{k}||20250101|1|||||||HOSP|Peanuts"
        for c, k in (("H2", "K01"), ("H4", "D02"), ("A3", "P01"))
    ]
    reading = read(adt(pid(), *others, "ZAL|1|H5|D04||20250101", trigger="A31"))
    assert reading.messages == []
    said = json.dumps([[p.pointer, p.detail, p.fix] for p in reading.unplaced])
    assert not re.search(r"H2|H4|A3|K01|D02|P01|D04|Peanuts", said)
    assert [p for p in positions(reading) if p.startswith("ZAL")] == ["ZAL", "ZAL[2]", "ZAL[3]", "ZAL[4]"]


@pytest.mark.parametrize(
    ("start", "end", "event"),
    [
        ("20260301", "", "alert-placed"),
        ("20260301", "20260302", "alert-placed"),
        ("20250101", "20260301", "alert-removed"),
        ("20260302", "", None),
        ("", "", None),
        ("", "20250101", None),
        ('""', "", None),
        ("20250101", '""', "alert-placed"),
    ],
)
def test_read_judges_an_alert_at_the_messages_own_time(start: str, end: str, event: str | None) -> None:
    found = valid(read(adt(pid(), f"ZAL|1|H5|D02||{start}||||{end}", trigger="A31")))
    assert [m.type for m in found] == ([f"nz.isr.health.{event}.v1"] if event else [])


def test_read_reports_alerts_outside_an_update_of_the_person() -> None:
    assert "ZAL" in positions(read(adt(pid(), visit(), "ZAL|1|H5|D02||20250101")))


def test_read_reports_merged_numbers_and_carries_no_message() -> None:
    reading = fixture("a40-merge")
    assert reading.messages == []
    assert positions(reading) == ["MRG-1", "MRG-1[2]"]
    assert "ZZZ0024" not in json.dumps([[p.pointer, p.detail, p.fix] for p in reading.unplaced])


# --- Identity of messages


def test_read_gives_the_same_ids_when_the_same_message_comes_twice_at_other_times() -> None:
    for path in FIXTURES:
        native = hl7_native(path.read_bytes())
        later = health.read(native, "health.waikato", datetime(2027, 6, 1, tzinfo=UTC))
        assert health.read(native, "health.waikato", NOW).messages == later.messages


@pytest.mark.parametrize("change", [("PAS", "PAS2"), ("HOSP", "HOSP2"), ("|7|", "|8|")])
def test_read_names_a_message_by_application_facility_and_control_id(change: tuple[str, str]) -> None:
    text = adt(pid(), visit(), control="7")
    assert read(text).messages[0].id != read(text.replace(*change)).messages[0].id


# --- The person


def test_read_takes_no_local_number_for_an_nhi() -> None:
    reading = read(adt(pid(f3="ZZZ0016^^^NHI^NHI~5511^^^HOSP&2.16.840.1.113883.2.18.3.1&ISO"), visit()))
    assert "identifiers" not in only(reading)["people"][0]
    assert positions(reading)[:2] == ["PID-3", "PID-3[2]"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("f8", "F", {"gender": "female"}),
        ("f8", "O", {"gender": "another"}),
        ("f8", "9", {}),
        ("f7", "19850717", {"birthDate": "1985-07-17"}),
        ("f7", "198507172300-0100", {"birthDate": "1985-07-17"}),
        ("f7", '""', {}),
        ("f13", "021 555 0134", {"phones": [{"number": "+64215550134", "kind": "mobile"}]}),
        ("f13", "^PRN^PH^^64^7^5550101", {}),
        ("f13", "^PRN^PH^^64^07^5550101", {"phones": [{"number": "+6475550101", "kind": "landline"}]}),
        ("f13", "^PRN^PH^^^^^^^^^(07) 555 0101", {"phones": [{"number": "+6475550101", "kind": "landline"}]}),
        ("f13", "111", {}),
        ("f13", "555 0101", {}),
        ("f13", "07 555 0101^PRN^FX", {}),
        ("f11", "PO Box 1^^Hamilton^^3240^NZ^M", {}),
        ("f11", "1 A Rd^^^^3240^NZ^H", {}),
        (
            "f11",
            "1 A Rd^^Hamilton^^32401^NZ^H",
            {"address": {"line1": "1 A Rd", "city": "Hamilton"}, "area": "Hamilton"},
        ),
        (
            "f11",
            "9 A Rd&A Rd&9^^Hamilton",
            {"address": {"line1": "9 A Rd", "city": "Hamilton"}, "area": "Hamilton"},
        ),
        ("f22", "21111^Māori^NZHIS~N^x", {"ethnicities": ["21111"]}),
    ],
)
def test_read_takes_what_it_understands_of_a_person(field: str, value: str, expected: dict[str, Any]) -> None:
    person = only(read(adt(pid(**{field: value}), visit())))["people"][0]
    assert {k: v for k, v in person.items() if k not in ("ref", "role", "identifiers", "name")} == expected


def test_read_calls_nobody_by_a_role_that_a_hospital_cannot_know() -> None:
    for path in FIXTURES:
        for message in valid(read(path.read_bytes())):
            assert {"associate"} == {p["role"] for p in message.data["people"]}


# --- The envelope


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"O\T\Brien", "O&Brien"),
        (r"A\F\B\S\C\R\D", "A|B^C~D"),
        (r"back\E\slash", "back\\slash"),
        (r"T\XC5AB\hoe", "Tūhoe"),
        (r"T\XC5\\XAB\hoe", "Tūhoe"),
        (r"two\.br\lines", "two lines"),
        (r"\H\bold\N\ name", "bold name"),
        ("open\\", "open\\"),
        ("Ma\u0304ori", "Māori"),
    ],
)
def test_read_resolves_escape_sequences(written: str, meant: str) -> None:
    assert only(read(adt(pid(f5=f"{written}^Ana"), visit())))["people"][0]["name"]["family"] == meant


def test_read_takes_separators_from_the_header() -> None:
    text = adt(pid(f5="O\\.br\\B^Ana"), visit())
    swapped = text.translate(str.maketrans({"|": "#", "^": "*", "~": "!", "\\": "%", "&": "@"}))
    assert valid(read(swapped)) == valid(read(text))


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\n\r\n"])
def test_read_accepts_any_line_end_and_mllp_framing(end: str) -> None:
    text = adt(pid(), visit()).replace("\r", end)
    assert (
        read(text).messages == read("\x0b" + text + "\x1c\r").messages == read(adt(pid(), visit())).messages
    )


@pytest.mark.parametrize(
    ("msh18", "encoding"), [("8859/1", "latin-1"), ("8859/15", "iso-8859-15"), ("", "utf-8")]
)
def test_read_decodes_by_the_declared_character_set(msh18: str, encoding: str) -> None:
    raw = adt(pid(f5="Müller^Zoë"), visit(), msh18=msh18).encode(encoding)
    assert only(read(raw))["people"][0]["name"] == {"family": "Müller", "given": "Zoë"}


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (adt(pid(), visit(), trigger="A02"), "MSH-9"),
        (adt(pid(), visit()).replace("ADT^A04", "ORU^R01"), "MSH-9"),
        (adt(pid(), visit()).replace("ADT^A04", "ADT"), "MSH-9"),
        (adt(pid(), visit(), control=""), "MSH-10"),
        (adt(pid(), visit(), more="T|2.4||||||"), "MSH-11"),
        (adt(pid(), visit(), msh18="KS X 1001"), "MSH-18"),
        (adt(visit()), "PID"),
        (adt(pid()), "PV1"),
        (adt(pid(f7="19721399"), visit()), "PID-7"),
        (adt(pid(f7="1972"), visit()), "PID-7"),
        (adt(pid(f7="about 1972"), visit()), "PID-7"),
        (adt(pid(), visit(f44="")), "PV1-44"),
        (adt(pid(), visit(f44="20260301")), "PV1-44"),
        (adt(pid(), visit(f44="202603012561")), "PV1-44"),
        (adt(pid(), visit(f44="202609270230")), "PV1-44"),  # clocks skipped that hour
        (adt(pid(), visit(f45="soon")), "PV1-45"),
        (adt(pid(), visit(), "ACC|yesterday"), "ACC-1"),
        (adt(pid(), "ZAL|1|H5|D02||soon", trigger="A31"), "ZAL-5"),
        (adt(pid(), "ZAL|1|H5|D02||20250101", "ZAL|2|H5|P01||20250101||x", trigger="A31"), "ZAL[2]-7"),
        (adt(pid(), visit()) * 2, "MSH"),
        (adt(pid(), "broken line", visit()), "segment 3"),
        (adt(pid(f5="Müller^Zoë"), visit()).encode("latin-1"), "segment 2"),
        ("MSH", "MSH"),
        ("MSH|^~", "MSH"),
        ("MSH|||||||", "MSH"),
        ("MSHMSHMSHMSH", "MSH"),
        ("", "MSH"),
        ("BHS|^~\\&|x\r" + adt(pid(), visit()), "MSH"),
    ],
)
def test_read_refuses_what_it_cannot_read_and_names_the_position(content: bytes | str, pointer: str) -> None:
    error = refused(content)
    assert isinstance(error, Unreadable)
    assert error.problems[0].pointer == pointer
    assert not re.search("Example|Müller|1972|soon|ZZZ0016", json.dumps(error.as_json()))


def test_read_names_the_trigger_that_it_does_not_read_unless_it_is_no_trigger() -> None:
    assert "A02" in refused(adt(pid(), trigger="A02")).problems[0].detail
    assert "Ana" not in refused(adt(pid(), trigger="Ana at 1 Road")).problems[0].detail


def test_read_refuses_a_message_beyond_a_mebibyte() -> None:
    assert isinstance(refused(adt(pid(), visit(), "NTE|1||" + "x" * 1_100_000)), TooLarge)


def test_read_reads_a_message_of_many_segments() -> None:
    assert len(read(adt(pid(), visit(), *["OBX|1|NM|x^y||1"] * 5_000)).messages) == 1


@given(st.binary(max_size=200))
def test_read_raises_nothing_but_hub_errors_for_any_bytes(tail: bytes) -> None:
    for raw in (tail, adt(pid(), visit()).encode() + tail, b"MSH|^~\\&|" + tail):
        with contextlib.suppress(HubError):
            read(raw)


@given(
    st.lists(
        st.sampled_from([*'|^~\\&\r"ZAL5H2T0:X', "PID", "PV1", "ZAL|", "20260301", "\x0b", "\x1c"]),
        max_size=40,
    )
)
def test_read_raises_nothing_but_hub_errors_for_scrambled_messages(parts: list[str]) -> None:
    scrambled = "".join(parts)
    for raw in (adt(pid(f5=scrambled), visit(f44=scrambled)), adt(pid(), scrambled, trigger="A31")):
        with contextlib.suppress(HubError):
            valid(read(raw))


def test_parse_understands_the_documented_message() -> None:
    example = DOC.split("```hl7\n")[1].split("```")[0]
    assert [m.data["alert"]["code"] for m in valid(read(example))] == ["D02", "P01"]
    assert len(hl7v2.parse(example.encode()).all("ZAL")) == 4
