"""ACC: injury claims as its claims API shapes them, and the JSON reports that all agencies share.

A file `{"correlationId": …, "claims": [claim, …]}` gives one message a claim, named by correlation id and
claim number; a bad claim is rejected alone. A sensitive claim (sexual violence, Accident Compensation Act
2001 schedule 3) carries its existence and nothing else, as ACC's own status queries do: what came with it
is dropped here, on purpose, and reported by position. Shapes and codes are in docs/formats/acc.md.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from adapters import notice
from adapters.adapter import Native, Reading, Rejected
from adapters.local import DAY_FIRST, date_of, local_date, phone
from adapters.record import Format
from adapters.shape import identifier, may, never
from schemas.clock import instant_of
from schemas.errors import HubError, Problem, Unreadable
from schemas.identifiers import NHI
from schemas.message import Message, decode, new_message

# ACC's interfaces write dates in all of these; each shape has one reading, so they cannot be confused.
DATE_FORMS = ("%Y-%m-%d", "%d-%m-%Y", DAY_FIRST, "%Y%m%d", "%Y%m%d%H%M%S")
MAX_CLAIMS = 200
# The cause is taken as a word of this list only: what a claimant writes beside it may hold an address or
# another person's name.
CAUSES = {
    "FALL": "fall",
    "STRUCK BY PERSON": "struck by person",
    "STRUCK BY OBJECT": "struck by object",
    "PUSHED": "pushed",
    "STRANGULATION": "strangulation",
    "CUT OR PIERCED": "cut or pierced",
    "BURN": "burn",
    "BITE": "bite",
    "SHAKEN": "shaken",
    "MOTOR VEHICLE": "motor vehicle",
    "OTHER": "other",
}
_CODE_SYSTEMS = ("READ", "ICD9", "ICD10", "SNOMED")
_GENDERS = {"M": "male", "F": "female", "X": "another", "U": "unknown"}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CLAIM_NUMBER = re.compile(r"[0-9A-Za-z]{1,12}")
_DIAGNOSIS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.]{0,17}")
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,39}")
_LINE = re.compile(r"[^\x00-\x1f\ud800-\udfff]{1,200}")

_PERSON = notice.person_shape(
    "person",
    claimantId=may("identifiers[]", identifier("acc-claimant")),
    nhi=may("identifiers[]", identifier(NHI)),
)
_JSON = Format(
    "report",
    notice.shared_records(("people", "person"), _PERSON, never("is not carried for ACC", "leave it out")),
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native*: claims, or the JSON that all agencies share.

    Raises `Unreadable` (`InvalidMessage`, `TooLarge` for what is no JSON) when nothing can be read.
    """
    value = decode(native.content)
    if not isinstance(value, dict) or "claims" not in value:
        return _JSON.read(native, party, now)
    correlation, claims = value.get("correlationId"), value["claims"]
    if not isinstance(correlation, str) or not _UUID.fullmatch(correlation):
        raise Unreadable(
            "no correlation id", Problem("/correlationId", "is not a UUID", "send ACC-CorrelationId")
        )
    if not isinstance(claims, list) or not 1 <= len(claims) <= MAX_CLAIMS:
        fix = f"send 1 to {MAX_CLAIMS} claims a file"
        raise Unreadable("no list of claims", Problem("/claims", "is not a list of that length", fix))
    at = _reported(value, now)
    reading = Reading([])
    reading.unplaced.extend(
        Problem(f"/{_shown(name)}", "has no place beside the claims", "no action")
        for name in value
        if name not in ("correlationId", "reportedAt", "claims")
    )
    seen: dict[str, bytes] = {}
    for i, claim in enumerate(claims):
        at_claim = _Claim(claim, f"/claims/{i}", now, reading.unplaced)
        try:
            message = at_claim.message(party, correlation.lower(), at)
            said = message.body_digest()
            if seen.setdefault(message.id, said) != said:
                raise at_claim.bad(
                    "/claimNumber", "is used by an earlier claim for something else", "send a claim once"
                )
        except HubError as error:
            # Under the same correlation id the mended claim keeps its name, so sending it again has one
            # effect.
            # Not orjson, which refuses integers beyond 64 bits: what is wrong may be just that.
            again = json.dumps({**value, "claims": [claim]}, separators=(",", ":")).encode("ascii")
            reading.rejected.append(Rejected(Native(again, native.media_type, f"claim-{i + 1}.json"), error))
            continue
        if all(message.id != earlier.id for earlier in reading.messages):
            reading.messages.append(message)
    return reading


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # the contract's signature
    """*message* as written JSON, its people with ACC's own number."""
    return notice.write(message, notice.Vocabulary(own={"acc-claimant": "claimantId"}))


def _reported(value: dict[str, Any], now: datetime) -> datetime:
    if "reportedAt" not in value:
        return now
    try:
        return instant_of(value["reportedAt"])
    except (TypeError, ValueError, OverflowError):
        fix = "send an RFC 3339 instant with its offset"
        raise Unreadable("no time of report", Problem("/reportedAt", "is not an instant", fix)) from None


class _Claim:
    """One claim at its place in the file; reading it adds to *unplaced* what stays behind."""

    def __init__(self, claim: Any, pointer: str, now: datetime, unplaced: list[Problem]) -> None:
        self._pointer = pointer
        if not isinstance(claim, dict):
            claim = {}
        self._claim: dict[str, Any] = claim
        self._now = now
        self._unplaced = unplaced

    def message(self, party: str, correlation: str, at: datetime) -> Message:
        """The canonical message. Raises `Unreadable` naming the position."""
        number = self._text(self._claim, "/claimNumber", _CLAIM_NUMBER, "send up to 12 letters and digits")
        if number is None:
            raise self.bad("/claimNumber", "is missing", "send the ACC45 number")
        sensitive = self._claim.get("sensitiveClaim")
        if not isinstance(sensitive, bool):
            # Absent is not false: a claim whose sensitivity nobody stated is not taken for an ordinary one.
            raise self.bad("/sensitiveClaim", "is neither true nor false", "state it for every claim")
        patient = self._object(self._claim, "/patient")
        left: list[Problem] = []
        person = self._who(self._object(patient, "/patient/details"), left)
        if sensitive:
            said: dict[str, Any] = {"person": "p1", "sensitiveClaim": True}
            left = list(self._withheld(patient))
        else:
            said = self._what(number, patient, left)
            person |= self._where(patient, left)
        self._unplaced.extend(left)
        data = {"claims": [said], "people": [person]}
        return new_message(party, "acc.injury-claims-reported", data, key=f"{correlation}/{number}", at=at)

    def bad(self, where: str, detail: str, fix: str) -> Unreadable:
        """The error for the place *where* in the claim; the caller raises it."""
        return Unreadable("a claim could not be read", Problem(self._pointer + where, detail, fix))

    def _who(self, details: dict[str, Any], left: list[Problem]) -> dict[str, Any]:
        at = "/patient/details"
        surname = self._text(details, f"{at}/surname", _LINE, "send one line")
        first = self._text(details, f"{at}/firstName", _LINE, "send one line")
        if surname is None or first is None:
            raise self.bad(at, "lacks surname or firstName", "send both")
        name = {"family": surname, "given": first}
        if middle := self._text(details, f"{at}/middleName", _LINE, "send one line"):
            name["other"] = middle
        # The NHI stays even of a sensitive claim: to take one person for another would tell the wrong family.
        nhi = self._text(details, f"{at}/nhi", _SITE, "send the NHI as issued")
        gender = _GENDERS.get(str(details.get("gender", "")).upper())
        if details.get("gender") and gender is None:
            left.append(Problem(f"{self._pointer}{at}/gender", "is not M, F, X or U", "use one of them"))
        known = {"surname", "firstName", "middleName", "nhi", "gender", "dateOfBirth", "accidentDate"}
        left += [self._no_place(f"{at}/{_shown(n)}") for n in details if n not in known]
        found: dict[str, Any] = {
            "ref": "p1",
            "role": "associate",
            "identifiers": [{"system": NHI, "value": nhi.upper()}] if nhi else None,
            "name": name,
            "birthDate": self._date(details, f"{at}/dateOfBirth"),
            "gender": gender,
        }
        return {key: value for key, value in found.items() if value}

    def _what(self, number: str, patient: dict[str, Any], left: list[Problem]) -> dict[str, Any]:
        diagnoses, sites = self._diagnoses(left)
        cause = self._claim.get("accidentCause")
        word = (
            CAUSES.get(" ".join(cause.upper().replace("-", " ").split())) if isinstance(cause, str) else None
        )
        if cause is not None and word is None:
            fix = "use one of: " + ", ".join(CAUSES)
            left.append(Problem(f"{self._pointer}/accidentCause", "is not a word of its list", fix))
        known = {"claimNumber", "sensitiveClaim", "patient", "diagnosis", "accidentCause"}
        left += [self._no_place(f"/{_shown(n)}") for n in self._claim if n not in known]
        said: dict[str, Any] = {
            "person": "p1",
            "reference": {"system": "acc45", "value": number},
            "accidentOn": self._date(
                self._object(patient, "/patient/details"), "/patient/details/accidentDate"
            ),
            "cause": word,
            "bodySites": sites,
            "diagnoses": diagnoses,
            "sensitiveClaim": False,
        }
        return {key: value for key, value in said.items() if value not in (None, [])}

    def _diagnoses(self, left: list[Problem]) -> tuple[list[str], list[str]]:
        listed = self._claim.get("diagnosis")
        if not isinstance(listed, list) or not 1 <= len(listed) <= 20:
            raise self.bad("/diagnosis", "is not a list of 1 to 20", "send the claim's diagnoses")
        if not all(isinstance(one, dict) for one in listed):
            raise self.bad("/diagnosis", "has an entry that is not an object", "send objects")
        if sum(one.get("primaryDiagnosisIndicator") is True for one in listed) != 1:
            raise self.bad("/diagnosis", "has not exactly one primary diagnosis", "mark one as primary")
        codes, sites = [], []
        known = {"diagnosisCode", "diagnosisCodeType", "bodySite", "primaryDiagnosisIndicator"}
        # The primary one goes first; positions stay those of the input.
        for i in sorted(
            range(len(listed)), key=lambda i: listed[i].get("primaryDiagnosisIndicator") is not True
        ):
            one, at = listed[i], f"/diagnosis/{i}"
            if one.get("diagnosisCodeType") not in _CODE_SYSTEMS:
                raise self.bad(
                    f"{at}/diagnosisCodeType",
                    "is not a code system",
                    "use one of: " + ", ".join(_CODE_SYSTEMS),
                )
            code = self._text(one, f"{at}/diagnosisCode", _DIAGNOSIS, "send letters, digits and dots")
            if code is None:
                raise self.bad(f"{at}/diagnosisCode", "is missing", "send it")
            # A code means something only in its system: S52 is a forearm in one and a skull in another.
            codes.append(f"{one['diagnosisCodeType']}/{code}")
            if site := self._text(one, f"{at}/bodySite", _SITE, "send a code"):
                sites.append(site)
            left += [self._no_place(f"{at}/{_shown(n)}") for n in one if n not in known]
        return list(dict.fromkeys(codes)), list(dict.fromkeys(sites))

    def _where(self, patient: dict[str, Any], left: list[Problem]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        address = self._object(patient, "/patient/address")
        lines = [
            self._text(address, f"/patient/address/{n}", _LINE, "send one line") for n in ("line1", "line2")
        ]
        city = self._text(address, "/patient/address/city", _LINE, "send one line")
        street = ", ".join(part for part in lines if part)[:200]
        if street and city:
            where = {"line1": street, "city": city}
            if suburb := self._text(address, "/patient/address/suburb", _LINE, "send one line"):
                where["suburb"] = suburb
            if re.fullmatch(r"[0-9]{4}", code := str(address.get("postCode", ""))):
                where["postcode"] = code
            elif code:
                left.append(
                    Problem(f"{self._pointer}/patient/address/postCode", "is not four digits", "send four")
                )
            area = ", ".join(where[part] for part in ("suburb", "city") if part in where)[:200]
            found |= {"address": where, "area": area}
        elif address:
            left.append(Problem(f"{self._pointer}/patient/address", "lacks a street or a city", "send both"))
        known = {"line1", "line2", "city", "suburb", "postCode"}
        left += [self._no_place(f"/patient/address/{_shown(n)}") for n in address if n not in known]
        contact = self._object(patient, "/patient/contact")
        kinds = {"mobilePhone": "mobile", "homePhone": "landline", "workPhone": "work"}
        numbers = []
        for name, kind in kinds.items():
            if not (written := contact.get(name)):
                continue
            if number := phone(written, kind) if isinstance(written, str) else None:
                numbers.append(number)
            else:
                fix = "send it with its area code"
                left.append(
                    Problem(f"{self._pointer}/patient/contact/{name}", "is not a telephone number", fix)
                )
        left += [self._no_place(f"/patient/contact/{_shown(n)}") for n in contact if n not in kinds]
        left += [
            self._no_place(f"/patient/{_shown(n)}")
            for n in patient
            if n not in ("address", "contact", "details")
        ]
        return found | ({"phones": numbers} if numbers else {})

    def _withheld(self, patient: dict[str, Any]) -> Iterator[Problem]:
        """What a sensitive claim came with, by the names of the contract; other names count as one, they
        might tell."""
        detail = "is dropped: of a sensitive claim only its existence is carried"
        named = {"claimNumber", "diagnosis", "accidentCause", "accidentDescription"}
        yield from (
            Problem(f"{self._pointer}/{n}", detail, "do not send it") for n in self._claim if n in named
        )
        if set(self._claim) - named - {"patient", "sensitiveClaim"}:
            yield Problem(self._pointer, f"holds more that {detail}", "do not send it")
        for part in ("address", "contact"):
            if patient.get(part):
                yield Problem(f"{self._pointer}/patient/{part}", detail, "do not send it")
        details = self._object(patient, "/patient/details")
        if set(details) - {"surname", "firstName", "middleName", "nhi", "gender", "dateOfBirth"}:
            yield Problem(f"{self._pointer}/patient/details", f"holds more that {detail}", "do not send it")

    def _object(self, holder: dict[str, Any], where: str) -> dict[str, Any]:
        value = holder.get(where.rpartition("/")[2], {})
        if not isinstance(value, dict):
            raise self.bad(where, "is not an object", "send an object")
        return value

    def _text(self, holder: dict[str, Any], where: str, form: re.Pattern[str], fix: str) -> str | None:
        value = holder.get(where.rpartition("/")[2])
        if value is None or value == "":
            return None
        if not isinstance(value, str) or not form.fullmatch(value.strip()):
            raise self.bad(where, "does not have its form", fix)
        return value.strip()

    def _date(self, holder: dict[str, Any], where: str) -> str | None:
        value = holder.get(where.rpartition("/")[2])
        if value is None or value == "":
            return None
        if not isinstance(value, str) or (found := date_of(value, DATE_FORMS)) is None:
            raise self.bad(where, "is not a date", "send DD-MM-YYYY, YYYY-MM-DD or yyyyMMddHHmmss")
        if found > local_date(self._now).isoformat():
            raise self.bad(where, "lies in the future", "send the date at which it happened")
        return found

    def _no_place(self, where: str) -> Problem:
        return Problem(self._pointer + where, "has no place in the message", "no action")


def _shown(name: str) -> str:
    """*name* when it looks like a field; a sender may have put a value there."""
    return name if re.fullmatch(r"[a-z][A-Za-z]{0,39}", name) else "(unreadable name)"
