"""Police: the 5F record and the reports that Police send."""

from typing import Any

import pytest

from adapters import police
from adapters.adapter import Reading
from schemas.errors import HubError, InvalidMessage, TooLarge, Unreadable
from schemas.message import MAX_BYTES, identity
from tests.format_examples import (
    NOW,
    SHARED,
    examples,
    native,
    read,
    records,
    replaced,
    undocumented,
    unshown,
    without,
)

EPISODE = records("police", "form")["5F"]


def read_one(record: Any) -> Reading:
    return read(police, record, "police")


def problems_of(record: Any) -> dict[str, str]:
    with pytest.raises(Unreadable) as refused:
        read_one(record)
    return {p.pointer: p.fix for p in refused.value.problems}


def test_police_reads_every_example_of_its_page() -> None:
    for example in examples("police"):
        reading = read_one(example)
        assert reading.rejected == []
        assert reading.unplaced == []
        assert len(example.get("batch", [example])) == len(reading.messages)


def test_police_page_names_and_shows_every_field() -> None:
    assert set() == undocumented(police.FORMAT, "police")
    assert unshown(police.FORMAT, "police", SHARED) == {}


def test_police_places_every_field_of_an_episode() -> None:
    [message] = read_one(EPISODE).messages
    assert message.type == "nz.isr.police.episode-recorded.v1"
    assert message.time == "2026-11-21T12:15:00.000Z"
    assert message.correlationid == "case-7f3a9c10"
    assert message.causationid == "5c0f6d3e-1d5c-5e53-9b62-0a4f6f1d2c11"
    assert message.data["episode"] == {
        "kind": "family-harm",
        "reference": {"system": "police-event", "value": "P066234567"},
        "attendance": "5F",
        "occurredAt": "2026-11-21T10:40:00.000Z",
        "occurredOn": "2026-11-21",
        "site": "waikato-rural",
        "place": {"line1": "14 Example Road", "suburb": "Horotiu", "city": "Ngāruawāhia", "postcode": "3288"},
        "harms": ["verbal", "physical", "threats", "property-damage"],
        "sexualHarm": True,
        "strangulation": True,
        "childrenPresent": True,
        "alcohol": True,
        "drugs": False,
        "weapons": ["knife", "blunt-object"],
        "firearms": {"access": True, "detail": "Rifle in a locked cabinet; licence checked."},
        "safetyOrder": {
            "boundPerson": "p1",
            "issued": True,
            "issuedAt": "2026-11-21T11:30:00.000Z",
            "days": 5,
        },
        "arrest": {"person": "p1", "at": "2026-11-21T11:10:00.000Z", "outcome": "bailed"},
        "breachOfOrder": True,
        "riskInstruments": [
            {"person": "p1", "instrument": "SAFVR", "version": "2018.2", "value": "62"},
            {"person": "p2", "instrument": "DYRA", "version": "2018.1", "value": "High"},
        ],
        "reportOfConcernMade": True,
        "dangers": ["dogs", "gang-pad"],
        "narrative": "Police were called by a neighbour.\nThe children were in the next room.",
    }
    aggressor, victim, child, witness = message.data["people"]
    assert [p["role"] for p in message.data["people"]] == ["perpetrator", "victim", "child", "witness"]
    assert aggressor["identifiers"] == [{"system": "police-person", "value": "PR1000001"}]
    assert aggressor["area"] == "Horotiu, Ngāruawāhia"
    assert aggressor["relationships"] == [{"to": "p2", "kind": "partner", "statedBy": "p1"}]
    assert aggressor["ethnicities"] == ["2", "1"]
    assert victim["relationships"][0] == {"to": "p1", "kind": "ex-partner", "statedBy": "p2"}
    assert victim["birthDate"] == "1993-08-12"
    assert victim["preferredPhone"] == {"number": "+64215550134", "kind": "mobile"}
    assert victim["safeContact"]["doNotContact"] is True
    assert victim["safeAddress"] == {"line1": "Care of Example Refuge", "city": "Hamilton"}
    assert child["livesWith"] == ["p1", "p2"]
    assert witness == {"ref": "p4", "role": "witness"}


def test_police_derives_no_area_from_a_safe_address() -> None:
    record = without(EPISODE, ("persons", 1, "address"))
    [message] = read_one(record).messages
    assert "safeAddress" in message.data["people"][1]
    assert "area" not in message.data["people"][1]


def test_police_names_an_episode_by_event_number_and_revision() -> None:
    [first] = read_one(EPISODE).messages
    [again] = read_one({**EPISODE, "narrative": "Other words."}).messages
    [later] = read_one({**EPISODE, "revision": 3}).messages
    assert first.id == again.id == identity("police", "police.episode-recorded\nP066234567/2")
    assert first.id != later.id


def test_police_dates_an_episode_by_the_new_zealand_day() -> None:
    [utc] = read_one({**EPISODE, "occurredAt": "2026-11-20T11:30:00Z"}).messages
    [winter] = read_one({**EPISODE, "occurredAt": "2026-06-30T23:59:59.999+12:00"}).messages
    assert utc.data["episode"]["occurredOn"] == "2026-11-21"
    assert winter.data["episode"]["occurredOn"] == "2026-06-30"


@pytest.mark.parametrize(
    ("word", "role"),
    [
        ("predominant aggressor", "perpetrator"),
        ("VICTIM", "victim"),
        ("Child or young person exposed", "child"),
        ("Informant", "witness"),
        ("Other person", "associate"),
    ],
)
def test_police_translates_its_words_for_roles(word: str, role: str) -> None:
    [message] = read_one(replaced(EPISODE, ("persons", 3, "role"), word)).messages
    assert role == message.data["people"][3]["role"]


@pytest.mark.parametrize(
    ("station", "site"),
    [
        ("HAMILTON CENTRAL", "waikato-city"),
        ("Ngaruawahia", "waikato-rural"),
        ("Te Ku\u0304iti", "waikato-rural"),
        ("New-Brighton", "christchurch"),
    ],
)
def test_police_finds_the_site_of_a_station_however_it_is_spelled(station: str, site: str) -> None:
    [message] = read_one({**EPISODE, "station": station}).messages
    assert site == message.data["episode"]["site"]


def test_police_keeps_macrons_in_one_spelling() -> None:
    [message] = read_one(replaced(EPISODE, ("persons", 0, "name", "forenames"), "Ra\u0304wiri")).messages
    assert message.data["people"][0]["name"]["given"] == "R\u0101wiri"


@pytest.mark.parametrize(
    ("path", "bad", "pointer"),
    [
        (("persons", 0, "role"), "Mutual participant", "/persons/0/role"),
        (("persons", 0, "role"), ["Victim"], "/persons/0/role"),
        (("persons", 0, "gender"), "male?", "/persons/0/gender"),
        (("persons", 0, "ethnicities", 1), "Martian", "/persons/0/ethnicities/1"),
        (("persons", 0, "phones", 0, "number"), "555 1234", "/persons/0/phones/0/number"),
        (("persons", 0, "birthDate"), "1991-02-30", "/persons/0/birthDate"),
        (("persons", 0, "birthDate"), "2027-01-01", "/persons/0/birthDate"),
        (("persons", 0, "relationships", 0, "to"), 9, "/persons/0/relationships/0/to"),
        (("persons", 1, "line"), 1, "/persons/1/line"),
        (("persons", 1, "line"), True, "/persons/1/line"),
        (("persons", 1), "Mārama", "/persons/1"),
        (("persons",), [], "/persons"),
        (("occurredAt",), "2026-11-21T23:40:00", "/occurredAt"),
        (("occurredAt",), "2026-11-23T23:40:00+13:00", "/occurredAt"),
        (("occurredAt",), "0001-01-01T00:00:00+13:00", "/occurredAt"),
        (("reportedAt",), 1795348800, "/reportedAt"),
        (("eventNumber",), "066234567", "/eventNumber"),
        (("revision",), 1.5, "/revision"),
        (("attendanceCode",), "1D", "/attendanceCode"),
        (("station",), "Invercargill", "/station"),
        (("natureOfHarm",), [], "/natureOfHarm"),
        (("pso", "days"), 11, "/pso/days"),
        (("pso", "boundPerson"), 0, "/pso/boundPerson"),
        (("alcohol",), "perhaps", "/alcohol"),
        (("narrative",), "a\u0000b", "/narrative"),
        (("narrative",), "x" * 20_001, "/narrative"),
        (("case",), "c", "/case"),
    ],
)
def test_police_says_where_and_how_to_mend_a_wrong_value(
    path: tuple[Any, ...], bad: Any, pointer: str
) -> None:
    found = problems_of(replaced(EPISODE, path, bad))
    assert found.get(pointer)


@pytest.mark.parametrize(
    "field", ["eventNumber", "revision", "occurredAt", "reportedAt", "station", "natureOfHarm", "persons"]
)
@pytest.mark.parametrize("absent", [None, ""])
def test_police_says_what_is_missing(field: str, absent: Any) -> None:
    assert problems_of(without(EPISODE, (field,)))[f"/{field}"] == "add it"
    assert problems_of({**EPISODE, field: absent})[f"/{field}"] == "add it"


def test_police_reports_every_problem_of_a_record_at_once() -> None:
    record = replaced(replaced(EPISODE, ("station",), "?"), ("persons", 0, "role"), "?")
    assert {"/station", "/persons/0/role"} <= set(problems_of({**record, "alcohol": 1}))


def test_police_allows_any_optional_field_to_be_absent_or_null() -> None:
    required = {
        "form",
        "eventNumber",
        "revision",
        "occurredAt",
        "reportedAt",
        "station",
        "natureOfHarm",
        "persons",
    }
    for field in set(EPISODE) - required:
        assert len(read_one(without(EPISODE, (field,))).messages) == 1
        assert len(read_one({**EPISODE, field: None}).messages) == 1


def test_police_reports_fields_without_a_place_by_position_only() -> None:
    record = {**EPISODE, "bodyCamera": "file 7", "Aroha Sample": "x"}
    record["persons"] = [{**EPISODE["persons"][0], "tattoos": "left arm"}, *EPISODE["persons"][1:]]
    reading = read_one(record)
    assert len(reading.messages) == 1
    pointers = [p.pointer for p in reading.unplaced]
    assert "/bodyCamera" in pointers
    assert "/persons/0/tattoos" in pointers
    assert not any(
        "Aroha" in p.line() or "file 7" in p.line() or "left arm" in p.line() for p in reading.unplaced
    )


def test_police_rejects_one_record_of_a_batch_so_that_it_can_be_sent_again() -> None:
    bad = {**EPISODE, "eventNumber": "P066000002", "station": "Invercargill"}
    reading = read_one({"batch": [EPISODE, bad, {**EPISODE, "eventNumber": "P066000003"}, "nonsense"]})
    assert len(reading.messages) == 2
    first, second = reading.rejected
    assert [p.pointer for p in first.error.problems] == ["/batch/1/station"]
    assert [p.pointer for p in second.error.problems] == ["/batch/3"]
    with pytest.raises(Unreadable):
        police.read(first.raw, "police", NOW)
    mended = first.raw.content.replace(b"Invercargill", b"Huntly")
    assert len(police.read(type(first.raw)(mended, first.raw.media_type), "police", NOW).messages) == 1


def test_police_takes_the_same_record_twice_in_a_batch_once() -> None:
    assert len(read_one({"batch": [EPISODE, EPISODE]}).messages) == 1


def test_police_rejects_a_second_record_of_the_same_name_with_other_content() -> None:
    reading = read_one({"batch": [EPISODE, {**EPISODE, "narrative": "Other words."}]})
    assert len(reading.messages) == 1
    assert "Police were called" in reading.messages[0].data["episode"]["narrative"]
    assert len(reading.rejected) == 1


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", InvalidMessage),
        (b"{", InvalidMessage),
        (b"\xff\xfe", InvalidMessage),
        (b'{"form": "5F", "form": "5F"}', InvalidMessage),
        (b"[" * 100, TooLarge),
        (b" " * (MAX_BYTES + 1), TooLarge),
        (b"[]", Unreadable),
        (b"null", Unreadable),
        (b'{"form": ["5F"]}', Unreadable),
        (b'{"form": "POL1310"}', Unreadable),
        (b'{"batch": {}}', Unreadable),
        (b'{"form": ' + b"9" * 5000 + b"}", HubError),
    ],
)
def test_police_refuses_bytes_that_are_no_record(content: bytes, error: type[HubError]) -> None:
    with pytest.raises(error):
        police.read(type(native({}))(content, "application/json"), "police", NOW)


def test_police_reads_a_batch_of_nothing_as_nothing() -> None:
    assert read_one({"batch": []}).messages == []


def test_police_sends_a_report_of_concern_to_oranga_tamariki_only() -> None:
    [message] = read_one(records("police", "form")["report-of-concern"]).messages
    assert message.type == "nz.isr.oranga-tamariki.report-of-concern-submitted.v1"
    assert message.data["to"] == "oranga-tamariki"
    assert message.data["concern"]["child"] == "p1"
    assert message.data["concern"]["urgency"] == "24h"
    assert message.data["concern"]["notifier"]["phone"] == "+6475550111"
    assert message.data["concern"]["reference"] == {"system": "police-event", "value": "P066234567"}


def test_police_answers_carry_the_message_they_answer() -> None:
    [message] = read_one(records("police", "form")["information-response"]).messages
    assert message.causationid == "5c0f6d3e-1d5c-5e53-9b62-0a4f6f1d2c11"
    assert message.data["answer"]["records"][0]["gang"] == "associate"


def test_police_accepts_at_most_sixty_people() -> None:
    people = [{"line": i, "role": "Witness"} for i in range(60)]
    assert len(read_one({**without_refs(), "persons": people}).messages) == 1
    assert "/persons" in problems_of(
        {**without_refs(), "persons": [*people, {"line": 99, "role": "Witness"}]}
    )


def without_refs() -> dict[str, Any]:
    return {k: v for k, v in EPISODE.items() if k not in ("pso", "arrest", "riskAssessments")}
