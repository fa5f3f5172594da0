"""Deciding a batch: for each message and each recipient a decision, its ledger entry, and what leaves.

Nothing here writes: what is made is committed by the exchange in one transaction.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

import orjson

from broker.broker import Outgoing, deliveries_to
from consent import inputs
from consent.agreement import Agreements, Party
from consent.decision import NAMES, NO_LEAVE, Decision, Outcome, Question, tags_of
from consent.ledger import Written
from consent.minimise import minimise
from consent.placing import Placed
from consent.policy import decide_all, nothing_left
from consent.proved import enclosed
from consent.subjects import content_salts
from consent.waiting import Pending, disclosure_id
from gateway.record import Recorder, Release
from gateway.telemetry import DecisionCount
from schemas.canonical import canonical_trusted
from schemas.catalogue import MessageType, holdings
from schemas.classes import Facet
from schemas.clock import rfc3339
from schemas.message import Message, agency_of

_NUMBER = Facet("ID-XREF")
_NUMBERS = NAMES.of((_NUMBER.name,))
Own = Mapping[str, Mapping[str, list[dict[str, str]]]]  # pseudonym → agency → its own identifiers


class Disclosing:
    """One batch being decided at *now*: *own* are the agencies' own identifiers of its people, *keys* their
    keys, both by pseudonym; *pending* takes what waits for people. *asked* collects what deciding needed,
    *counted* what was decided.
    """

    def __init__(
        self,
        agreements: Agreements,
        own: Own,
        keys: Mapping[str, bytes],
        pending: Pending,
        salt: Callable[..., bytes],
        now: datetime,
    ) -> None:
        self._agreements, self._own, self._keys, self._salt = agreements, own, keys, salt
        self._pending = pending
        self._now, self._at = now, rfc3339(now)
        self.asked: list[inputs.Row] = []
        self.counted = DecisionCount()
        self._found: list[tuple[Message, Placed, Mapping[str, str], list[tuple[Decision, bytes]]]] = []

    def decide(
        self, message: Message, kind: MessageType, placed: Placed, pseudonyms: Mapping[str, str]
    ) -> int:
        """Decides on *message*, as it was *placed*, for each recipient; returns how many there are. Now: the
        next message of the batch may change the cases.
        """
        _, held = holdings(kind.shape, placed.data)
        question = Question(
            type=message.type,
            purpose=kind.purpose,
            audience=kind.audience,
            source=message.source,
            roles=placed.roles,
            pseudonyms=pseudonyms,
            holdings={ref: frozenset(facets) for ref, facets in held.items()},
            cases=placed.cases,
            at=self._now,
            elsewhere=placed.elsewhere,
            tags=tags_of(placed.data),
        )
        to = message.data["to"] if kind.audience == "addressee" else ""
        numbered = inputs.unnumbered(question, self._own)
        self.asked.append(inputs.encode(inputs.Asked(message.id, to, question, numbered)))
        recipients = recipients_of(self._agreements, message, kind, placed)
        leaves = self._pending.leaves(message, placed)
        decided = list(decide_all(self._agreements, question, recipients, numbered, leaves))
        contents = _Contents(kind, placed, pseudonyms, self._own)
        found: list[tuple[Decision, bytes]] = []
        for recipient, decision in decided:
            content = b""
            if decision.outcome in _RELEASED:
                content = contents.for_recipient(recipient, decision)
            is_empty = decision.outcome in _RELEASED and not content
            found.append((nothing_left(decision) if is_empty else decision, content))
        for decision, _ in found:
            self._pending.add(message, placed, pseudonyms, decision, leaves.get(decision.recipient, NO_LEAVE))
            self.counted.add(decision.recipient, decision)
        self._found.append((message, placed, pseudonyms, found))
        return len(found)

    def written(self) -> Iterator[tuple[Written, Outgoing | None]]:
        """What follows from everything decided: for each decision its ledger entry and, where something is
        given, what leaves.
        """
        for message, placed, pseudonyms, found in self._found:
            keys = {pseudonym: self._keys[pseudonym] for pseudonym in pseudonyms.values()}
            recorder = Recorder(self._salt, message, placed, pseudonyms, keys, self._agreements, self._at)
            releasing = Releasing(message, placed, keys, message.id)
            for decision, content in found:
                release, outgoing = None, None
                if content:
                    release, outgoing = releasing.release(decision.recipient, content)
                yield recorder.entry(decision, release), outgoing


def recipients_of(
    agreements: Agreements, message: Message, kind: MessageType, placed: Placed
) -> Sequence[Party]:
    """Every party that could be concerned by *message*."""
    if kind.audience == "addressee":
        addressee = agreements.parties.get(message.data["to"])
        return [addressee] if addressee is not None and addressee.id != message.source else []
    return agreements.candidates(frozenset(case.site for case in placed.cases), message.source)


class _Contents:
    """What is left of one message for each recipient; made once for all who are given the same."""

    __slots__ = ("_kind", "_made", "_own", "_placed", "_pseudonyms")

    def __init__(
        self,
        kind: MessageType,
        placed: Placed,
        pseudonyms: Mapping[str, str],
        own: Own,
    ) -> None:
        self._kind, self._placed, self._pseudonyms, self._own = kind, placed, pseudonyms, own
        self._made: dict[tuple[object, ...], bytes] = {}

    def for_recipient(self, recipient: Party, decision: Decision) -> bytes:
        """The canonical bytes of what *decision* gives; b"" when nothing is left."""
        # Numbers go back to who issued them, so they differ by agency even where the grant is the same.
        agency = recipient.agency if any(held & _NUMBERS for _, held in decision.found.given) else ""
        # The decision keeps its grants alive, so their addresses name them.
        key = (agency, *((ref, id(facets)) for ref, facets in decision.given.items()))
        found = self._made.get(key)
        if found is None:
            identifiers = {
                ref: self._own[pseudonym][agency]
                for ref, pseudonym in self._pseudonyms.items()
                if agency and agency in self._own.get(pseudonym, ())
            }
            placed = self._placed
            data = minimise(self._kind.shape, placed.data, decision, placed.roles, identifiers)
            found = self._made[key] = canonical_trusted(data) if data else b""
        return found


class Releasing:
    """What leaves of *message* as it was *placed*. *keys* are those of its people, *cause* is the id of the
    submission. What all its recipients share is made once.
    """

    __slots__ = ("_event", "_message", "_salt")

    def __init__(self, message: Message, placed: Placed, keys: Mapping[str, bytes], cause: str) -> None:
        self._message, self._salt = message, content_salts(keys)
        self._event = Message(
            source="hub",
            id="",
            type=message.type,
            time=message.time,
            data={},
            correlationid=placed.cases[0].id if len(placed.cases) == 1 else None,
            causationid=cause,
            origin=agency_of(message.source),
        ).to_json()

    def release(self, party: str, content: bytes) -> tuple[Release, Outgoing]:
        """When *content* (canonical) is what *party* is given: the release for its entry, and the message to
        queue under the entry's number.
        """
        name = disclosure_id(self._message.source, self._message.id, party)
        release = Release(name, content, self._salt(name))
        event = orjson.dumps({**self._event, "id": name, "data": orjson.Fragment(content)})
        headers = {"id": name, "type": self._message.type, "party": party}
        return release, Outgoing(deliveries_to(party), enclosed(event, release.salt), headers)


def numbered(outgoing: Outgoing, number: int) -> Outgoing:
    """*outgoing* under the ledger index of its entry, as the outbox and the recipient's adapter know it."""
    return Outgoing(outgoing.queue, outgoing.body, {**outgoing.headers, "entry": str(number)})


_RELEASED = frozenset({Outcome.PERMIT, Outcome.REDUCED})


__all__ = ["Disclosing", "Releasing", "numbered", "recipients_of"]
