"""What the ledger says: the entries for a decision and for the end of a delivery. Names of classes and keyed
commitments, never a value.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import orjson

from consent.agreement import Agreements
from consent.decision import NAMES, REFERRED, WITHHELD, WORDS, Findings
from consent.ledger import Written
from consent.placing import Placed
from consent.policy import Decision, Outcome
from consent.subjects import commitment
from schemas.errors import HubError
from schemas.message import Message

_KINDS = {
    Outcome.PERMIT: "disclosure",
    Outcome.REDUCED: "disclosure",
    Outcome.REFER: "referral",
    Outcome.REFUSE: "refusal",
}


class Release(NamedTuple):
    """What leaves: the id of the disclosure, the canonical bytes of its data, the salt of its commitment."""

    id: str
    content: bytes
    salt: bytes


def subjects_of(
    message: Message, placed: Placed, pseudonyms: Mapping[str, str], keys: Mapping[str, bytes]
) -> list[list[str]]:
    """Who *message* is about, as [role, commitment]: the same in the entries of all its recipients."""
    return sorted(
        [role, commitment(keys[pseudonyms[ref]], message.source, message.id, pseudonyms[ref])]
        for ref, role in placed.roles.items()
    )


class Recorder:
    """Writes the entries of one message's decisions: who, to whom, about whom (committed), why, what was
    given and what was not (ISO 27789 and BALP in our words).

    What all its recipients share is written once. The bytes are canonical JSON (RFC 8785) because the names
    below stand sorted and every part is canonical; a test holds them to it.
    """

    __slots__ = ("_cases", "_head", "_id", "_message", "_salt", "_tail")

    def __init__(
        self,
        salt: Callable[..., bytes],
        message: Message,
        placed: Placed,
        pseudonyms: Mapping[str, str],
        keys: Mapping[str, bytes],
        agreements: Agreements,
        at: str,
    ) -> None:
        self._salt, self._message = salt, message
        self._head = orjson.dumps({"agreements": agreements.version_hash, "at": at})[:-1] + b',"basis":'
        self._cases = b',"cases":%b,"clauses":' % orjson.dumps([case.id for case in placed.cases])
        self._id = b'"message":%b,"obligations":' % orjson.dumps(message.id)
        subjects = orjson.dumps(subjects_of(message, placed, pseudonyms, keys))
        source, kind = orjson.dumps(message.source), orjson.dumps(message.type)
        self._tail = b'","source":%b,"subjects":%b,"type":%b,"v":1,"withheld":' % (source, subjects, kind)

    def entry(self, decision: Decision, release: Release | None) -> Written:
        """The entry for *decision*, with what is released of it."""
        message, party = self._message, decision.recipient
        # Without it an entry about nobody could be guessed and tried against the public leaf hashes.
        salt = self._salt("entry", message.source, message.id, party)[:16].hex().encode()
        content = b""
        if release is not None:
            digest = hashlib.sha256(release.salt + release.content).hexdigest()
            content = b',"content":"%b","disclosure":"%b"' % (digest.encode(), release.id.encode())
        kind, basis, rules, grants, outcome, withheld = _parts(
            decision.found, decision.outcome, party, decision.purpose
        )
        data = b"".join(
            (
                self._head,
                basis,
                self._cases,
                rules,
                content,
                grants,
                self._id,
                outcome,
                salt,
                self._tail,
                withheld,
            )
        )
        return Written(kind, message.source, message.id, party, data)


@lru_cache(maxsize=8192)  # most decisions find what others found before
def _parts(
    found: Findings, outcome: Outcome, party: str, purpose: str
) -> tuple[str, bytes, bytes, bytes, bytes, bytes]:
    """What a decision comes to in an entry: its kind, and its bytes, cut where something else stands
    between.
    """
    words, kind = WORDS.written, _KINDS[outcome]
    given = b",".join([b'"%b":%b' % (role.encode(), NAMES.written(held)) for role, held in found.given])
    withheld = b",".join(
        [b'"%b":%b' % (role.encode(), WITHHELD.written(held)) for role, held in found.withheld]
    )
    return (
        kind,
        words(found.basis),
        b'%b,"conditions":%b' % (words(found.clauses), _conditions(found.conditions, found.unmet)),
        b',"given":{%b},"guards":%b,"kind":"%b",' % (given, words(found.guards), kind.encode()),
        b'%b,"outcome":"%b","party":"%b","purpose":"%b","reasons":%b,"referred":%b,"salt":"'
        % (
            words(found.obligations),
            outcome.value.encode(),
            party.encode(),
            purpose.encode(),
            words(found.reasons),
            REFERRED.written(found.referred),
        ),
        b"{%b}}" % withheld,
    )


@lru_cache(maxsize=4096)
def _conditions(asked: int, unmet: int) -> bytes:
    missing = set(WORDS.words(unmet))
    return orjson.dumps({name: name not in missing for name in WORDS.words(asked)})


def delivered_entry(party: str, headers: Mapping[str, str], answer: HubError | None, at: str) -> Written:
    """The entry for the end of a delivery: the recipient has it, or refused it for good."""
    message = headers["id"]
    reasons = b"" if answer is None else b',"reasons":["%b"]' % answer.code.encode()
    data = (
        b'{"at":"%b","disclosure":%d,"kind":"delivery","message":%b,"outcome":"%b","party":"%b"%b,'
        b'"source":"hub","type":%b,"v":1}'
    ) % (
        at.encode(),
        int(headers["entry"]),
        orjson.dumps(message),
        b"delivered" if answer is None else b"refused",
        party.encode(),
        reasons,
        orjson.dumps(headers["type"]),
    )
    return Written("delivery", "hub", message, party, data)
