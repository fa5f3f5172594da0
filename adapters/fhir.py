"""FHIR R4 flags: alert requests to a health record, and what the record says of its alerts.

Flags follow the New Zealand base profiles (the NHI as an identifier, the alert codes of category H5) and
carry the restrictions that keep an alert from the person it warns about: confidentiality R, sensitivity
SDV, and one tag each against portal, proxy and letter. `check_flag` holds the subset of R4 that the hub
speaks, with the required code bindings: general FHIR models accept `status: "actve"`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from adapters.adapter import Native, Reading, Rejected
from adapters.local import local_date
from schemas.canonical import digest
from schemas.clock import instant_of
from schemas.errors import HubError, Problem, Unreadable
from schemas.identifiers import NHI
from schemas.message import Message, decode, new_message

MEDIA_TYPE = "application/fhir+json"
NHI_SYSTEM = "https://standards.digital.health.nz/ns/nhi-id"
_NHI_SYSTEMS = frozenset(
    {NHI_SYSTEM, "https://standards.digital.health.nz/id/nhi"}
)  # the second is deprecated, still sent
_REGION = "https://standards.digital.health.nz/ns/central-region"
ALERT_CATEGORY = f"{_REGION}/alert-category"
ALERT_CODE = f"{_REGION}/flag-alert-code-h5"
_FLAG_CATEGORY = "http://terminology.hl7.org/CodeSystem/flag-category"
_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_OWN = "https://schemas.isr.example.nz/fhir"
DISPLAY = f"{_OWN}/CodeSystem/alert-display"
REVIEW = f"{_OWN}/StructureDefinition/alert-review-date"
CONTACT = f"{_OWN}/StructureDefinition/alert-contact"
_ABSENT = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}

SITUATIONAL = "H5"
# Central Region's situational alerts that concern harm between people; the others of H5 are housekeeping.
ALERT_CODES: Mapping[str, str] = {
    "C01": "Child abuse",
    "C02": "Child at risk",
    "C03": "Child protection",
    "D01": "Dangerous dogs",
    "D02": "Domestic/intimate partner violence",
    "D03": "Do not visit alone",
    "E01": "Elder abuse or neglect",
    "P01": "Protection order",
    "R01": "Risk to others or staff",
}
_STATUS = ("active", "inactive", "entered-in-error")
_BUNDLES = ("message", "collection", "batch", "transaction", "searchset", "history", "document")
_GENDERS = {"male": "male", "female": "female", "other": "another", "unknown": "unknown"}
_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2}))?"
)
_UUID = re.compile(r"urn:uuid:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def write(message: Message) -> Native:
    """The alert request *message* as a Flag. What was withheld is absent, or `masked` where R4 demands
    an element.
    """
    alert: dict[str, Any] = message.data.get("alert", {})
    code = str(alert.get("code"))
    flag: dict[str, Any] = {
        "resourceType": "Flag",
        "id": message.id,
        "meta": {
            "security": [{"system": _CONFIDENTIALITY, "code": "R"}, {"system": _ACT_CODE, "code": "SDV"}],
            # Always, even when `display` was withheld: the absence of a restriction must not read as a
            # permission.
            "tag": [{"system": DISPLAY, "code": f"no-{where}"} for where in ("portal", "proxy", "letter")],
        },
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{message.id}"}],
        "status": "active",
        "category": [
            {
                "coding": [
                    {"system": _FLAG_CATEGORY, "code": "safety"},
                    {"system": ALERT_CATEGORY, "code": SITUATIONAL},
                ]
            }
        ],
        "code": {"coding": [{"system": ALERT_CODE, "code": code, "display": ALERT_CODES[code]}]}
        if code in ALERT_CODES
        else {"extension": [_ABSENT]},
    }
    person: dict[str, Any] = next(
        (p for p in message.data.get("people", ()) if p.get("ref") == alert.get("person")), {}
    )
    flag["subject"], flag["contained"] = _subject(person)
    flag["period"] = {k: alert[n] for k, n in (("start", "startedOn"), ("end", "endedOn")) if n in alert}
    extensions = [
        {"url": url, value: alert[name]}
        for url, value, name in ((REVIEW, "valueDate", "reviewOn"), (CONTACT, "valueString", "contact"))
        if name in alert
    ]
    flag["extension"] = extensions
    # R4 knows no empty object or list.
    content = orjson.dumps({k: v for k, v in flag.items() if v}, option=orjson.OPT_INDENT_2)
    return Native(content, MEDIA_TYPE, f"{message.id}.json")


def _subject(person: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The Flag's subject and what it contains: the NHI says enough; without it, the details that find
    the record.
    """
    numbers = [
        {"use": "official", "system": NHI_SYSTEM, "value": one["value"]}
        for one in person.get("identifiers", ())
        if one.get("system") == NHI
    ]
    if numbers:
        return {"type": "Patient", "identifier": numbers[0]}, []
    names = [n for n in (person.get("name"), *person.get("aliases", ())) if n]
    address = person.get("address")
    back = {ours: theirs for theirs, ours in _GENDERS.items()}
    patient: dict[str, Any] = {
        "name": [
            {
                "use": "official" if n is person.get("name") else "old",
                "family": n["family"],
                "given": [n[part] for part in ("given", "other") if part in n],
            }
            for n in names
        ],
        "birthDate": person.get("birthDate"),
        "gender": back.get(person.get("gender", "")),
        "address": [
            {
                "line": [address["line1"], *([address["suburb"]] if "suburb" in address else [])],
                "city": address["city"],
            }
            | ({"postalCode": address["postcode"]} if "postcode" in address else {})
        ]
        if address
        else None,
    }
    patient = {name: value for name, value in patient.items() if value}
    if not patient:
        return {"extension": [_ABSENT]}, []
    return {"reference": "#subject"}, [{"resourceType": "Patient", "id": "subject", **patient}]


def check_flag(flag: Any, pointer: str = "") -> list[Problem]:
    """What keeps *flag* (decoded JSON) from being a Flag of the R4 subset that the hub speaks; empty
    when nothing does.
    """
    if not isinstance(flag, dict) or flag.get("resourceType") != "Flag":
        return [Problem(f"{pointer}/resourceType", "is not Flag", "send a FHIR R4 Flag, or a Bundle of them")]
    found = []
    if flag.get("status") not in _STATUS:
        found.append(
            Problem(f"{pointer}/status", "is not a code of flag-status", "use one of: " + ", ".join(_STATUS))
        )
    if not isinstance(flag.get("code"), dict) or not (_codings(flag["code"]) or "extension" in flag["code"]):
        found.append(Problem(f"{pointer}/code", "has no coding", "send the alert's code with its system"))
    subject = flag.get("subject")
    if not isinstance(subject, dict) or not {"identifier", "reference", "extension"} & set(subject):
        found.append(
            Problem(
                f"{pointer}/subject", "names nobody", "send the NHI as identifier, or a contained Patient"
            )
        )
    for name in ("category", "contained", "identifier", "extension"):
        value = flag.get(name, [{}])
        if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
            found.append(Problem(f"{pointer}/{name}", "is not a list of objects", "send it as R4 defines it"))
    period = flag.get("period", {"start": "2000-01-01"})
    if not isinstance(period, dict) or not period:
        found.append(Problem(f"{pointer}/period", "is not a Period", "send start and end"))
    else:
        for name in ("start", "end"):
            if name in period and _day(period[name]) is None:
                fix = "send YYYY-MM-DD, or a time with its offset"
                found.append(Problem(f"{pointer}/period/{name}", "is not a whole date", fix))
    meta = flag.get("meta", {})
    if not isinstance(meta, dict) or ("lastUpdated" in meta and _instant(meta["lastUpdated"]) is None):
        fix = "send an RFC 3339 instant as lastUpdated"
        found.append(Problem(f"{pointer}/meta", "has no instant as lastUpdated", fix))
    return found


def read(native: Native, party: str, now: datetime) -> Reading:
    """The alerts in *native*: a Flag, or a Bundle of which one bad entry is rejected alone. Active flags
    are alerts placed, others removed.

    Raises `Unreadable` (`InvalidMessage`, `TooLarge` for what is no JSON) when nothing can be read.
    """
    value = decode(native.content)
    if not isinstance(value, dict) or value.get("resourceType") != "Bundle":
        messages, unplaced = _flag(value, "", party, now)
        return Reading(messages, unplaced=unplaced)
    entries = value.get("entry", [])
    if value.get("type") not in _BUNDLES or not isinstance(entries, list):
        fix = "use one of: " + ", ".join(_BUNDLES)
        raise Unreadable(
            "not a FHIR Bundle", Problem("/type", "is not a code of bundle-type, or entry is no list", fix)
        )
    reading = Reading([])
    for i, entry in enumerate(entries):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if isinstance(resource, dict) and resource.get("resourceType") in (
            "MessageHeader",
            "Patient",
            "Provenance",
        ):
            reading.unplaced.append(
                Problem(f"/entry/{i}/resource", "is not a Flag; only flags are carried", "no action")
            )
            continue
        try:
            messages, unplaced = _flag(resource, f"/entry/{i}/resource", party, now)
        except HubError as error:
            # Not orjson, which refuses integers beyond 64 bits: what is wrong may be just that.
            again = json.dumps(resource, separators=(",", ":")).encode("ascii")
            reading.rejected.append(Rejected(Native(again, MEDIA_TYPE, f"entry-{i + 1}.json"), error))
            continue
        reading.messages.extend(m for m in messages if m not in reading.messages)
        reading.unplaced.extend(unplaced)
    return reading


_CARRIED = frozenset(
    {
        "resourceType",
        "id",
        "meta",
        "text",
        "implicitRules",
        "language",
        "status",
        "category",
        "code",
        "subject",
    }
    | {"period", "identifier", "contained", "extension"}
)


def _flag(flag: Any, pointer: str, party: str, now: datetime) -> tuple[list[Message], list[Problem]]:
    if problems := check_flag(flag, pointer):
        raise Unreadable("not a Flag that the hub reads", *problems)
    code = next((c["code"] for c in _codings(flag["code"]) if c["system"] == ALERT_CODE), None)
    # Every category must allow it, and at least one must say H5: another category beside it is another reason
    # for the flag.
    categories = {
        c["code"] for one in flag.get("category", ()) for c in _codings(one) if c["system"] == ALERT_CATEGORY
    }
    if categories != {SITUATIONAL} or code not in ALERT_CODES:
        return [], [Problem(pointer or "/", "is an alert of a kind that is not carried", "no action")]
    extensions = {e.get("url"): e for e in flag.get("extension", ())}
    period = flag.get("period", {})
    dates = {
        "startedOn": _day(period.get("start")),
        "reviewOn": _day(extensions.get(REVIEW, {}).get("valueDate")),
        "endedOn": _day(period.get("end")),
    }
    alert = {"person": "p1", "code": code} | {name: value for name, value in dates.items() if value}
    data = {"alert": alert, "people": [_person(flag, pointer)]}
    event = "health.alert-placed" if flag["status"] == "active" else "health.alert-removed"
    # A flag's own id may be built from the patient's number, so the event is named by the whole of what was
    # said.
    said = json.dumps(flag, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    answered = next(
        (m[1] for i in flag.get("identifier", ()) if (m := _UUID.fullmatch(str(i.get("value"))))), None
    )
    at = _instant(flag.get("meta", {}).get("lastUpdated")) or now
    message = new_message(party, event, data, key=digest(said.encode()).hex(), at=at, cause=answered)
    left = sorted(name for name in flag if name not in _CARRIED)
    return [message], [
        Problem(f"{pointer}/{_shown(name)}", "has no place in the alert's pointer", "no action")
        for name in left
    ]


def _person(flag: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    subject = flag["subject"]
    patient: Mapping[str, Any] = {}
    if isinstance(reference := subject.get("reference"), str) and reference.startswith("#"):
        patient = next((c for c in flag.get("contained", ()) if c.get("id") == reference[1:]), {})
    numbers = [
        {"system": NHI, "value": one["value"].strip().upper()}
        for one in (subject.get("identifier"), *_objects(patient.get("identifier")))
        if isinstance(one, dict) and one.get("system") in _NHI_SYSTEMS and isinstance(one.get("value"), str)
    ]
    found: dict[str, Any] = {
        "ref": "p1",
        "role": "associate",
        "identifiers": numbers,
        "name": next(iter(_names(patient)), None),
        "birthDate": _day(patient.get("birthDate")),
        "gender": _GENDERS.get(str(patient.get("gender"))),
    }
    if not numbers and not found["name"]:
        fix = "send the NHI as identifier, or a contained Patient with a name"
        raise Unreadable("a Flag about nobody", Problem(f"{pointer}/subject", "does not say who it is", fix))
    return {name: value for name, value in found.items() if value}


def _names(patient: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for one in _objects(patient.get("name")):
        family, given = one.get("family"), one.get("given")
        if (
            isinstance(family, str)
            and isinstance(given, list)
            and given
            and all(isinstance(g, str) for g in given)
        ):
            yield {"family": family, "given": given[0]} | (
                {"other": " ".join(given[1:])} if given[1:] else {}
            )


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _codings(concept: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        c
        for c in _objects(concept.get("coding"))
        if isinstance(c.get("system"), str) and isinstance(c.get("code"), str)
    ]


def _day(value: Any) -> str | None:
    """The date of a FHIR date or dateTime on New Zealand clocks; None for anything else, a bare year or
    month included.
    """
    found = _DATE_TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    if found[2] is None:
        try:
            return datetime.fromisoformat(found[1]).replace(tzinfo=UTC).date().isoformat()
        except ValueError:
            return None
    instant = _instant(value)
    return local_date(instant).isoformat() if instant else None


def _instant(value: Any) -> datetime | None:
    found = _DATE_TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2] is None:
        return None
    try:
        return instant_of(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", found[0]))
    except (ValueError, OverflowError):
        return None


def _shown(name: str) -> str:
    """*name* when it looks like an element of FHIR; a sender may have put a value there."""
    return name if re.fullmatch(r"_?[a-z][A-Za-z]{0,39}", name) else "(unreadable name)"
