"""Health: HL7 v2 admissions and alerts in, FHIR R4 flags both ways, the hub's written JSON for
everything else.

Only what concerns family harm is taken from a hospital's stream: emergency presentations with their
injuries, and situational alerts (category H5). Diagnoses that are no injuries, other alerts and
relatives stay behind; what stayed is reported by position alone, because naming an alert's category
would already tell. A hospital does not know who is victim and who perpetrator: every person is an
`associate` here.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from adapters import fhir, hl7v2, notice
from adapters.adapter import Native, Reading
from adapters.hl7v2 import Hl7Message, Segment
from adapters.local import local_date, phone
from adapters.record import Format, Record
from adapters.shape import code, each, flag, identifier, may, need, never, ref, text, within
from schemas.clock import rfc3339
from schemas.errors import Problem, Unreadable
from schemas.identifiers import NHI
from schemas.message import Message, new_message

NHI_OID = "2.16.840.1.113883.2.18.2"  # HISO 10046: the assigning authority of the National Health Index
_PRESENTATIONS = frozenset({"A01", "A03", "A04", "A08"})
_TRIGGERS = _PRESENTATIONS | {"A31", "A40"}
_GENDERS = {
    "M": "male",
    "F": "female",
    "O": "another",
    "X": "another",
    "A": "another",
    "U": "unknown",
}  # HL7 table 0001
# ICD-10-AM: injuries by body region, burns, effects of violence and their sequels (S00–T35, T66–T79), and
# assault (X85–Y09). Poisoning (T36–T65) and self-harm (X60–X84) are left to mental health, which the law
# guards more closely.
_INJURY = re.compile(
    r"(S[0-9]{2}|T([0-2][0-9]|3[0-5]|6[6-9]|7[0-9])|X(8[5-9]|9[0-9])|Y0[0-9])(\.?[0-9]{1,2})?"
)
_ICD10 = re.compile(r"(I10|ICD-?10)(-?AM|A|AC)?", re.IGNORECASE)
_STRANGLED = "X91"  # assault by hanging, strangulation and suffocation
_PREGNANT = "B6"  # HL7 table 0009
_POSTAL = frozenset(
    {"M", "BA"}
)  # HL7 table 0190: where letters go, and what is known to be wrong, is nobody's home
_NOT_DIALLED = frozenset({"FX", "MD", "NET", "Internet", "X.400", "TDD", "TTY", "BP"})  # HL7 table 0202
# What is read of each segment; everything else that says something is reported.
_CONSUMED = {
    "PID": {1, 3, 5, 7, 8, 9, 10, 11, 13, 14, 22},
    "PV1": {1, 2, 3, 4, 15, 39, 44, 45},
    "DG1": {1, 2, 3},
    "ACC": {1},
}
_TECHNICAL = frozenset({"MSH", "EVN", "SFT", "ARV"})

_PERSON = notice.person_shape(
    "person", nhi=may("identifiers[]", identifier(NHI, r"[A-Z]{3}[0-9]{2}[0-9A-Z]{2}"))
)
_SERVICES = code("mental-health", "alcohol-and-drug", "maternal", "crisis")
_INVOLVEMENT = {
    "person": need("person", ref),
    "involved": need("involved", flag),
    "services": may("services", each(_SERVICES, 6)),
    "formulation": may("formulation", text),
}
_JSON = Format(
    "report",
    {
        **notice.shared_records(
            ("people", "person"), _PERSON, never("is not carried for health", "leave the reference out")
        ),
        "mental-health-involvement": Record(
            "health.mental-health-involvement-reported",
            {
                "involvement": need("involvement", each(within(_INVOLVEMENT), 60, least=1)),
                "people": need("people", notice.people_of(_PERSON)),
            },
            key=("reportId", "revision"),
            at="sentAt",
            people=("people", "person"),
        ),
    },
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native* by its media type: HL7 v2 ADT, FHIR R4 JSON, or the written JSON.

    Raises `Unreadable` naming the position (`PID-7`, `/status`).
    """
    media_type = native.media_type.partition(";")[0].strip().lower()
    if media_type in hl7v2.MEDIA_TYPES or native.content.lstrip(b"\x0b\xef\xbb\xbf\r\n \t").startswith(
        b"MSH"
    ):
        return _adt(hl7v2.parse(native.content), party, now)
    if media_type == fhir.MEDIA_TYPE:
        return fhir.read(native, party, now)
    return _JSON.read(native, party, now)


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # the contract's signature
    """*message* as *party* reads it: an alert request as a FHIR flag, everything else as written JSON."""
    if message.type == "nz.isr.health.alert-requested.v1":
        return fhir.write(message)
    return notice.write(message, notice.Vocabulary(own={NHI: "nhi"}))


def _adt(message: Hl7Message, party: str, now: datetime) -> Reading:
    header = message.require("MSH")
    if header.get(9) != "ADT" or (trigger := header.get(9, component=2)) not in _TRIGGERS:
        shown = (
            trigger
            if header.get(9) == "ADT" and re.fullmatch(r"[A-Z][0-9]{2}", trigger or "")
            else "(not ADT)"
        )
        fix = "send ADT with one of: " + ", ".join(sorted(_TRIGGERS))
        raise Unreadable(
            "the hub does not read this HL7 message", Problem("MSH-9", f"trigger {shown} is not read", fix)
        )
    # HL7 table 0103: training and debugging messages look like real ones and are about nobody.
    if (header.get(11) or "P") != "P":
        raise Unreadable(
            "not a production message", Problem("MSH-11", "is not P", "send test messages to a test hub")
        )
    if (control := header.get(10)) is None:
        raise header.bad(10, "is empty", "give every message its control id")
    key = "\n".join((header.get(3) or "", header.get(4) or "", control))
    at = header.instant(7) or now
    patient = message.require("PID")
    if trigger == "A40":
        return Reading([], unplaced=list(_merged(message)))
    unplaced: list[Problem] = []
    person = _person(patient, unplaced)
    if _restricted(message):
        for name in ("address", "area", "phones"):
            person.pop(name, None)
        detail = "is in force: address, telephones and facility stay behind"
        unplaced.append(Problem("ARV", detail, "no action"))
    if trigger == "A31":
        messages = list(_alerts(message, person, party, key, at, unplaced))
    else:
        messages = list(_presentation(message, person, party, key, at, unplaced))
    unplaced += _left(message, trigger)
    return Reading(messages, unplaced=unplaced)


def _restricted(message: Hl7Message) -> bool:
    """Whether an access restriction stands. Of any kind it is read as the widest: nothing that tells
    where the person is.
    """
    return any(segment.get(2) != "D" for segment in message.all("ARV"))


def _merged(message: Hl7Message) -> Iterator[Problem]:
    """A merge of two patients has no canonical message: whose disclosures it touches is for a person to
    decide.
    """
    for segment in message.all("MRG"):
        for r in segment.repetitions(1):
            kind = "NHI" if segment.get(1, r, 4, 2) == NHI_OID else "local number"
            yield Problem(
                segment.at(1, repetition=r),
                f"is an earlier {kind} of the patient; merges are not carried",
                "tell the hub's operator, who links the two by hand" if kind == "NHI" else "no action",
            )


def _person(pid: Segment, unplaced: list[Problem]) -> dict[str, Any]:
    found: dict[str, Any] = {"ref": "p1", "role": "associate"}
    numbers: list[dict[str, str]] = []
    for r in pid.repetitions(3):
        value = pid.get(3, r)
        if value and pid.get(3, r, 4, 2) == NHI_OID:
            numbers.append({"system": NHI, "value": value.upper()})
        else:
            unplaced.append(
                Problem(pid.at(3, repetition=r), "is no NHI; local numbers are not carried", "no action")
            )
    names = [n for field in (5, 9) for r in pid.repetitions(field) if (n := _name(pid, field, r, unplaced))]
    ethnicities = list(dict.fromkeys(_ethnicities(pid, unplaced)))
    address = _address(pid, unplaced)
    found |= {
        "identifiers": numbers,
        "name": names[0] if names else None,
        "aliases": [n for n in names[1:] if n != names[0]][:20],
        "birthDate": pid.date(7),
        "gender": _GENDERS.get((pid.get(8) or "").upper()),
        "ethnicities": ethnicities[:6],
        "address": address,
        "area": ", ".join(address[part] for part in ("suburb", "city") if part in address)[:200]
        if address
        else None,
        "phones": list(_phones(pid, unplaced))[:10],
    }
    if pid.get(8) and found["gender"] is None:
        unplaced.append(Problem(pid.at(8), "is not a code of HL7 table 0001", "send M, F, O or U"))
    return {name: value for name, value in found.items() if value}


def _name(pid: Segment, field: int, r: int, unplaced: list[Problem]) -> dict[str, str] | None:
    family, given, other = (pid.get(field, r, component) for component in (1, 2, 3))
    if not family or not given:
        unplaced.append(Problem(pid.at(field, repetition=r), "lacks family or given name", "send both"))
        return None
    return {"family": family, "given": given} | ({"other": other} if other else {})


def _ethnicities(pid: Segment, unplaced: list[Problem]) -> Iterator[str]:
    for field in (10, 22):  # PID-10 holds the primary one
        for r in pid.repetitions(field):
            value = pid.get(field, r) or ""
            if re.fullmatch(r"[1-9][0-9]{0,4}", value):
                yield value
            else:
                unplaced.append(
                    Problem(pid.at(field, repetition=r), "is no Stats NZ ethnic group", "send its code")
                )


def _address(pid: Segment, unplaced: list[Problem]) -> dict[str, str] | None:
    chosen: dict[str, str] | None = None
    for r in pid.repetitions(11):
        # A street may come whole, or as number and name in the sub-components of SAD.
        whole, name, number = (pid.get(11, r, 1, sub) or "" for sub in (1, 2, 3))
        street = whole if name in whole else " ".join(part for part in (number, whole, name) if part)
        line1 = ", ".join(part for part in (street, pid.get(11, r, 2)) if part)
        city, kind = pid.get(11, r, 3), pid.get(11, r, 7)
        if chosen or kind in _POSTAL or not line1 or not city:
            fix = "send one home address (type H or C) with street and city"
            unplaced.append(Problem(pid.at(11, repetition=r), "is not taken as the home address", fix))
            continue
        chosen = {"line1": line1, "city": city}
        if suburb := pid.get(11, r, 8):
            chosen["suburb"] = suburb
        if re.fullmatch(r"[0-9]{4}", postcode := pid.get(11, r, 5) or ""):
            chosen["postcode"] = postcode
        elif postcode:
            unplaced.append(Problem(pid.at(11, 5, r), "is not a New Zealand postcode", "send four digits"))
    return chosen


def _phones(pid: Segment, unplaced: list[Problem]) -> Iterator[dict[str, str]]:
    for field, usual in ((13, "landline"), (14, "work")):
        for r in pid.repetitions(field):
            equipment = pid.get(field, r, 3)
            # XTN-1 until version 2.6; since then country, area and local number apart, or XTN-12.
            parts = (pid.get(field, r, 6), pid.get(field, r, 7))
            written = pid.get(field, r) or pid.get(field, r, 12) or "".join(part or "" for part in parts)
            found = phone(written, "mobile" if equipment == "CP" else usual)
            if found and equipment not in _NOT_DIALLED:
                yield found
            else:
                fix = "send telephone numbers with their area code"
                unplaced.append(Problem(pid.at(field, repetition=r), "is not a full telephone number", fix))


def _presentation(
    message: Hl7Message, person: dict[str, Any], party: str, key: str, at: datetime, unplaced: list[Problem]
) -> Iterator[Message]:
    visit = message.require("PV1")
    # Class E is a patient in the emergency department; type E one whom it has admitted since, the more
    # serious of the two.
    if "E" not in (visit.get(2), visit.get(4)):
        unplaced.append(
            Problem(visit.at(2), "is no emergency presentation; others are not carried", "no action")
        )
        return
    event = message.first("EVN")
    arrived = visit.instant(44)
    if arrived is None and event is not None and message.require("MSH").get(9, component=2) in ("A01", "A04"):
        arrived = event.instant(6)  # when the event occurred: at these triggers, the arrival
    if arrived is None:
        raise visit.bad(44, "is empty", "send the time of arrival")
    departed = visit.instant(45)
    accident = message.first("ACC")
    codes = list(dict.fromkeys(_injuries(message, unplaced)))
    said: dict[str, Any] = {
        "person": "p1",
        "arrivedAt": rfc3339(arrived),
        "departedAt": rfc3339(departed) if departed else None,
        "facility": None
        if _restricted(message)
        else visit.get(39) or visit.get(3, component=4) or message.require("MSH").get(4),
        "injuries": codes[:30],
        "accidentOn": accident.date(1) if accident else None,
        # Only ever true: that a code is missing does not say that it did not happen.
        "strangulation": any(code.startswith(_STRANGLED) for code in codes) or None,
        "pregnant": _PREGNANT in [visit.get(15, r) for r in visit.repetitions(15)] or None,
    }
    presentation = {name: value for name, value in said.items() if value}
    data = {"presentation": presentation, "people": [person]}
    yield new_message(party, "health.ed-presentation-recorded", data, key=key, at=at)


def _injuries(message: Hl7Message, unplaced: list[Problem]) -> Iterator[str]:
    for segment in message.all("DG1"):
        code, system = segment.get(3) or "", segment.get(3, component=3) or segment.get(2) or ""
        if _ICD10.fullmatch(system) and _INJURY.fullmatch(code.upper()):
            yield code.upper()
        else:
            unplaced.append(
                Problem(
                    segment.at(3), "is no injury of ICD-10-AM; other diagnoses are not carried", "no action"
                )
            )


def _alerts(
    message: Hl7Message,
    person: dict[str, Any],
    party: str,
    key: str,
    at: datetime,
    unplaced: list[Problem],
) -> Iterator[Message]:
    # Judged at the message's own time, so that sending it again a week later says the same.
    today = local_date(at).isoformat()
    for segment in message.all("ZAL"):
        code = (segment.get(3) or "").upper()
        if segment.get(2) != fhir.SITUATIONAL or code not in fhir.ALERT_CODES:
            # Neither category nor code is repeated: either would say what the alert is about.
            where = segment.at(2).removesuffix("-2")
            unplaced.append(Problem(where, "is an alert of a kind that is not carried", "no action"))
            continue
        started, reviewed, ended = segment.date(5), segment.date(7), segment.date(9)
        if started is None or started > today:
            unplaced.append(
                Problem(segment.at(5), "has not started, so the alert does not stand", "send it when it does")
            )
            continue
        removed = ended is not None and ended <= today
        dates = {"startedOn": started, "reviewOn": reviewed, "endedOn": ended}
        alert = {"person": "p1", "code": code} | {name: value for name, value in dates.items() if value}
        event = "health.alert-removed" if removed else "health.alert-placed"
        data = {"alert": alert, "people": [person]}
        yield new_message(party, event, data, key=f"{key}\nZAL {segment.number}", at=at)
        unplaced += [
            Problem(segment.at(n), "has no place in the alert's pointer", "no action")
            for n in segment.present()
            if n not in (1, 2, 3, 5, 7, 9)
        ]


def _left(message: Hl7Message, trigger: str) -> Iterator[Problem]:
    """What the message says beyond what was read: fields of segments that are read, whole segments
    otherwise.
    """
    read_here = {"PID", "PV1", "DG1", "ACC"} if trigger != "A31" else {"PID", "ZAL"}
    seen: set[str] = set()
    for segment in message.segments:
        if segment.name in _TECHNICAL or (segment.name == "ZAL" and trigger == "A31"):
            continue
        if segment.name not in read_here or (segment.name in ("PID", "PV1", "ACC") and segment.number > 1):
            if segment.name not in seen:
                yield Problem(segment.name, "is not carried", "no action")
            seen.add(segment.name)
            continue
        for n in segment.present():
            if n not in _CONSUMED[segment.name]:
                yield Problem(segment.at(n), "has no place in the message", "no action")


__all__ = ["read", "write"]
