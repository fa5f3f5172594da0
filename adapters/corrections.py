"""Corrections: the daily custody file, one row an event, and the JSON reports that all agencies share.

The file is CSV with a manifest (`adapters.csvfile`), columns and words as in
docs/formats/corrections.md: an assumed contract in the vocabulary of the Prison Operations Manual. Times
are on New Zealand clocks. A row that cannot be read is rejected alone, as a file that can be sent again.

Who a prisoner is to a family is not in a custody record, so the person is an `associate`, except where
Corrections itself says so: a high risk of family violence makes a `perpetrator`, a victim's
non-association order names a `victim`.
"""

import re
from datetime import datetime, timedelta
from typing import Any

from adapters import csvfile, notice
from adapters.adapter import Native, Reading
from adapters.csvfile import Manifest, Row
from adapters.local import instant_at
from adapters.record import Format
from adapters.shape import identifier, may, never
from schemas.clock import rfc3339
from schemas.errors import Problem
from schemas.message import Message, new_message

LAYOUT = (
    "REFERENCE",
    "PRN",
    "FAMILY NAME",
    "GIVEN NAMES",
    "ALIASES?",
    "BIRTH DATE",
    "GENDER",
    "EVENT",
    "EVENT DATE",
    "EVENT TIME",
    "PRISON?",
    "ISR SITE?",
    "HIGH RISK",
    "ELECTRONIC MONITORING?",
    "CONDITIONS?",
    "ADDRESS?",
    "SUBURB?",
    "CITY?",
    "POSTCODE?",
    "NON-ASSOCIATION?",
    "OTHER FAMILY NAME?",
    "OTHER GIVEN NAMES?",
    "OTHER BIRTH DATE?",
)
# The words of the file → canonical event, status. Every word is known or the row is rejected: an unknown
# event is never guessed.
EVENTS = {
    "RECEIVED": ("received", "in-custody"),
    "TRANSFERRED": ("transferred", "in-custody"),
    "REMANDED IN CUSTODY": ("remanded", "in-custody"),
    "BAILED": ("bailed", "on-bail"),
    "EM BAIL": ("bailed", "on-bail"),
    "SENTENCED TO PRISON": ("sentenced", "in-custody"),
    "SENTENCED TO HOME DETENTION": ("sentenced", "community-sentence"),
    "SENTENCED TO COMMUNITY": ("sentenced", "community-sentence"),
    "TIME SERVED": ("released-time-served", "released"),
    "RELEASED AT STATUTORY DATE": ("released", "released"),
    "RELEASED ON CONDITIONS": ("released", "released"),
    "RELEASED ON PAROLE": ("released-on-parole", "released"),
    "RELEASED COMPASSIONATE": ("released", "released"),
    "TEMPORARY RELEASE": ("temporary-release", "in-custody"),
    "ESCAPED": ("escaped", "none"),
    "RECAPTURED": ("recaptured", "in-custody"),
    "DIED": ("died", "none"),
    "BREACH OF CONDITIONS": ("breach", None),
    "HOME DETENTION ABSENCE": ("breach", "community-sentence"),
}
PLANNED = {
    "PLANNED PAROLE": "parole",
    "PLANNED STATUTORY RELEASE": "statutory-release",
    "PLANNED RELEASE ON CONDITIONS": "release-on-conditions",
    "PLANNED REMAND RELEASE": "remand-release",
    "PLANNED BAIL": "bail",
    "PLANNED TEMPORARY RELEASE": "temporary-release",
    "PLANNED COMPASSIONATE RELEASE": "compassionate",
}
_MONITORED = frozenset({"EM BAIL", "SENTENCED TO HOME DETENTION", "HOME DETENTION ABSENCE"})
_CLOCK_SKEW = timedelta(minutes=5)  # as the catalogue allows
_FLAG = {"Y": True, "N": False}
_GENDERS = {
    "MALE": "male",
    "FEMALE": "female",
    "ANOTHER GENDER": "another",
    "UNKNOWN": "unknown",
    "M": "male",
    "F": "female",
    "X": "another",
    "U": "unknown",
}
_SITES = {site.upper().replace("-", " "): site for site in ("waikato-city", "waikato-rural", "christchurch")}
_NON_ASSOCIATION = {"VICTIM": "victim", "OTHER": "associate", "N": None}
_PRN = re.compile(r"[0-9]{5,9}")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_EM = "Electronic monitoring"
_APART = "Not to associate with a person named in an order"

_PERSON = notice.person_shape("person", prn=may("identifiers[]", identifier("prn", _PRN.pattern)))
_JSON = Format(
    "report",
    notice.shared_records(
        ("people", "person"), _PERSON, never("is not carried for Corrections", "leave it out")
    ),
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native*: a daily file when it is CSV, else the JSON that all agencies share.

    Raises `Unreadable` when the file is not whole (naming what differs) or nothing of it can be read.
    """
    if native.media_type.partition(";")[0].strip().lower() != csvfile.MEDIA_TYPE:
        return _JSON.read(native, party, now)
    table = csvfile.read_table(native, [LAYOUT])
    return table.gather(lambda row, unplaced: _row(row, table.manifest, party, now, unplaced))


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # the contract's signature
    """*message* as written JSON, its people with their PRN."""
    return notice.write(message, notice.Vocabulary(own={"prn": "prn"}))


def _row(row: Row, file: Manifest, party: str, now: datetime, unplaced: list[Problem]) -> Message | None:
    reference = row.matching("REFERENCE", _REFERENCE, "write up to 40 letters, digits, dots or hyphens")
    high_risk = bool(row.one_of("HIGH RISK", _FLAG))
    word = row.one_of("EVENT", {w: w for w in (*EVENTS, *PLANNED)})
    person: dict[str, Any] = {
        "ref": "p1",
        "role": "perpetrator" if high_risk else "associate",
        "identifiers": [{"system": "prn", "value": row.matching("PRN", _PRN, "write five to nine digits")}],
        "name": row.name("FAMILY NAME", "GIVEN NAMES") or row.require("FAMILY NAME"),
        "aliases": [_alias(row, one) for one in row.lines("ALIASES", 20)],
        "birthDate": row.date("BIRTH DATE", not_after=now),
        "gender": row.one_of("GENDER", _GENDERS) if row.get("GENDER") else None,
    }
    people = [{name: value for name, value in person.items() if value}, *_other(row, now)]
    key = f"{file.file_date}/{reference}"
    if word in PLANNED:
        if not high_risk:
            detail = "is a planned release without a high risk of family violence; not carried"
            unplaced.append(Problem(row.at("HIGH RISK"), detail, "no action"))
            return None
        data = {"release": _release(row, word), "people": people}
        return new_message(party, "corrections.prison-release-notified", data, key=key, at=file.produced)
    at = _moment(row, now)
    data = {"custody": _custody(row, word, at, unplaced), "people": people}
    return new_message(party, "corrections.custody-changed", data, key=key, at=at)


def _alias(row: Row, written: str) -> dict[str, str]:
    family, comma, given = (part.strip() for part in written.partition(","))
    if not (family and comma and given):
        raise row.bad(
            "ALIASES", "has an entry that is not family name, given names", "write SMITH, John; JONES, Jack"
        )
    one, _, more = given.partition(" ")
    return {"family": family, "given": one} | ({"other": more.strip()} if more.strip() else {})


def _other(row: Row, now: datetime) -> list[dict[str, Any]]:
    """The person whom a non-association order protects, when the row names one."""
    role = row.one_of("NON-ASSOCIATION", _NON_ASSOCIATION) if row.get("NON-ASSOCIATION") else None
    name = row.name("OTHER FAMILY NAME", "OTHER GIVEN NAMES")
    born = row.date("OTHER BIRTH DATE", not_after=now)
    if role is None:
        if name or born:
            fix = "write VICTIM or OTHER, or leave the other person out"
            raise row.bad("NON-ASSOCIATION", "says that there is no order, yet a person is named", fix)
        return []
    found = {"ref": "p2", "role": role, "name": name, "birthDate": born}
    return [{key: value for key, value in found.items() if value}] if name else []


def _ordered_apart(row: Row) -> bool | None:
    return row.one_of("NON-ASSOCIATION", _NON_ASSOCIATION) is not None if row.get("NON-ASSOCIATION") else None


def _area(address: dict[str, str] | None) -> str | None:
    return (
        ", ".join(address[part] for part in ("suburb", "city") if part in address)[:200] if address else None
    )


def _release(row: Row, word: str) -> dict[str, Any]:
    if (planned := row.date("EVENT DATE")) is None:
        raise row.bad("EVENT DATE", "is empty", "write the planned date")
    address = row.address("ADDRESS")
    said: dict[str, Any] = {
        "person": "p1",
        "plannedOn": planned,
        "site": row.one_of("ISR SITE", _SITES),
        "type": PLANNED[word],
        "prison": row.line("PRISON"),
        "conditions": row.lines("CONDITIONS", 20) or None,
        "electronicMonitoring": row.flag("ELECTRONIC MONITORING"),
        "nonAssociation": _ordered_apart(row),
        "riskOfViolence": "high",
        "address": address,
        "area": _area(address),
    }
    return {name: value for name, value in said.items() if value is not None}


def _custody(row: Row, word: str, at: datetime, unplaced: list[Problem]) -> dict[str, Any]:
    event, status = EVENTS[word]
    # This message has no fields for monitoring and orders; they stand among its conditions, without the other
    # person's name.
    conditions = row.lines("CONDITIONS", 18)
    conditions += [_EM] if row.flag("ELECTRONIC MONITORING") or word in _MONITORED else []
    conditions += [_APART] if _ordered_apart(row) else []
    address = row.address("ADDRESS")
    for column in ("PRISON", "ISR SITE"):
        if row.get(column):
            unplaced.append(Problem(row.at(column), "has no place in a custody change", "no action"))
    said: dict[str, Any] = {
        "person": "p1",
        "event": event,
        "at": rfc3339(at),
        "status": status,
        "conditions": conditions or None,
        "address": address,
        "area": _area(address),
    }
    return {name: value for name, value in said.items() if value is not None}


def _moment(row: Row, now: datetime) -> datetime:
    """When the row's event happened, on New Zealand clocks."""
    if (day := row.date("EVENT DATE", not_after=now)) is None:
        raise row.bad("EVENT DATE", "is empty", "write the date at which it happened")
    if (moment := instant_at(day, row.require("EVENT TIME"))) is None:
        fix = "write HH:MM as New Zealand clocks showed it"
        raise row.bad("EVENT TIME", "is not a time that clocks showed on that day", fix)
    if moment > now + _CLOCK_SKEW:
        raise row.bad("EVENT TIME", "lies in the future", "write the time at which it happened")
    return moment
