"""What a release obliges to afterwards, listed until somebody records how it ended: telling the individual
(IPP 3A) and asking the child (Oranga Tamariki Act 1989 s 66K).
"""

from typing import Any, NamedTuple

import sqlalchemy as sa

from consent import duty as rules
from consent.entry import DISPOSITION
from consent.ledger import Entry
from consent.referral import require_capacity
from consent.waiting import duty as table
from gateway.referrals import Person
from schemas.clock import instant_of, rfc3339
from schemas.database import in_sequence, reading
from schemas.errors import AlreadyDecided, NotFound
from schemas.message import agency_of, identity


class Duty(NamedTuple):
    """One duty: of *party*, in *case*, towards the people in *role*; *state* is "" or how it ended."""

    kind: str
    party: str
    case: str
    role: str
    at: str
    due: str
    state: str

    @property
    def id(self) -> str:
        """The duty's name in the ledger and in links."""
        return identity("hub", f"duty\n{self.kind}\n{self.party}\n{self.case}\n{self.role}")


class Duties:
    """The duties of an open *hub*."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def find(
        self,
        *,
        party: str = "",
        case: str = "",
        only_open: bool = True,
        overdue: bool = False,
        limit: int = 1000,
    ) -> list[Duty]:
        """The duties that match, the most urgent first."""
        columns = table.c
        query = sa.select(table).order_by(columns.due, columns.party, columns.case_id).limit(limit)
        if party:
            query = query.where(columns.party == party)
        if case:
            query = query.where(columns.case_id == case)
        if only_open or overdue:
            query = query.where(columns.state == "")
        if overdue:
            query = query.where(columns.due < rfc3339(self._hub.clock()))
        with reading(self._hub.engine).begin() as connection:
            return [_duty(row) for row in connection.execute(query)]

    def is_overdue(self, duty: Duty) -> bool:
        """Whether nobody recorded in time how *duty* ended."""
        return rules.is_overdue(duty.state, instant_of(duty.due), self._hub.clock())

    def record(
        self, kind: str, party: str, case: str, role: str, code: str, person: Person, channel: str = ""
    ) -> Duty:
        """Records how a duty ended, by *person* of the agency that has it; once.

        Raises `InvalidMessage` for words that are none, and for a notice without a safe channel; `NotFound`
        for a duty that nobody of this agency has; `AlreadyDecided`.
        """
        require_capacity(person.capacity)
        rules.require_disposition(kind, code, channel)
        hub = self._hub
        at = rfc3339(hub.clock())
        columns = table.c
        theirs = (
            (columns.kind == kind)
            & (columns.party == party)
            & (columns.case_id == case)
            & (columns.role == role)
        )
        with hub.engine.begin() as connection:
            in_sequence(connection)
            row = connection.execute(sa.select(table).where(theirs)).first()
            if row is None or agency_of(party) != agency_of(person.party):
                raise NotFound("nobody of this agency has such a duty")
            if row.state:
                raise AlreadyDecided("this was recorded before; the ledger says how")
            connection.execute(sa.update(table).where(theirs).values(state=code, ended=at))
            duty = _duty(row)._replace(state=code)
            body: dict[str, Any] = {
                "v": 1,
                "kind": DISPOSITION,
                "at": at,
                "source": "hub",
                "message": duty.id,
                "party": party,
                "duty": kind,
                "cases": [case],
                "role": role,
                "outcome": code,
                "since": duty.at,
                "decided_by": person.written(),
            }
            if channel:
                body["channel"] = channel
            hub.ledger.append(connection, [Entry(DISPOSITION, "hub", duty.id, party, body)])
        # ‖ Committed: recorded once. A crash here leaves the entry unsigned until the next `publish`.
        hub.exchange.publish()
        return duty


def _duty(row: sa.Row[Any]) -> Duty:
    return Duty(row.kind, row.party, row.case_id, row.role, row.at, row.due, row.state)


__all__ = ["Duties", "Duty"]
