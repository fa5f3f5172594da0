"""The ledger as FHIR R4 AuditEvents after IHE's Basic Audit Log Patterns (BALP 1.1), one JSON object a line.

| in the ledger | AuditEvent |
|---|---|
| the first decision on a message | PrivacyDisclosure.Recipient: the hub took it from an agency |
| each decision | AuthzConsent: permitted, referred or refused, under which clauses, and why |
| the end of a delivery, or its stop | PrivacyDisclosure.Source: the hub gave it to a party, or did not |

The profiles speak of one patient, so an event is written for each person whom the entry is about. A person is
the commitment that the entry holds: no name, no number, no pseudonym; whoever holds the salt can open it. The
hub is the observer of all of them; what a recipient did with what it received is not in its ledger.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from consent.entry import DECISION_KINDS, DELIVERY, STOPPED, referred, withheld
from gateway import queries
from gateway.explain import OUTCOMES
from gateway.hub import Hub
from gateway.queries import Row

PROFILE = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
SOURCE, RECIPIENT, CONSENT = "PrivacyDisclosure.Source", "PrivacyDisclosure.Recipient", "AuthZconsent"
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_RESOURCE_TYPE = "http://hl7.org/fhir/resource-types"
_SOURCE_TYPE = "http://terminology.hl7.org/CodeSystem/security-source-type"
_DISCLOSE = {
    "system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle",
    "code": "disclose",
    "display": "Disclose Record Lifecycle Event",
}
_AUTHZ = {"system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/AuthZsubType", "code": "AuthZ-Consent"}
_RESTRICTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_SUCCESS, _MINOR, _SERIOUS = "0", "4", "8"  # what waits for a person may still be given
_OUTCOME = {"permit": _SUCCESS, "reduced": _SUCCESS, "refer": _MINOR, "refuse": _SERIOUS}
_NAMESPACE = uuid.UUID("2f0a1c43-6f0e-5c2e-9b0a-5d7f3f6f1c11")
# Systems of our own identifiers, as URNs under the party names that messages use, too.
_PARTY, _SUBJECT, _CLAUSE, _AGREEMENTS = (
    f"urn:isr:hub:{name}" for name in ("party", "subject-commitment", "clause", "agreements")
)
_PURPOSE, _MESSAGE, _DISCLOSURE, _LOG = (
    f"urn:isr:hub:{name}" for name in ("purpose", "message", "disclosure", "ledger")
)


def audit_events(hub: Hub, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """The events of the entries from *start* up to, not including, *stop*, in their order."""
    taken: tuple[str, str] | None = None
    for part in _parts(queries.between(hub.engine, start, stop)):
        decisions = _disclosures(hub, part)
        for row in part:
            kind = row.body["kind"]
            if kind in DECISION_KINDS:
                message = (row.body["source"], row.body["message"])
                if message != taken:  # the decisions on one message stand together
                    taken = message
                    yield from _received(hub, row)
                yield from _decided(hub, row)
            elif kind in (DELIVERY, STOPPED) and row.body["disclosure"] in decisions:
                yield from _given(hub, row, decisions[row.body["disclosure"]])


def _parts(rows: Iterable[Row], size: int = 500) -> Iterator[list[Row]]:
    part: list[Row] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _disclosures(hub: Hub, part: Iterable[Row]) -> dict[int, Row]:
    """The decisions behind the deliveries in *part*, by index."""
    wanted = sorted({row.body["disclosure"] for row in part if row.body["kind"] in (DELIVERY, STOPPED)})
    return queries.entries_at(hub.engine, wanted)


def _received(hub: Hub, row: Row) -> Iterator[dict[str, Any]]:
    said = row.body
    for number, person in enumerate(_people(said)):
        yield _event(
            hub,
            row,
            RECIPIENT,
            number,
            type=_coding(_DICOM, "110107", "Import"),
            subtype=[_DISCLOSE],
            action="C",
            outcome=_SUCCESS,
            agent=[
                _agent(_coding(_DICOM, "110153", "Source Role ID"), _party(said["source"]), said["source"]),
                _agent(_coding(_DICOM, "110152", "Destination Role ID"), _hub(hub), "hub"),
            ],
            entity=[_patient(person), _data(_MESSAGE, said["message"], said["type"], {})],
            observer="4",
        )


def _given(hub: Hub, row: Row, decision: Row) -> Iterator[dict[str, Any]]:
    end, said = row.body, decision.body
    was_given = end.get("outcome") == "delivered"
    custodian = _coding("http://snomed.info/sct", "159541003", "Record keeping/library clerk")
    detail = {"ledger-entry": str(decision.index), "content-commitment": said.get("content", "")}
    for number, person in enumerate(_people(said)):
        event = _event(
            hub,
            row,
            SOURCE,
            number,
            type=_coding(_DICOM, "110106", "Export"),
            subtype=[_DISCLOSE],
            action="R",
            outcome=_SUCCESS if was_given else _SERIOUS,
            agent=[
                _agent(_coding(_DICOM, "110153", "Source Role ID"), _hub(hub), "hub"),
                _agent(_coding(_DICOM, "110152", "Destination Role ID"), _party(end["party"]), end["party"]),
                {"type": {"coding": [custodian]}, "who": _party(said["source"]), "requestor": False},
            ],
            entity=[
                _patient(person, _classes(said, person[0])),
                _data(_DISCLOSURE, end["message"], said["type"], detail),
            ],
            observer="4",
            purpose=said["purpose"],
        )
        if not was_given:
            how = "stopped before it was sent" if end["kind"] == STOPPED else "refused by the recipient"
            event["outcomeDesc"] = f"{how}: " + ", ".join(end.get("reasons", ()))
        yield event


def _decided(hub: Hub, row: Row) -> Iterator[dict[str, Any]]:
    said = row.body
    party, agency = said["party"], said["party"].partition("#")[0]
    consents = [(_CLAUSE, name) for name in said["clauses"]] or [(_AGREEMENTS, said["agreements"])]
    why = ", ".join(dict.fromkeys((*said["reasons"], *said["guards"])))
    for number, person in enumerate(_people(said)):
        event = _event(
            hub,
            row,
            CONSENT,
            number,
            type=_coding(_DICOM, "110113", "Security Alert"),
            subtype=[_AUTHZ],
            action="E",
            outcome=_OUTCOME.get(said["outcome"], _SERIOUS),
            agent=[
                _agent(_coding(_DICOM, "110150", "Application"), _party(party), party),
                {
                    **_role("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "IRCP"),
                    "who": _party(party),
                    "requestor": True,
                    "purposeOfUse": [_concept(_PURPOSE, said["purpose"])],
                },
                {
                    **_role("http://terminology.hl7.org/CodeSystem/v3-RoleClass", "PROV"),
                    "who": _party(agency),
                    "requestor": False,
                },
                {
                    **_role("http://terminology.hl7.org/CodeSystem/extra-security-role-type", "authserver"),
                    "who": _hub(hub),
                    "requestor": False,
                },
            ],
            entity=[
                _patient(person, {"ledger-entry": str(row.index), **_classes(said, person[0])}),
                *(
                    {
                        "what": {"type": "Consent", "identifier": {"system": system, "value": name}},
                        "type": _coding(_RESOURCE_TYPE, "Consent", "Consent"),
                    }
                    for system, name in consents
                ),
            ],
            observer="6",
            purpose=said["purpose"],
        )
        event["outcomeDesc"] = OUTCOMES.get(said["outcome"], said["outcome"]) + (f": {why}" if why else "")
        yield event


def _event(
    hub: Hub, row: Row, profile: str, number: int, *, observer: str, purpose: str = "", **more: Any
) -> dict[str, Any]:
    """One AuditEvent of *profile*; its id is the same whenever it is made of the same entry."""
    name = f"{hub.ledger.origin}\n{row.index}\n{profile}\n{number}"
    event = {
        "resourceType": "AuditEvent",
        "id": str(uuid.uuid5(_NAMESPACE, name)),
        "meta": {"profile": [PROFILE + profile], "security": [_RESTRICTED]},
        "recorded": row.body["at"],
        **more,
        "source": {
            "site": hub.ledger.origin,
            "observer": _hub(hub),
            "type": [_coding(_SOURCE_TYPE, observer)],
        },
    }
    if purpose:
        event["purposeOfEvent"] = [_concept(_PURPOSE, purpose)]
    return event


def _people(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(role, commitment) of each person, or one nobody: the profiles want a patient."""
    return [(role, digest) for role, digest in said["subjects"]] or [("", "")]


def _patient(person: tuple[str, str], detail: Mapping[str, str] | None = None) -> dict[str, Any]:
    role, digest = person
    what: dict[str, Any] = {"type": "Patient"}
    if digest:
        what["identifier"] = {"system": _SUBJECT, "value": digest}
    else:
        what["extension"] = [{"url": _ABSENT, "valueCode": "not-applicable"}]
    entity = {
        "what": what,
        "type": _coding(_ENTITY_TYPE, "1", "Person"),
        "role": _coding(_OBJECT_ROLE, "1", "Patient"),
    }
    return _detailed(entity, {"subject-role": role, **(detail or {})})


def _data(system: str, id: str, type: str, detail: Mapping[str, str]) -> dict[str, Any]:
    entity = {
        "what": {"identifier": {"system": system, "value": id}},
        "type": _coding(_ENTITY_TYPE, "2", "System Object"),
        "role": _coding(_OBJECT_ROLE, "3", "Report"),
    }
    return _detailed(entity, {"message-type": type, **detail})


def _detailed(entity: dict[str, Any], detail: Mapping[str, str]) -> dict[str, Any]:
    stated = [{"type": name, "valueString": value} for name, value in detail.items() if value]
    return {**entity, "detail": stated} if stated else entity


def _classes(said: Mapping[str, Any], role: str) -> dict[str, str]:
    """The data classes given about *role*, withheld and referred: their names, never a value."""
    return {
        "given": " ".join(said["given"].get(role, ())),
        "withheld": " ".join(sorted({name for r, name, _ in withheld(said) if r == role})),
        "referred": " ".join(sorted({name for r, name in referred(said) if r == role})),
    }


def _agent(role: Mapping[str, str], who: Mapping[str, Any], address: str) -> dict[str, Any]:
    # Where on the network a party's system stands is no fact of the ledger; its name is (5: URI).
    return {
        "type": {"coding": [role]},
        "who": who,
        "requestor": False,
        "network": {"address": f"urn:isr:{address}", "type": "5"},
    }


def _role(system: str, code: str) -> dict[str, Any]:
    return {"type": _concept(system, code)}


def _party(party: str) -> dict[str, Any]:
    return {"identifier": {"system": _PARTY, "value": party}}


def _hub(hub: Hub) -> dict[str, Any]:
    return {"identifier": {"system": _LOG, "value": hub.ledger.origin}}


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [_coding(system, code)]}


def _coding(system: str, code: str, display: str = "") -> dict[str, str]:
    return {"system": system, "code": code, **({"display": display} if display else {})}
