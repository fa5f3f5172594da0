"""What of native input may be submitted: it can be read, meets its schema, is its sender's to say, and its id
was not used before for something else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import sqlalchemy as sa

from adapters.adapter import Adapter, Native, Reading
from broker.outbox import seen
from consent.agreement import Agreements
from gateway.quarantine import canonical_native
from schemas.catalogue import Catalogue, MessageType
from schemas.clock import Clock
from schemas.database import reading
from schemas.errors import HubError, IdentityReused, InvalidMessage, Problem
from schemas.message import CONTENT_TYPE, Message, agency_of, decode


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one native input: the ids of its messages, the fields that found no place, and the
    errors of what was quarantined.
    """

    accepted: list[str] = field(default_factory=list)
    rejected: list[HubError] = field(default_factory=list)
    unplaced: list[Problem] = field(default_factory=list)


class Admitted(NamedTuple):
    """One *receipt* for each native input, the messages to submit, and what is to be quarantined."""

    receipts: list[Receipt]
    submissions: list[Message]
    quarantined: list[tuple[Native, HubError]]


class Admission:
    """Who may say what, under the *agreements* in force. Writes nothing."""

    def __init__(
        self,
        engine: sa.Engine,
        catalogue: Catalogue,
        agreements: Callable[[], Agreements],
        adapter_of: Callable[[str], Adapter],
        clock: Clock,
    ) -> None:
        self._engine, self._catalogue, self._agreements = engine, catalogue, agreements
        self._adapter_of, self._clock = adapter_of, clock

    def admit(self, party: str, natives: Sequence[Native]) -> Admitted:
        """What *party* may submit of *natives*."""
        receipts: list[Receipt] = []
        submissions: list[Message] = []
        quarantined: list[tuple[Native, HubError]] = []
        for native in natives:
            try:
                understood = self.read(party, native)
            except HubError as error:
                quarantined.append((native, error))
                receipts.append(Receipt(rejected=[error]))
                continue
            receipt = Receipt(unplaced=understood.unplaced)
            is_valid = _is_canonical(native)  # else it could not have been read
            for message in understood.messages:
                try:
                    self._admit(party, message, is_valid)
                except HubError as error:
                    # A file's other messages go through; this one waits alone, in canonical form, so that it
                    # can be sent again alone.
                    quarantined.append((canonical_native(message), error))
                    receipt.rejected.append(error)
                else:
                    submissions.append(message)
                    receipt.accepted.append(message.id)
            for part in understood.rejected:
                quarantined.append((part.raw, part.error))
                receipt.rejected.append(part.error)
            receipts.append(receipt)
        submissions = self._refuse_reused(submissions, receipts, quarantined)
        return Admitted(receipts, submissions, quarantined)

    def read(self, party: str, native: Native) -> Reading:
        """What *native* says, in canonical messages; raises `HubError` when nothing can be read."""
        if _is_canonical(native):
            event = decode(native.content)
            self._catalogue.validate(event, self._clock())
            return Reading([Message.from_json(event)])
        return self._adapter_of(party).read(native, party, self._clock())

    def _admit(self, party: str, message: Message, is_valid: bool) -> MessageType:
        if message.source != party:
            raise InvalidMessage(
                "the message speaks for another party",
                Problem("/source", "is not you", f"send urn:isr:{party}"),
            )
        if is_valid:
            kind = self._catalogue[message.type]
        else:
            kind = self._catalogue.validate(message.to_json(), self._clock())
        if not kind.senders & {"any", agency_of(party).partition(".")[0]}:
            raise InvalidMessage(
                "this type is not yours to send",
                Problem("/type", "is sent by " + ", ".join(sorted(kind.senders)), "send your own types"),
            )
        if kind.audience == "addressee" and message.data["to"] not in self._agreements().parties:
            raise InvalidMessage(
                "the addressee is unknown",
                Problem("/data/to", "is not a party of any agreement", "see isr-hub agreements"),
            )
        return kind

    def _refuse_reused(
        self,
        submissions: list[Message],
        receipts: list[Receipt],
        quarantined: list[tuple[Native, HubError]],
    ) -> list[Message]:
        """Refuses, while the sender still listens, an id that was carried before with another body. `carry`
        decides for good.
        """
        if not submissions:
            return []
        with reading(self._engine).begin() as connection:
            known = seen(connection, [(m.source, m.id) for m in submissions])
        if not known:
            return submissions
        kept = []
        for message in submissions:
            if known.get((message.source, message.id), message.body_digest()) == message.body_digest():
                kept.append(message)
                continue
            error = reused()
            quarantined.append((canonical_native(message), error))
            for receipt in receipts:
                if message.id in receipt.accepted:
                    receipt.accepted.remove(message.id)
                    receipt.rejected.append(error)
        return kept


def _is_canonical(native: Native) -> bool:
    return native.media_type.partition(";")[0] == CONTENT_TYPE


def reused() -> IdentityReused:
    """The error for an id that its source used before for another body."""
    return IdentityReused(
        "this source and id were used before for something else",
        Problem(
            "/id", "was used before with another body", "give a changed event a new revision, and so a new id"
        ),
    )


__all__ = ["Admission", "Admitted", "Receipt", "reused"]
