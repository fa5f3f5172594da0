"""Whatever an agency sends: one clear error that names the place and the fix and repeats nothing, the input
set aside as it came, and its neighbours carried."""

import copy
import hashlib
import json
import logging
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.adapter import Native
from broker.broker import ACCEPT, SUBMISSIONS, DeadLetter
from consent.entry import DECISION_KINDS
from gateway.hub import Hub
from gateway.quarantine import unpacked
from schemas.errors import HubError
from tests.acceptance.leaks import Search
from tests.acceptance.played import Played, ledger_of, submissions
from tests.format_examples import examples, positions, replaced, without
from tests.serving import bearer, now, own_message, serving, small_hub

CANONICAL, JSON, CSV, HL7 = (
    "application/cloudevents+json",
    "application/json",
    "text/csv",
    "application/hl7-v2+er7",
)
# What stands in the good examples about somebody. No error may hold any of it.
PERSONAL = (
    "Rāwiri", "Tamati", "Tūhoe", "Mārama", "Tūī", "Ngārimu", "Tāne", "14 Example", "Horotiu", "Example Refuge",
    "0199", "0134", "0101", "library book", "PR1000001", "1000002", "P066234567", "neighbour", "cabinet",
    "ZZZ0016", "ZZZ0017", "Sample", "Mere", "12 Example", "4410", "555", "1991-02-03", "12/08/1993",
)  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


# Good inputs, which the cases below spoil


def police(number: str = "P070000001") -> dict[str, Any]:
    """An episode in Police's format, called *number*."""
    record = copy.deepcopy(examples("police")[0])
    del record["case"], record["answers"]
    return {**record, "eventNumber": number, "revision": 1}


def task() -> dict[str, Any]:
    """A task in the ISR team's format."""
    record: dict[str, Any] = next(e for e in examples("fss") if e.get("kind") == "tasks")
    record = copy.deepcopy(record)
    record.pop("answers", None)
    record["tasks"] = record["tasks"][:1]
    return record


def hospital(**fields: str) -> bytes:
    """A presentation at an emergency department; *fields* replaces by position (`PID_7`)."""
    segments = [
        r"MSH|^~\&|PAS|Waikato|ISR|HUB|20261122100000+1300||ADT^A04|C1|P|2.4||||||UNICODE UTF-8",
        "EVN|A04|20261122100000+1300",
        "PID|1||ZZZ0016^^^&2.16.840.1.113883.2.18.2&ISO^NHI||Sample^Mere||19720223|F|||12 Example Lane^^Tokoroa",
        "PV1|1|E|ED^^^Waikato" + "|" * 41 + "20261122090000+1300|20261122095500+1300",
        "DG1|1||S06.0^^I10",
    ]
    for position, value in fields.items():
        name, number = position.split("_")
        for i, segment in enumerate(segments):
            parts = segment.split("|")
            if parts[0] == name:
                parts[int(number) - (name == "MSH")] = value
                segments[i] = "|".join(parts)
    return "\r".join(segments).encode() + b"\r"


ROW = {
    "REFERENCE": "C-1", "PRN": "12345678", "FAMILY NAME": "Ngārimu", "GIVEN NAMES": "Tāne",
    "BIRTH DATE": "03/02/1991", "GENDER": "M", "EVENT": "BAILED", "EVENT DATE": "21/11/2026",
    "EVENT TIME": "10:30", "HIGH RISK": "N",
}  # fmt: skip


def custody(*rows: dict[str, str], header: list[str] | None = None, encoding: str = "utf-8") -> bytes:
    """Corrections' file of *rows*, each as changes to a good one."""
    columns = header or list(ROW)
    lines = [",".join(columns)]
    lines += [",".join({**ROW, **row}.get(column, "") for column in columns) for row in rows]
    return ("\r\n".join(lines) + "\r\n").encode(encoding)


def csv_file(content: bytes, *, claims: bytes | None = None, rows: int | None = None, **said: Any) -> Native:
    """*content* with its manifest; *claims* is the content that the manifest was made for."""
    whole = content if claims is None else claims
    manifest = {
        "file": "custody.csv",
        "rows": whole.count(b"\r\n") - 1 if rows is None else rows,
        "sha256": hashlib.sha256(whole).hexdigest(),
        "produced": "2026-11-22T06:00:00+13:00",
        **said,
    }
    return Native(content, CSV, "custody.csv", {"custody.manifest.json": json.dumps(manifest).encode()})


def of_police(record: Any) -> Native:
    return Native(json.dumps(record, ensure_ascii=False).encode(), JSON, "in.json")


def of_fss(record: Any) -> Native:
    return Native(json.dumps(record, ensure_ascii=False).encode(), JSON, "in.json")


def of_health(content: bytes) -> Native:
    return Native(content, HL7, "in.hl7")


def canonical(**changes: Any) -> Native:
    event = own_message("corrections", "bad", **changes)
    return Native(json.dumps(event).encode(), CANONICAL, "in.json")


def spoiled(path: tuple[Any, ...], by: Any) -> Native:
    """The canonical message with *by* at *path* of its data."""
    event = own_message("corrections", "bad")
    return Native(json.dumps(replaced(event, ("data", *path), by)).encode(), CANONICAL, "in.json")


# Bad ones


@dataclass(frozen=True)
class Bad:
    """One defect: which error, at which place; *said* are bad values that nobody repeats."""

    id: str
    party: str
    native: Native
    code: str
    pointer: str
    said: tuple[str, ...] = field(default=())


def _json(text: str | bytes) -> Native:
    return Native(text if isinstance(text, bytes) else text.encode(), JSON, "in.json")


# ruff: noqa: E501  # one defect a line reads better than one in eight
_GOOD = json.dumps(police(), ensure_ascii=False)
_TWO_ROWS = custody({}, {"REFERENCE": "C-2"})
BAD = [
    # any JSON
    Bad("malformed-json", "police", _json(_GOOD[:-40]), "invalid-message", ""),
    Bad("empty", "police", _json(""), "invalid-message", ""),
    Bad("xml", "police", _json('<?xml version="1.0"?><episode name="Tūhoe"/>'), "invalid-message", ""),
    Bad("hl7-as-json", "police", _json(hospital()), "invalid-message", ""),
    Bad("not-utf-8", "police", _json(_GOOD.encode("utf-16")), "invalid-message", ""),
    Bad("windows-1252", "police", _json(_GOOD.replace("ā", "ä").replace("ū", "ü").replace("ī", "ï").encode("cp1252")), "invalid-message", ""),
    Bad("repeated-key", "police", _json('{"form": "5F", ' + _GOOD[1:]), "invalid-message", ""),
    Bad("not-a-number", "police", _json(_GOOD.replace('"revision": 1', '"revision": NaN')), "invalid-message", ""),
    Bad("endless-number", "police", _json(_GOOD.replace('"revision": 1', '"revision": ' + "9" * 5000)), "invalid-message", ""),
    Bad("too-deep", "police", _json("[" * 30 + "]" * 30), "too-large", ""),
    Bad("deep-beyond-any-stack", "police", _json("[" * 200_000), "too-large", ""),
    Bad("ten-megabytes", "police", _json(json.dumps({"form": "Tūhoe " * 1_700_000})), "too-large", ""),
    Bad("half-a-character", "police", _json(_GOOD.replace("Mārama", "M\\ud800rama")), "invalid-message", "/persons/1/name/forenames"),
    # Police's records
    Bad("a-list", "police", of_police([]), "unreadable", ""),
    Bad("kind-unknown", "police", of_police({**police(), "form": "9F"}), "unreadable", "/form", ("9F",)),
    Bad("role-missing", "police", of_police(without(police(), ("persons", 1, "role"))), "unreadable", "/persons/1/role"),
    Bad("code-wrong", "police", of_police(replaced(police(), ("persons", 0, "role"), "Sidekick")), "unreadable", "/persons/0/role", ("Sidekick",)),
    Bad("type-wrong", "police", of_police({**police(), "natureOfHarm": "Verbally"}), "unreadable", "/natureOfHarm", ("Verbally",)),
    Bad("future", "police", of_police({**police(), "occurredAt": "2027-01-01T10:00:00+13:00"}), "unreadable", "/occurredAt", ("2027",)),
    Bad("born-tomorrow", "police", of_police(replaced(police(), ("persons", 0, "birthDate"), "2026-11-23")), "unreadable", "/persons/0/birthDate", ("2026-11-23",)),
    Bad("no-such-day", "police", of_police(replaced(police(), ("persons", 0, "birthDate"), "30/02/1991")), "unreadable", "/persons/0/birthDate", ("30/02",)),
    Bad("nobody-there", "police", of_police(replaced(police(), ("persons", 0, "relationships", 0, "to"), 9)), "unreadable", "/persons/0/relationships/0/to"),
    Bad("label-twice", "police", of_police(replaced(police(), ("persons", 3, "line"), 1)), "unreadable", "/persons/3/line"),
    Bad("control-character", "police", of_police({**police(), "station": "Ham\u0001ilton"}), "unreadable", "/station", ("ilton",)),
    Bad("event-number-wrong", "police", of_police(police("21 Rimu Rd")), "unreadable", "/eventNumber", ("Rimu",)),
    Bad("number-of-a-person-as-event", "police", of_police({**police(), "eventNumber": None}), "unreadable", "/eventNumber"),
    # hospitals
    Bad("hl7-no-header", "health", of_health(b"PID|1||ZZZ0016\r"), "unreadable", "MSH"),
    Bad("hl7-empty", "health", of_health(b""), "unreadable", "MSH"),
    Bad("hl7-two-messages", "health", of_health(hospital() * 2), "unreadable", "MSH"),
    Bad("hl7-trigger", "health", of_health(hospital(MSH_9="ADT^A99")), "unreadable", "MSH-9"),
    Bad("hl7-training", "health", of_health(hospital(MSH_11="T")), "unreadable", "MSH-11"),
    Bad("hl7-no-control-id", "health", of_health(hospital(MSH_10="")), "unreadable", "MSH-10"),
    Bad("hl7-charset", "health", of_health(hospital(MSH_18="KLINGON")), "unreadable", "MSH-18", ("KLINGON",)),
    Bad("hl7-birth-date", "health", of_health(hospital(PID_7="19720231")), "unreadable", "PID-7", ("1972",)),
    Bad("hl7-no-patient", "health", of_health(hospital().replace(b"PID|", b"ZZP|")), "unreadable", "PID"),
    Bad("hl7-nhi", "health", of_health(hospital(PID_3="ZZZ0017^^^&2.16.840.1.113883.2.18.2&ISO^NHI")), "invalid-message", "/data/people/0/identifiers/0/value", ("ZZZ0017",)),
    Bad("json-as-hl7", "health", of_health(_GOOD.encode()), "unreadable", "MSH"),
    # Corrections' files
    Bad("csv-half-written", "corrections", csv_file(_TWO_ROWS[:-20], claims=_TWO_ROWS), "unreadable", "manifest /sha256"),
    Bad("csv-rows", "corrections", csv_file(_TWO_ROWS, rows=3), "unreadable", "manifest /rows"),
    Bad("csv-digest", "corrections", csv_file(_TWO_ROWS, sha256="0" * 64), "unreadable", "manifest /sha256"),
    Bad("csv-digest-form", "corrections", csv_file(_TWO_ROWS, sha256="Tāne"), "unreadable", "manifest /sha256"),
    Bad("csv-no-manifest", "corrections", Native(_TWO_ROWS, CSV, "custody.csv"), "unreadable", "manifest"),
    Bad("csv-other-manifest", "corrections", csv_file(_TWO_ROWS, file="custody-Tāne.csv"), "unreadable", "manifest /file"),
    Bad("csv-windows-1252", "corrections", csv_file(custody({"FAMILY NAME": "Ngärimu", "GIVEN NAMES": "Täne"}, encoding="cp1252")), "unreadable", "row 2"),
    Bad("csv-empty", "corrections", csv_file(b"", rows=0), "unreadable", "row 1"),
    Bad("csv-column-unknown", "corrections", csv_file(custody({}, header=[*ROW, "MOTHER'S MAIDEN NAME"])), "unreadable", "row 1, field 11", ("MAIDEN",)),
    Bad("csv-column-missing", "corrections", csv_file(custody({}, header=[c for c in ROW if c != "EVENT"])), "unreadable", "row 1, column EVENT"),
    # canonical messages
    Bad("type-unknown", "corrections", canonical(type="nz.isr.corrections.gossip-heard.v1"), "unknown-type", "/type", ("gossip",)),
    Bad("version-unknown", "corrections", canonical(type="nz.isr.corrections.custody-changed.v9"), "unknown-type", "/type", ("v9",)),
    Bad("type-malformed", "corrections", canonical(type="Tāne"), "invalid-message", "/type"),
    Bad("for-another", "corrections", canonical(source="urn:isr:police"), "invalid-message", "/source"),
    Bad("not-yours", "health", Native(json.dumps(own_message("health", "bad")).encode(), CANONICAL), "invalid-message", "/type"),
    Bad("time-future", "corrections", canonical(time="2026-11-23T00:00:00Z"), "invalid-message", "/time"),
    Bad("attribute-unknown", "corrections", canonical(colour="Tāne"), "invalid-message", "/colour"),
    Bad("field-unknown", "corrections", spoiled(("custody", "cellmate"), "Tāne"), "invalid-message", "/data/custody/cellmate"),
    Bad("field-named-by-a-person", "corrections", spoiled(("custody", "Tāne Ngārimu"), True), "invalid-message", "/data/custody/(unreadable name)"),
    Bad("enum-wrong", "corrections", spoiled(("custody", "event"), "ran off to Rimu Road"), "invalid-message", "/data/custody/event", ("Rimu",)),
    Bad("role-missing-canonical", "corrections", spoiled(("people", 0), {"ref": "p1"}), "invalid-message", "/data/people/0/role"),
    Bad("ref-to-nobody", "corrections", spoiled(("custody", "person"), "p7"), "invalid-message", "/data/custody/person"),
    Bad("nhi-canonical", "corrections", spoiled(("people", 0, "identifiers"), [{"system": "nhi", "value": "ZZZ0017"}]), "invalid-message", "/data/people/0/identifiers/0/value", ("ZZZ0017",)),
    Bad("not-an-object", "corrections", Native(b'"Ngarimu"', CANONICAL), "invalid-message", "", ("Ngarimu",)),
    # the ISR team
    Bad("addressee-unknown", "fss", of_fss(replaced(task(), ("tasks", 0, "to"), "ngo.nobody#ivs")), "invalid-message", "/data/to", ("ngo.nobody",)),
    Bad("addressee-malformed", "fss", of_fss(replaced(task(), ("tasks", 0, "to"), "Aunty Mere")), "unreadable", "/tasks/0/to", ("Aunty",)),
]  # fmt: skip


def letters(hub: Hub) -> list[DeadLetter]:
    return hub.broker.dead_letters(limit=100_000)


def new_letters(hub: Hub, before: list[DeadLetter]) -> list[DeadLetter]:
    known = {letter.number for letter in before}
    return [letter for letter in letters(hub) if letter.number not in known]


def test_the_good_inputs_are_good(hub: Hub) -> None:
    for party, native in (
        ("police", of_police(police("P079999999"))),
        ("health", of_health(hospital(MSH_10="GOOD1"))),
        ("corrections", csv_file(custody({"REFERENCE": "GOOD-1"}, {"REFERENCE": "GOOD-2"}))),
        ("corrections", canonical(id="a-good-message")),
        ("fss", of_fss(task())),
    ):
        (receipt,) = hub.exchange.accept(party, [native])
        assert receipt.rejected == []
        assert receipt.accepted


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.id)
def test_bad_input_gets_one_clear_error_and_waits_as_it_came(
    hub: Hub, bad: Bad, caplog: pytest.LogCaptureFixture
) -> None:
    before = letters(hub)
    with caplog.at_level(logging.DEBUG, logger="isr_hub"):
        (receipt,) = hub.exchange.accept(bad.party, [bad.native])
    assert receipt.accepted == []
    (error,) = receipt.rejected
    assert error.code == bad.code
    (problem,) = error.problems
    assert problem.pointer == bad.pointer
    assert problem.detail
    assert problem.fix
    (letter,) = new_letters(hub, before)
    assert letter.queue == ACCEPT
    assert letter.error == error.as_json()
    for said in (json.dumps(error.as_json(), ensure_ascii=False), str(dict(letter.headers)), caplog.text):
        assert not [text for text in (*PERSONAL, *bad.said) if text in said]


@pytest.mark.parametrize(
    "bad",
    [b for b in BAD if b.id in ("malformed-json", "csv-half-written", "hl7-charset")],
    ids=lambda b: b.id,
)
def test_bad_input_sent_again_unmended_waits_again(hub: Hub, bad: Bad) -> None:
    before = letters(hub)
    hub.exchange.accept(bad.party, [bad.native])
    (letter,) = new_letters(hub, before)
    assert unpacked(letter) == (bad.party, bad.native)
    receipt = hub.exchange.send_again(letter.number)
    assert [error.code for error in receipt.rejected] == [bad.code]
    (again,) = new_letters(hub, before)
    assert again.number != letter.number
    assert unpacked(again) == (bad.party, bad.native)


def test_field_without_a_place_is_reported_and_the_rest_is_carried(hub: Hub) -> None:
    record = {**police("P070000002"), "starSign": "Tūhoe", "Mārama's mother": "at 14 Example Road"}
    (receipt,) = hub.exchange.accept("police", [of_police(record)])
    assert len(receipt.accepted) == 1
    said = {problem.pointer for problem in receipt.unplaced}
    assert "/starSign" in said
    assert not [p for p in receipt.unplaced for text in PERSONAL if text in p.line()]


# Neighbours


def test_good_message_goes_through_beside_bad_ones(hub: Hub) -> None:
    before = letters(hub)
    bad = of_police(replaced(police("P070000003"), ("persons", 0, "role"), "Sidekick"))
    good = [of_police(police(number)) for number in ("P070000004", "P070000005")]
    first, second, third, fourth = hub.exchange.accept("police", [good[0], bad, _json("{"), good[1]])
    assert (len(first.accepted), len(fourth.accepted)) == (1, 1)
    assert [error.code for r in (second, third) for error in r.rejected] == ["unreadable", "invalid-message"]
    assert len(new_letters(hub, before)) == 2


def test_good_record_of_a_file_goes_through_beside_a_bad_one(hub: Hub) -> None:
    before = letters(hub)
    spoilt = replaced(police("P070000006"), ("occurredAt",), "yesterday")
    batch = {"batch": [police("P070000007"), spoilt, police("P070000008")]}
    (receipt,) = hub.exchange.accept("police", [of_police(batch)])
    assert len(receipt.accepted) == 2
    (error,) = receipt.rejected
    assert [p.pointer for p in error.problems] == ["/batch/1/occurredAt"]
    (letter,) = new_letters(hub, before)
    party, native = unpacked(letter)
    assert json.loads(native.content) == spoilt
    assert party == "police"


def test_good_row_goes_through_beside_bad_ones(hub: Hub) -> None:
    before = letters(hub)
    content = custody(
        {"REFERENCE": "R-1"},
        {"REFERENCE": "R-2", "EVENT DATE": "31/12/2026"},
        {"REFERENCE": "R-3", "EVENT": "RAN AWAY"},
        {"REFERENCE": "R-4", "PRN": "14 Example Road"},
        {"REFERENCE": "R-5"},
    )
    (receipt,) = hub.exchange.accept("corrections", [csv_file(content)])
    assert len(receipt.accepted) == 2
    places = [problem.pointer for error in receipt.rejected for problem in error.problems]
    assert places == ["row 3, column EVENT DATE", "row 4, column EVENT", "row 5, column PRN"]
    assert "RAN AWAY" not in str([error.as_json() for error in receipt.rejected])
    assert len(new_letters(hub, before)) == 3


def test_row_set_aside_is_the_same_event_once_corrected(hub: Hub) -> None:
    before = letters(hub)
    content = custody({"REFERENCE": "S-1", "EVENT": "RAN AWAY"})
    hub.exchange.accept("corrections", [csv_file(content)])
    (letter,) = new_letters(hub, before)
    _, native = unpacked(letter)
    mended = native.content.replace(b"RAN AWAY", b"ESCAPED")
    (receipt,) = hub.exchange.accept("corrections", [csv_file(mended)])
    whole_file = csv_file(custody({"REFERENCE": "S-1", "EVENT": "ESCAPED"}))
    (whole,) = hub.exchange.accept("corrections", [whole_file])
    assert receipt.accepted == whole.accepted


# Twice


def test_message_sent_twice_has_one_effect(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub:
        native = of_police(police())
        ids = [r.accepted for r in hub.exchange.accept("police", [native, native])]
        hub.exchange.finish()
        size = hub.ledger.sign().size
        ids += [r.accepted for r in hub.exchange.accept("police", [native])]
        hub.exchange.finish()
        assert ids[0] == ids[1] == ids[2]
        assert hub.ledger.sign().size == size > 0
        assert letters(hub) == []


def test_decomposed_macrons_are_the_same_message_and_the_same_person(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub:
        composed = json.dumps(police(), ensure_ascii=False)
        apart = unicodedata.normalize("NFD", composed)
        assert apart != composed
        ids = [hub.exchange.accept("police", [_json(text)])[0].accepted for text in (composed, apart)]
        hub.exchange.finish()
        assert ids[0] == ids[1]
        assert letters(hub) == []
        assert (
            len({entry["message"] for entry in ledger_of(tmp_path) if entry["kind"] in DECISION_KINDS}) == 1
        )
        received = [f.read_text(encoding="utf-8") for f in tmp_path.glob("agencies/*/received/*")]
        assert any("Mārama" in text for text in received)
        assert not any("Ma\u0304" in text for text in received)


def test_same_id_with_another_body_is_refused_while_the_sender_listens(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub:
        hub.exchange.accept("police", [of_police(police())])
        hub.exchange.finish()
        size = hub.ledger.sign().size
        (receipt,) = hub.exchange.accept("police", [of_police({**police(), "alcohol": False})])
        (error,) = receipt.rejected
        assert (error.code, error.problems[0].pointer) == ("identity-reused", "/id")
        assert "revision" in error.problems[0].fix
        hub.exchange.finish()
        assert hub.ledger.sign().size == size
        assert [letter.error["code"] for letter in letters(hub)] == ["identity-reused"]


def test_same_id_with_another_body_in_one_delivery_is_set_aside_when_carried(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub:
        both = [of_police(police()), of_police({**police(), "alcohol": False})]
        assert all(receipt.accepted for receipt in hub.exchange.accept("police", both))
        hub.exchange.finish()
        (letter,) = letters(hub)
        assert (letter.queue, letter.error["code"]) == (SUBMISSIONS, "identity-reused")
        assert (
            len({entry["message"] for entry in ledger_of(tmp_path) if entry["kind"] in DECISION_KINDS}) == 1
        )


# Sent again once mended


def test_message_for_a_case_nobody_knows_goes_through_after_its_episode(tmp_path: Path) -> None:
    bail = {"FAMILY NAME": "Example", "GIVEN NAMES": "Rawiri Tamati", "BIRTH DATE": "03/02/1991"}
    with small_hub(tmp_path) as hub:
        (receipt,) = hub.exchange.accept("corrections", [csv_file(custody(bail))])
        (message,) = receipt.accepted
        hub.exchange.finish()
        (letter,) = letters(hub)
        assert (letter.queue, letter.error["code"]) == (SUBMISSIONS, "case-unknown")
        (problem,) = letter.error["problems"]
        assert problem["pointer"] == "/correlationid"
        assert "episode" in problem["fix"]
        assert not [text for text in (*PERSONAL, *bail.values()) if text in json.dumps(letter.error)]
        assert [e for e in ledger_of(tmp_path) if e["kind"] in DECISION_KINDS] == []

        # Too early: it waits again, under another number.
        hub.exchange.send_again(letter.number)
        hub.exchange.finish()
        (letter,) = letters(hub)
        assert letter.error["code"] == "case-unknown"

        hub.exchange.accept("police", [of_police(police())])
        hub.exchange.finish()
        assert hub.exchange.send_again(letter.number).accepted == [message]
        hub.exchange.finish()
        assert letters(hub) == []
        decided = [e for e in ledger_of(tmp_path) if e["message"] == message]
        assert {e["party"] for e in decided if e["kind"] == "disclosure"} >= {"police", "oranga-tamariki"}


def test_message_for_a_named_case_that_does_not_exist_is_set_aside(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub:
        (receipt,) = hub.exchange.accept("fss", [of_fss(task())])
        assert receipt.rejected == []
        hub.exchange.finish()
        (letter,) = letters(hub)
        assert letter.error["code"] == "case-unknown"
        assert [p["pointer"] for p in letter.error["problems"]] == ["/correlationid"]


def test_input_refused_for_its_future_date_goes_through_when_that_day_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_hub(tmp_path) as hub:
        evening = "2026-11-22T19:00:00+13:00"
        ahead = {**police(), "occurredAt": evening, "reportedAt": evening}
        (receipt,) = hub.exchange.accept("police", [of_police(ahead)])
        assert {p.pointer for e in receipt.rejected for p in e.problems} == {"/occurredAt", "/reportedAt"}
        (letter,) = letters(hub)
    with small_hub(tmp_path) as hub:  # the next process finds it where it was
        later = now().replace(hour=12)
        monkeypatch.setattr(hub.exchange._admission, "_clock", lambda: later)
        assert len(hub.exchange.send_again(letter.number).accepted) == 1
        assert letters(hub) == []


# Through the door


@pytest.mark.parametrize(
    ("kind", "body", "status", "pointer"),
    [
        (JSON, b'{"form": "5F", "narrative": "14 Example', 422, ""),
        (
            JSON,
            json.dumps(replaced(police(), ("persons", 0, "role"), "Sidekick")).encode(),
            400,
            "/persons/0/role",
        ),
        (CANONICAL, json.dumps({**own_message("police", "x"), "type": "Tūhoe"}).encode(), 422, "/type"),
        (CANONICAL, b"[" * 100_000, 413, ""),
        (CANONICAL, b'"' + b"a" * 2_000_000 + b'"', 413, ""),
        (JSON, b'"' + b"a" * 10_000_000 + b'"', 413, ""),
        (JSON, b"", 400, ""),
        ("text/csv", _TWO_ROWS, 422, ""),
        ("", b"{}", 415, ""),
        ("application/xml", b"<a>14 Example</a>", 422, ""),
    ],
    ids=("malformed", "role", "type", "deep", "long", "ten-megabytes", "empty", "csv", "no-type", "xml"),
)
def test_door_answers_bad_input_with_one_problem(
    hub: Hub, kind: str, body: bytes, status: int, pointer: str
) -> None:
    with serving(hub) as door:
        answer = door.post(
            "/v1/messages", content=body, headers={**bearer(hub, "police"), "Content-Type": kind}
        )
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    (finding,) = answer.json()["errors"]
    assert finding["pointer"] == pointer
    assert finding["fix"]
    assert not [text for text in (*PERSONAL, "Sidekick") if text in answer.text]


# Every field of every format, spoiled


def _spoilings(native: Native, whisper: str) -> Iterator[Native]:
    """*native* with each of its values replaced: by somebody's details, and by something that is no value."""
    if native.media_type == JSON:
        value = json.loads(native.content)
        for path in positions(value):
            for by in (whisper, [whisper], {whisper: whisper}, "\u0000" + whisper, 10**400, {}):
                yield Native(json.dumps(replaced(value, path, by)).encode(), JSON, native.name)
    elif native.media_type == CSV:
        head, *rows = native.content.decode().split("\r\n")
        cells = rows[0].split(",")
        for i in range(len(cells)):
            row = ",".join([*cells[:i], f"{whisper};", *cells[i + 1 :]])
            yield csv_named(native, "\r\n".join([head, row, ""]).encode())
        yield csv_named(native, (head + "," + whisper + "\r\n" + rows[0] + "," + whisper + "\r\n").encode())
    else:
        segments = native.content.decode().split("\r")
        for i, segment in enumerate(segments):
            fields = segment.split("|")
            for j in range(1, len(fields)):
                spoilt = "|".join([*fields[:j], whisper, *fields[j + 1 :]])
                content = "\r".join([*segments[:i], spoilt, *segments[i + 1 :]]).encode()
                yield Native(content, native.media_type, native.name)


def csv_named(native: Native, content: bytes) -> Native:
    """*content* under the name of *native*, with a manifest that fits."""
    again = csv_file(content, file=native.name, rows=1)
    (manifest,) = again.companions.values()
    return Native(content, CSV, native.name, {native.name.replace(".csv", ".manifest.json"): manifest})


def test_no_error_about_any_field_of_any_format_repeats_what_stood_there(
    hard_day: Played, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples: dict[tuple[str, str], Native] = {}
    for party, native, _ in submissions(hard_day.steps):
        kind = native.name if native.media_type == JSON else native.media_type
        samples.setdefault((party.partition("#")[0], kind), native)
    person = hard_day.invented.people["f00001.v"]
    whisper = f"{person['name']['given']} {person['name']['family']} {person['home']['line1']}"
    search = Search(hard_day.invented.facts)
    assert len(search.find(whisper)) >= 3
    rejected: list[HubError] = []
    said: list[str] = []
    with small_hub(tmp_path) as hub, caplog.at_level(logging.DEBUG, logger="isr_hub"):
        for (party, _), native in samples.items():
            for receipt in hub.exchange.accept(
                "ngo.manaaki#ivs" if party.startswith("ngo.") else party, list(_spoilings(native, whisper))
            ):
                rejected += receipt.rejected
                said += [problem.line() for problem in receipt.unplaced]
        said += [json.dumps(letter.error, ensure_ascii=False) for letter in letters(hub)]
        said += [json.dumps(dict(letter.headers)) for letter in letters(hub)]
    said += [json.dumps(error.as_json(), ensure_ascii=False) for error in rejected]
    assert len(samples) >= 15
    assert len(rejected) > 1000
    assert all(error.problems and all(p.fix for p in error.problems) for error in rejected)
    found = {fact.text for text in {*said, *caplog.messages} for fact in search.find(text)}
    assert found <= _WORDS_OF_THE_HUB


# Names that people share with a provider's id, an example in a fix, a verb, and a field of the notice.
_WORDS_OF_THE_HUB = {"Manaaki", "Jack", "Mark", "Unborn"}
