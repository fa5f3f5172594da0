"""What the hub itself says to one party: it goes by the same decision, the same ledger and the same outbox as
what agencies say, and it is about no person.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.broker import Outgoing
from broker.outbox import Outbox
from consent.agreement import Agreements
from consent.ledger import Ledger, Written
from consent.people import Keys
from consent.placing import Placed
from consent.policy import HUB, Outcome, Question, decide
from gateway.disclose import Releasing, numbered
from gateway.record import Recorder
from schemas.canonical import canonical_trusted
from schemas.catalogue import MessageType, holdings
from schemas.clock import rfc3339
from schemas.message import Message, identity

NOTICE = "nz.isr.hub.notice.v1"


class Voice:
    """The hub's own words, under *agreements* and the types of *kind_of*."""

    def __init__(
        self, keys: Keys, agreements: Callable[[], Agreements], kind_of: Callable[[str], MessageType]
    ) -> None:
        self._keys, self._agreements, self._kind_of = keys, agreements, kind_of

    def says(
        self, to: str, notice: dict[str, Any], key: str, at: datetime
    ) -> tuple[Written, Outgoing | None]:
        """The entry and what leaves when the hub tells *to* the *notice* (the fields of its type), once for
        each *key*; nothing leaves to a party that is not active. Raises `KeyError` for a party that no
        agreement names.
        """
        message = Message(HUB, identity(HUB, key), NOTICE, rfc3339(at), {"notice": notice, "to": to})
        return self.tells(message, at)

    def tells(self, message: Message, at: datetime) -> tuple[Written, Outgoing | None]:
        """The entry and what leaves when the hub says *message*, about no person, to the party in its `to`.
        Raises `KeyError` for a party that no agreement names.
        """
        agreements, kind, to = self._agreements(), self._kind_of(message.type), message.data["to"]
        _, held = holdings(kind.shape, message.data)
        question = Question(
            message.type,
            kind.purpose,
            kind.audience,
            HUB,
            {},
            {},
            {ref: frozenset(facets) for ref, facets in held.items()},
            (),
            at,
        )
        placed = Placed((), message.data, {})
        recorder = Recorder(self._keys.salt, message, placed, {}, {}, agreements, rfc3339(at))
        decision = decide(agreements, question, agreements.parties[to])
        if decision.outcome is not Outcome.PERMIT:
            return recorder.entry(decision, None), None
        releasing = Releasing(message, placed, {}, message.id)
        release, outgoing = releasing.release(to, canonical_trusted(message.data))
        return recorder.entry(decision, release), outgoing


class Announcer:
    """Lets the *voice* speak in transactions of its callers; `Exchange.publish` sends what it says."""

    def __init__(self, voice: Voice, ledger: Ledger, outbox: Outbox) -> None:
        self._voice, self._ledger, self._outbox = voice, ledger, outbox

    def say(self, connection: sa.Connection, messages: Sequence[Message], at: datetime) -> None:
        """Records and enqueues *messages* of the hub, in the caller's transaction. Whom no agreement names
        any more is not told.
        """
        found = []
        for message in messages:
            with suppress(KeyError):
                found.append(self._voice.tells(message, at))
        numbers = self._ledger.append(connection, [entry for entry, _ in found])
        self._outbox.enqueue(
            connection,
            [
                (number, numbered(out, number))
                for number, (_, out) in zip(numbers, found, strict=True)
                if out is not None
            ],
        )
