"""What the ledger says: the entries for a decision and for the end of a delivery. Names of classes and keyed
commitments, never a value.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consent.agreement import Agreements, Party
from consent.ledger import Entry
from consent.people import Keys
from consent.placing import Placed
from consent.policy import Decision, Outcome
from schemas.errors import HubError
from schemas.message import Message

_KINDS = {
    Outcome.PERMIT: "disclosure",
    Outcome.REDUCED: "disclosure",
    Outcome.REFER: "referral",
    Outcome.REFUSE: "refusal",
}


@dataclass(frozen=True, slots=True)
class Release:
    """What leaves: the id of the disclosure and the canonical bytes of its data."""

    id: str
    content: bytes


def subject_salt(keys: Keys, source: str, message: str, pseudonym: str) -> bytes:
    """The salt that opens the commitment to *pseudonym* in the entries on *message* of *source*, and no
    other.
    """
    return keys.salt("subject", source, message, pseudonym)


def content_salt(keys: Keys, disclosure: str) -> bytes:
    """The salt that opens the content of *disclosure*, and no other."""
    return keys.salt("content", disclosure)


def commitment(keys: Keys, source: str, message: str, pseudonym: str) -> str:
    """SHA-256 of a salt and *pseudonym*: the same person has another one in every message, and whoever holds
    the salt can open this one.
    """
    return hashlib.sha256(subject_salt(keys, source, message, pseudonym) + pseudonym.encode()).hexdigest()


def subjects_of(
    keys: Keys, message: Message, placed: Placed, pseudonyms: Mapping[str, str]
) -> list[list[str]]:
    """Who *message* is about, as [role, commitment]: the same in the entries of all its recipients."""
    return sorted(
        [role, commitment(keys, message.source, message.id, pseudonyms[ref])]
        for ref, role in placed.roles.items()
    )


def decision_entry(
    message: Message,
    placed: Placed,
    subjects: list[list[str]],
    recipient: Party,
    decision: Decision,
    agreements: Agreements,
    release: Release | None,
    keys: Keys,
    at: str,
) -> Entry:
    """The entry for one decision: who, to whom, about whom (committed), why, what was given and what was not
    (ISO 27789 and BALP in our words).
    """
    body: dict[str, Any] = {
        "v": 1,
        "kind": _KINDS[decision.outcome],
        # Without it an entry about nobody could be guessed and tried against the public leaf hashes.
        "salt": keys.salt("entry", message.source, message.id, recipient.id)[:16].hex(),
        "at": at,
        "source": message.source,
        "message": message.id,
        "type": message.type,
        "party": recipient.id,
        "outcome": decision.outcome.value,
        "purpose": decision.purpose,
        "basis": list(decision.basis),
        "agreements": agreements.version_hash,
        "clauses": list(decision.clauses),
        "cases": [case.id for case in placed.cases],
        "subjects": subjects,
        "given": _given(decision, placed.roles),
        "withheld": [list(w) for w in decision.withheld],
        "referred": [list(r) for r in decision.referred],
        "conditions": dict(decision.conditions),
        "reasons": list(decision.reasons),
        "guards": list(decision.guards),
        "obligations": list(decision.obligations),
    }
    if release is not None:
        body["disclosure"] = release.id
        body["content"] = hashlib.sha256(content_salt(keys, release.id) + release.content).hexdigest()
    return Entry(kind=body["kind"], source=message.source, message=message.id, party=recipient.id, body=body)


def _given(decision: Decision, roles: Mapping[str, str]) -> dict[str, list[str]]:
    given: dict[str, set[str]] = {}
    for ref, facets in decision.given.items():
        role = roles.get(ref, "case")
        for facet, view in facets.items():
            given.setdefault(role, set()).add(facet.name if view == "full" else f"{facet.name}:{view}")
    return {role: sorted(names) for role, names in sorted(given.items())}


def delivered_entry(party: str, headers: Mapping[str, str], answer: HubError | None, at: str) -> Entry:
    """The entry for the end of a delivery: the recipient has it, or refused it for good."""
    body: dict[str, Any] = {
        "v": 1,
        "kind": "delivery",
        "at": at,
        "source": "hub",
        "message": headers["id"],
        "type": headers["type"],
        "party": party,
        "disclosure": int(headers["entry"]),
        "outcome": "delivered" if answer is None else "refused",
    }
    if answer is not None:
        body["reasons"] = [answer.code]
    return Entry(kind="delivery", source="hub", message=headers["id"], party=party, body=body)
