"""MSD: benefit and housing records and outcomes of entitlement reviews as CSV, review requests out as CSV,
the rest as JSON.

No public event interface of MSD is known, so both files are assumed contracts (docs/formats/msd.md), in the
manner of the department's information-matching files: a manifest beside each file, one row a person. What
goes out may be opened in a spreadsheet, so a cell that would run as a formula is put behind an apostrophe
(`adapters.csvfile.guarded`) rather than refused: a request must not be lost over a minus.
"""

import re
from datetime import datetime
from typing import Any

from adapters import csvfile, notice
from adapters.adapter import Native, Reading
from adapters.csvfile import Manifest, Row
from adapters.record import Format
from adapters.shape import identifier, may, never
from schemas.clock import NEW_ZEALAND, instant_of
from schemas.errors import Problem
from schemas.message import Message, new_message

_PERSON_COLUMNS = ("REFERENCE", "SWN", "FAMILY NAME", "GIVEN NAMES", "BIRTH DATE", "GENDER?")
RECORDS = (
    *_PERSON_COLUMNS,
    "HELP AVAILABLE",
    "BENEFIT",
    "HOUSING REGISTER?",
    "HOUSING ADDRESS?",
    "SUBURB?",
    "CITY?",
    "POSTCODE?",
)
REVIEWS = (*_PERSON_COLUMNS, "TASK?", "COMPLETED ON", "HELP GRANTED", "GRANTS?")
REQUEST_COLUMNS = (
    "REQUEST",
    "TASK",
    "DUE",
    "REVIEWS",
    "SWN",
    "FAMILY NAME",
    "GIVEN NAMES",
    "BIRTH DATE",
    "PHONE",
    "ADDRESS",
    "SUBURB",
    "CITY",
    "POSTCODE",
    "DO NOT CONTACT",
    "SAFE CHANNELS",
    "SAFE TIMES",
    "LEAVE MESSAGE",
    "CODE WORD",
)
_BENEFITS = {
    "NONE": "none",
    "JOBSEEKER SUPPORT": "jobseeker",
    "SOLE PARENT SUPPORT": "sole-parent",
    "SUPPORTED LIVING PAYMENT": "supported-living",
    "OTHER": "other",
}
_GRANTS = {
    "ACCOMMODATION SUPPLEMENT": "accommodation-supplement",
    "RELOCATION GRANT": "relocation-grant",
    "BOND GRANT": "bond-grant",
    "PHONE REPLACEMENT": "phone-replacement",
    "BENEFIT CHANGE": "benefit-change",
    "NONE": "none",
}
_YES_NO = {True: "Y", False: "N", None: ""}
_GENDERS = {"M": "male", "F": "female", "X": "another", "U": "unknown"}
_SWN = re.compile(r"[0-9]{9}")  # a social welfare number
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")

_PERSON = notice.person_shape("person", swn=may("identifiers[]", identifier("swn", _SWN.pattern)))
_JSON = Format(
    "report",
    notice.shared_records(("people", "person"), _PERSON, never("is not carried for MSD", "leave it out")),
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native*: one of the two files when it is CSV (its header says which), else the JSON
    that all agencies share.

    Raises `Unreadable` when the file is not whole (naming what differs) or nothing of it can be read.
    """
    if native.media_type.partition(";")[0].strip().lower() != csvfile.MEDIA_TYPE:
        return _JSON.read(native, party, now)
    table = csvfile.read_table(native, [RECORDS, REVIEWS])
    take = _review if "COMPLETED ON" in table.columns else _record
    return table.gather(lambda row, unplaced: take(row, table.manifest, party, now, unplaced))


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # the contract's signature
    """*message* as MSD reads it: a review request as a CSV file of one row, everything else as written
    JSON."""
    if message.type == "nz.isr.msd.entitlement-review-requested.v1":
        row = _request(message)
        return Native(csvfile.write_table(REQUEST_COLUMNS, [row]), csvfile.MEDIA_TYPE, f"{message.id}.csv")
    return notice.write(message, notice.Vocabulary(own={"swn": "swn"}))


def _person(row: Row, now: datetime) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ref": "p1",
        "role": "associate",
        "identifiers": [{"system": "swn", "value": row.matching("SWN", _SWN, "write nine digits")}],
        "name": row.name("FAMILY NAME", "GIVEN NAMES") or row.require("FAMILY NAME"),
        "birthDate": row.date("BIRTH DATE", not_after=now),
        "gender": row.one_of("GENDER", _GENDERS) if row.get("GENDER") else None,
    }
    return {name: value for name, value in found.items() if value}


def _key(row: Row, file: Manifest) -> str:
    reference = row.matching("REFERENCE", _REFERENCE, "write up to 40 letters, digits, dots or hyphens")
    return f"{file.file_date}/{reference}"


def _record(row: Row, file: Manifest, party: str, now: datetime, unplaced: list[Problem]) -> Message:  # noqa: ARG001  # shared signature
    said: dict[str, Any] = {
        "person": "p1",
        "helpAvailable": row.flag("HELP AVAILABLE"),
        "benefit": row.one_of("BENEFIT", _BENEFITS),
        "onHousingRegister": row.flag("HOUSING REGISTER"),
        "housingAddress": row.address("HOUSING ADDRESS"),
    }
    record = {name: value for name, value in said.items() if value is not None}
    data = {"records": [record], "people": [_person(row, now)]}
    return new_message(party, "msd.income-and-housing-reported", data, key=_key(row, file), at=file.produced)


def _review(row: Row, file: Manifest, party: str, now: datetime, unplaced: list[Problem]) -> Message:  # noqa: ARG001  # shared signature
    row.require("COMPLETED ON")
    granted = bool(row.one_of("HELP GRANTED", {"Y": True, "N": False}))
    grants = []
    for word in row.lines("GRANTS", 6):
        if (grant := _GRANTS.get(" ".join(word.upper().replace("-", " ").split()))) is None:
            raise row.bad(
                "GRANTS", "has an entry that is not one of the agreed words", "use: " + "; ".join(_GRANTS)
            )
        grants.append(grant)
    said: dict[str, Any] = {
        "person": "p1",
        "task": row.matching("TASK", _TASK, "repeat the reference of the task") if row.get("TASK") else None,
        "completedOn": row.date("COMPLETED ON", not_after=now),
        "helpGranted": granted,
        "grants": list(dict.fromkeys(grants)) or None,
    }
    review = {name: value for name, value in said.items() if value is not None}
    data = {"review": review, "people": [_person(row, now)]}
    return new_message(party, "msd.entitlement-review-completed", data, key=_key(row, file), at=file.produced)


def _request(message: Message) -> dict[str, str]:
    """The request's row; what was withheld is an empty cell."""
    review: dict[str, Any] = message.data.get("review", {})
    person: dict[str, Any] = next(
        (p for p in message.data.get("people", ()) if p.get("ref") == review.get("person")), {}
    )
    name, address, safe = (person.get(part, {}) for part in ("name", "address", "safeContact"))
    numbers = [one["value"] for one in person.get("identifiers", ()) if one.get("system") == "swn"]
    phones = [person["preferredPhone"]] if "preferredPhone" in person else person.get("phones", [])
    due = review.get("dueAt")
    born = person.get("birthDate", "")
    return {
        "REQUEST": message.id,
        "TASK": review.get("task", ""),
        "DUE": instant_of(due).astimezone(NEW_ZEALAND).strftime("%d/%m/%Y %H:%M") if due else "",
        "REVIEWS": "; ".join(review.get("kinds", ())),
        "SWN": numbers[0] if numbers else "",
        "FAMILY NAME": name.get("family", ""),
        "GIVEN NAMES": " ".join(name[part] for part in ("given", "other") if part in name),
        "BIRTH DATE": "/".join(reversed(born.split("-"))),
        "PHONE": phones[0]["number"] if phones else "",
        "ADDRESS": address.get("line1", ""),
        "SUBURB": address.get("suburb", ""),
        "CITY": address.get("city", ""),
        "POSTCODE": address.get("postcode", ""),
        # Unknown is not safe: without a statement the cell is empty, never N.
        "DO NOT CONTACT": _YES_NO[safe.get("doNotContact")],
        "SAFE CHANNELS": "; ".join(safe.get("channels", ())),
        "SAFE TIMES": safe.get("times", ""),
        "LEAVE MESSAGE": _YES_NO[safe.get("leaveMessage")],
        "CODE WORD": safe.get("codeWord", ""),
    }
