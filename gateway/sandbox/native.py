"""How the sandbox's agencies write: their own formats, from what they know about invented people.

Nothing here knows canonical messages. Each function gives bytes as the agency's system would send them; the
adapters read them as they would read the agency's.
"""

import csv
import hashlib
import io
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from adapters import corrections, msd
from adapters.adapter import Native
from gateway.sandbox.people import Claim, Person, Presentation, Release
from schemas.clock import NEW_ZEALAND

JSON = "application/json"
# How each agency's JSON names its records, its people, their labels and its own number of a person.
_FORMS = {
    "police": ("form", "persons", "line", "personRecordId", "police-person"),
    "oranga-tamariki": ("record", "people", "person", "cyrasId", "cyras"),
    "fss": ("kind", "people", "person", "fssPersonId", "fss-person"),
    "justice": ("document", "parties", "number", "justicePersonId", "justice-person"),
    "education": ("return", "people", "person", "enrolmentNumber", "learner"),
    "ngo": ("form", "people", "person", "clientNumber", "ngo-client"),
    "corrections": ("report", "people", "person", "prn", "prn"),
    "health": ("report", "people", "person", "nhi", "nhi"),
    "msd": ("report", "people", "person", "swn", "swn"),
    "acc": ("report", "people", "person", "claimantId", "acc-claimant"),
}
_POLICE_ROLES = {
    "perpetrator": "Predominant aggressor",
    "victim": "Primary victim",
    "child": "Child exposed",
    "witness": "Witness",
    "associate": "Associate",
}


def agency_of(party: str) -> str:
    """The agency whose format *party* writes."""
    return party.split("#", maxsplit=1)[0].split(".", maxsplit=1)[0]


def local(instant: datetime) -> str:
    """*instant* as New Zealand clocks show it, with the offset."""
    return instant.astimezone(NEW_ZEALAND).isoformat(timespec="seconds")


def address(at: Any) -> dict[str, str]:
    """An address as the JSON formats write it."""
    return {"street": at.line1, "suburb": at.suburb, "town": at.city, "postcode": at.postcode}


def person(
    party: str,
    label: int,
    role: str,
    who: Person,
    *,
    contact: bool = False,
    number: str | None = None,
    detail: bool = True,
) -> dict[str, Any]:
    """*who* as *party*'s system writes a person; with *contact* also where and how to reach them, without
    *detail* only who they are.
    """
    agency = agency_of(party)
    _, _, label_field, number_field, system = _FORMS[agency]
    name = who.spelled(agency)
    shown: dict[str, Any] = {label_field: label, "role": _POLICE_ROLES[role] if agency == "police" else role}
    own = number or who.identifiers.get(system)
    if own is not None:
        shown[number_field] = own
    shown["name"] = (
        {"surname": name.family, "forenames": name.given}
        if agency == "police"
        else {"family": name.family, "given": name.given}
    )
    if who.birth_date is not None:
        shown["birthDate"] = who.birth_date.isoformat()
    if who.unborn:
        shown["unborn"] = True
    if detail:
        shown["gender"] = who.gender
        shown["ethnicities"] = list(who.ethnicities)
    if contact:
        shown["address"] = address(who.address_at(agency))
        if who.safe_address is not None and agency == "police":
            shown["whereaboutsProtected"] = True
        if who.phones:
            shown["phones"] = [
                {"number": p.local, "type": p.kind, "preferred": n == 0} for n, p in enumerate(who.phones)
            ]
        if who.safe_contact is not None:
            shown["safeContact"] = safe_contact(who)
        if who.school is not None:
            shown["school"] = {"name": who.school.name, "number": who.school.number}
    return shown


def safe_contact(who: Person) -> dict[str, Any]:
    """Whether and how contact with *who* is safe."""
    safe = who.safe_contact
    if safe is None:
        return {"safeToContact": False}
    return {
        "safeToContact": not safe.do_not_contact,
        "by": list(safe.channels),
        "times": safe.times,
        "codeWord": safe.code_word,
        "leaveMessage": safe.leave_message,
        "confirmedOn": safe.confirmed_on.isoformat(),
    }


def record(party: str, kind: str, people: Sequence[Mapping[str, Any]], **fields: Any) -> Native:
    """A JSON record of *party*, absent fields left out."""
    form, people_field, *_ = _FORMS[agency_of(party)]
    said = {form: kind, **{k: v for k, v in fields.items() if v is not None}, people_field: list(people)}
    return Native(json.dumps(said, ensure_ascii=False).encode(), JSON, f"{kind}.json")


def whole(said: Mapping[str, Any]) -> Native:
    """A JSON file as it stands."""
    return Native(json.dumps(said, ensure_ascii=False).encode(), JSON, f"{said['kind']}.json")


def custody_file(rows: Sequence[Mapping[str, str]], produced: datetime) -> Native:
    """Corrections' daily file with its manifest."""
    return _table([c.rstrip("?") for c in corrections.LAYOUT], rows, produced, "custody")


def release_row(
    number: str, who: Person, release: Release, victim: Person, *, served: bool = False
) -> dict[str, str]:
    """The row of a planned release, or (*served*) of somebody set free by time served."""
    planned = {
        "parole": "PLANNED PAROLE",
        "statutory-release": "PLANNED STATUTORY RELEASE",
        "release-on-conditions": "PLANNED RELEASE ON CONDITIONS",
        "remand-release": "PLANNED REMAND RELEASE",
    }
    at = release.at.astimezone(NEW_ZEALAND)
    row = custody_row(number, who, "TIME SERVED" if served else planned[release.type], at)
    row |= {
        "PRISON": release.prison,
        "ISR SITE": release.site.upper().replace("-", " "),
        "HIGH RISK": "Y",
        "ELECTRONIC MONITORING": "Y" if release.electronic_monitoring else "N",
        "CONDITIONS": "; ".join(release.conditions),
        "ADDRESS": release.address.line1,
        "SUBURB": release.address.suburb,
        "CITY": release.address.city,
        "POSTCODE": release.address.postcode,
    }
    if release.non_association and victim.birth_date is not None:
        row |= {
            "NON-ASSOCIATION": "VICTIM",
            "OTHER FAMILY NAME": victim.name.family,
            "OTHER GIVEN NAMES": victim.name.given,
            "OTHER BIRTH DATE": victim.birth_date.strftime("%d/%m/%Y"),
        }
    return row


def custody_row(number: str, who: Person, event: str, at: datetime) -> dict[str, str]:
    """A row that says what happened to a prisoner, and when."""
    name = who.spelled("corrections")
    clock = at.astimezone(NEW_ZEALAND)
    return {
        "REFERENCE": number,
        "PRN": who.identifiers["prn"],
        "FAMILY NAME": name.family,
        "GIVEN NAMES": name.given,
        "BIRTH DATE": who.birth_date.strftime("%d/%m/%Y") if who.birth_date else "",
        "GENDER": {"male": "M", "female": "F", "another": "X"}.get(who.gender, "U"),
        "EVENT": event,
        "EVENT DATE": clock.strftime("%d/%m/%Y"),
        "EVENT TIME": clock.strftime("%H:%M"),
        "HIGH RISK": "N",
    }


_BENEFITS = {
    "none": "NONE",
    "jobseeker": "JOBSEEKER SUPPORT",
    "sole-parent": "SOLE PARENT SUPPORT",
    "supported-living": "SUPPORTED LIVING PAYMENT",
}


def income_file(people: Iterable[tuple[str, Person]], produced: datetime) -> Native:
    """MSD's records of *people* (reference, person)."""
    rows = []
    for reference, who in people:
        home = who.address_at("msd")
        rows.append(
            _msd_person(reference, who)
            | {
                "HELP AVAILABLE": "Y",
                "BENEFIT": _BENEFITS.get(who.benefit, "OTHER"),
                "HOUSING REGISTER": "Y" if who.on_housing_register else "N",
                "HOUSING ADDRESS": home.line1,
                "SUBURB": home.suburb,
                "CITY": home.city,
                "POSTCODE": home.postcode,
            }
        )
    return _table([c.rstrip("?") for c in msd.RECORDS], rows, produced, "income")


def review_file(
    reviews: Iterable[tuple[str, Person, str, str]], completed: date, produced: datetime
) -> Native:
    """MSD's outcomes of *reviews* (reference, person, task, grant)."""
    rows = [
        _msd_person(reference, who)
        | {
            "TASK": task,
            "COMPLETED ON": completed.strftime("%d/%m/%Y"),
            "HELP GRANTED": "N" if grant == "NONE" else "Y",
            "GRANTS": grant,
        }
        for reference, who, task, grant in reviews
    ]
    return _table([c.rstrip("?") for c in msd.REVIEWS], rows, produced, "reviews")


def _msd_person(reference: str, who: Person) -> dict[str, str]:
    name = who.spelled("msd")
    return {
        "REFERENCE": reference,
        "SWN": who.identifiers["swn"],
        "FAMILY NAME": name.family,
        "GIVEN NAMES": name.given,
        "BIRTH DATE": who.birth_date.strftime("%d/%m/%Y") if who.birth_date else "",
    }


def _table(
    columns: Sequence[str], rows: Sequence[Mapping[str, str]], produced: datetime, stem: str
) -> Native:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    content = buffer.getvalue().encode()
    name = f"{stem}-{produced.astimezone(NEW_ZEALAND):%Y%m%dT%H%M}"
    manifest = {
        "file": f"{name}.csv",
        "rows": len(rows),
        "sha256": hashlib.sha256(content).hexdigest(),
        "produced": local(produced),
    }
    return Native(
        content, "text/csv", f"{name}.csv", {f"{name}.manifest.json": json.dumps(manifest).encode()}
    )


def claims(party: str, key: str, who: Person, listed: Sequence[Claim], at: datetime) -> Native:
    """ACC's claims of one person, as its claims API shapes them."""
    said = {
        "correlationId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{party}/{key}")),
        "reportedAt": local(at),
        "claims": [_claim(who, claim) for claim in listed],
    }
    return Native(json.dumps(said, ensure_ascii=False).encode(), JSON, "claims.json")


def _claim(who: Person, claim: Claim) -> dict[str, Any]:
    name = who.spelled("acc")
    details: dict[str, Any] = {
        "surname": name.family,
        "firstName": name.given,
        "dateOfBirth": who.birth_date.strftime("%d-%m-%Y") if who.birth_date else None,
        "accidentDate": claim.accident_on.strftime("%d-%m-%Y"),
        "gender": {"male": "M", "female": "F", "another": "X"}.get(who.gender, "U"),
    }
    if "nhi" in who.identifiers:
        details["nhi"] = who.identifiers["nhi"]
    sites = claim.body_sites or ("other",)
    return {
        "claimNumber": claim.reference,
        "sensitiveClaim": claim.sensitive,
        "accidentCause": claim.cause,
        "patient": {"details": {k: v for k, v in details.items() if v is not None}},
        "diagnosis": [
            {
                "diagnosisCode": code,
                "diagnosisCodeType": "ICD10",
                "bodySite": sites[min(n, len(sites) - 1)],
                "primaryDiagnosisIndicator": n == 0,
            }
            for n, code in enumerate(claim.diagnoses or ("Z00",))
        ],
    }


def _hl7_time(at: datetime) -> str:
    clock = at.astimezone(NEW_ZEALAND)
    return clock.strftime("%Y%m%d%H%M%S%z")


def _hl7(text: str) -> str:
    """*text* with HL7's delimiters escaped."""
    for sign, escape in (("\\", "\\E\\"), ("|", "\\F\\"), ("^", "\\S\\"), ("&", "\\T\\"), ("~", "\\R\\")):
        text = text.replace(sign, escape)
    return text


def _head(facility: str, trigger: str, control: str, at: datetime, who: Person) -> list[str]:
    name = who.spelled("health")
    sex = {"male": "M", "female": "F", "another": "O"}.get(who.gender, "U")
    born = who.birth_date.strftime("%Y%m%d") if who.birth_date else ""
    nhi = who.identifiers["nhi"]
    return [
        rf"MSH|^~\&|PAS|{_hl7(facility)}|ISR|HUB|{_hl7_time(at)}||ADT^{trigger}|{control}|P|2.4"
        "||||||UNICODE UTF-8",
        f"EVN|{trigger}|{_hl7_time(at)}",
        f"PID|1||{nhi}^^^&2.16.840.1.113883.2.18.2&ISO^NHI||{_hl7(name.family)}^{_hl7(name.given)}||{born}|{sex}",
    ]


def presentation(who: Person, visit: Presentation, control: str, at: datetime) -> Native:
    """A presentation at an emergency department, as the hospital's ADT^A04."""
    lines = _head(visit.facility, "A04", control, at, who)
    times = f"{_hl7_time(visit.arrived_at)}|{_hl7_time(visit.departed_at)}"
    lines.append(f"PV1|1|E|ED^^^{_hl7(visit.facility)}" + "|" * 41 + times)
    lines += [f"DG1|{n}||{code}^^I10" for n, code in enumerate(visit.injuries, start=1)]
    if visit.accident_on is not None:
        lines.append(f"ACC|{visit.accident_on:%Y%m%d}")
    return Native(("\r".join(lines) + "\r").encode(), "application/hl7-v2+er7", f"{control}.hl7")


def alert(who: Person, code: str, started: date, review: date, control: str, at: datetime) -> Native:
    """A situational alert that stands, as the hospital's ADT^A31 with ZAL; an unrelated clinical alert stands
    beside it.
    """
    lines = _head("Waitaha", "A31", control, at, who)
    lines.append(f"ZAL|1|H5|{code}||{started:%Y%m%d}||{review:%Y%m%d}")
    lines.append(f"ZAL|2|H2|K01||{started:%Y%m%d}")
    return Native(("\r".join(lines) + "\r").encode(), "application/hl7-v2+er7", f"{control}.hl7")
