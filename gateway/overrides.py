"""Break-glass: opened, agreed to, closed and reviewed, each an entry of its own; what opens leaves by the
same way as everything else, behind the same guards.

While an override runs, the exchange decides with its clauses (`consent.waiting.Pending.leaves`). When it
opens, what waits for a person in that case is decided anew with them. The hub keeps no other content, so
there is nothing else to open. Each source whose information left is told at once.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from broker.broker import Outgoing
from consent import override as rules
from consent import waiting
from consent.case import Case
from consent.entry import OVERRIDE
from consent.ledger import Entry, Written
from consent.override import Attempt, Opening, State
from consent.placing import case_table
from consent.policy import Leave
from consent.referral import RELEASE, require_capacity
from consent.waiting import Waiting
from consent.waiting import override as table
from gateway.disclose import numbered
from gateway.due import decision_due
from gateway.notices import Voice
from gateway.referrals import Deciding, Person
from schemas.clock import instant_of, rfc3339
from schemas.database import in_sequence, reading
from schemas.errors import AlreadyDecided, NotFound
from schemas.message import identity

CLOSED_BY = frozenset({"privacy-officer", "legal"})  # who may review


class Override(NamedTuple):
    """One override as stored, its times in RFC 3339; *until* is "" while nobody has agreed."""

    id: str
    party: str
    case: str
    clauses: tuple[str, ...]
    threat: str
    capacity: str
    officer: str
    at: str
    until: str
    minutes: int
    review_due: str
    state: State
    finding: str

    def runs(self, now: datetime) -> bool:
        """Whether it opens anything at *now*."""
        return bool(self.until) and rules.runs(self.state, instant_of(self.until), now)

    def is_overdue(self, now: datetime) -> bool:
        """Whether its review should have been done."""
        return self.state in (State.OPEN, State.CLOSED) and now > instant_of(self.review_due)


class Overrides:
    """The overrides of an open *hub*."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._waiting = Waiting(hub.keys, lambda at, *_: at)
        self._deciding = Deciding(hub.keys, lambda: hub.agreements, lambda name: hub.catalogue[name])
        self._voice = Voice(hub.keys, lambda: hub.agreements, lambda name: hub.catalogue[name])

    def find(self, *, id: str = "", only_unreviewed: bool = False, limit: int = 1000) -> list[Override]:
        """The overrides and refused attempts, the newest first."""
        query = sa.select(table).order_by(table.c.at.desc(), table.c.id).limit(limit)
        if id:
            query = query.where(table.c.id == id)
        if only_unreviewed:
            query = query.where(table.c.state.in_([State.OPEN.value, State.CLOSED.value]))
        with reading(self._hub.engine).begin() as connection:
            return [_override(row) for row in connection.execute(query)]

    def reason(self, id: str) -> str:
        """What the person wrote; for whoever reviews it. Raises `NotFound`."""
        with reading(self._hub.engine).begin() as connection:
            sealed = connection.execute(sa.select(table.c.sealed).where(table.c.id == id)).scalar()
        if sealed is None:
            raise NotFound("there is no such override")
        text: str = self._hub.keys.unseal(bytes(sealed))
        return text

    def open(self, person: Person, case: str, threat: str, reason: str) -> Override:
        """Opens what the break-glass clauses in force for *person*'s party say about *case*, or asks a second
        person first where they say so.

        Raises `InvalidMessage` for words that are none, and `NotFound` for whatever is refused: no such case,
        a conflict of interest and no clause look the same (V8). What is refused is recorded all the same.
        """
        require_capacity(person.capacity)
        rules.require_words(threat, reason)
        hub, now = self._hub, self._hub.clock()
        at = rfc3339(now)
        party = hub.agreements.parties.get(person.party)
        if party is None or not party.active:
            raise NotFound("nothing opens here")
        with hub.engine.begin() as connection:
            in_sequence(connection)
            known = self._case(connection, case)
            attempt = Attempt(
                threat,
                reason,
                case_known=known is not None and known.open,
                conflicted=known is not None and person.party in known.conflicts,
                running=any(o.runs(now) for o in self._of(connection, person.party, case)),
            )
            in_force = hub.agreements.in_force(now)
            found = rules.opening(attempt, in_force.behind_glass(party) if in_force else {})
            made = Override(
                str(uuid.uuid4()),
                person.party,
                case if known is not None else "",  # what somebody typed may be anything
                found.clauses,
                threat,
                person.capacity,
                person.officer,
                at,
                rfc3339(now + timedelta(minutes=found.minutes)) if found.state is State.OPEN else "",
                found.minutes,
                rfc3339(decision_due(now, "review", None, known.site if known else "")),
                found.state,
                "",
            )
            connection.execute(sa.insert(table).values(**_values(made), sealed=hub.keys.seal(reason.strip())))
            entries: list[Entry | Written] = [self._opened(made, found, person, reason)]
            leaving: list[tuple[int, Outgoing]] = []
            if made.state is State.OPEN:
                self._release(connection, made, now, entries, leaving)
            self._commit(connection, entries, leaving)
        # ‖ Committed: recorded, what it opens is in the outbox, and its sources are told. A crash here leaves
        # it unsigned and unpublished, as after `carry`.
        self._after(made.party, "opened" if found.state is State.OPEN else found.state.value)
        if made.state is State.REFUSED:
            raise NotFound("nothing opens here")
        return made

    def agree(self, id: str, person: Person) -> Override:
        """Opens an override that waits for a second *person* of the same agency. Raises `NotFound`,
        `NotAuthorised`, `AlreadyDecided`.
        """
        require_capacity(person.capacity)
        hub, now = self._hub, self._hub.clock()
        with hub.engine.begin() as connection:
            in_sequence(connection)
            former = self._one(connection, id, person.party)
            state = rules.agreed(
                former.state, instant_of(former.at), now, same_person=person.officer == former.officer
            )
            until = rfc3339(now + timedelta(minutes=former.minutes))
            made = former._replace(state=state, until=until)
            self._move(connection, former, state, until=until)
            entries: list[Entry | Written] = [self._step(made, "opened", person, now)]
            leaving: list[tuple[int, Outgoing]] = []
            self._release(connection, made, now, entries, leaving)
            self._commit(connection, entries, leaving)
        # ‖ As after `open`.
        self._after(made.party, "opened")
        return made

    def close(self, id: str, person: Person) -> Override:
        """Ends an override before its time. Raises `NotFound`, `AlreadyDecided`."""
        hub, now = self._hub, self._hub.clock()
        with hub.engine.begin() as connection:
            in_sequence(connection)
            former = self._one(connection, id, person.party)
            state = rules.closed(former.state)
            self._move(connection, former, state)
            made = former._replace(state=state)
            self._commit(connection, [self._step(made, "closed", person, now)], [])
        # ‖ As after `open`.
        self._after(made.party, "closed")
        return made

    def review(self, id: str, person: Person, finding: str) -> Override:
        """Records what somebody else finds of an override: a privacy officer or lawyer, of any agency. Raises
        `NotFound`, `NotAuthorised`, `AlreadyDecided`, `InvalidMessage`.
        """
        hub, now = self._hub, self._hub.clock()
        with hub.engine.begin() as connection:
            in_sequence(connection)
            former = self._one(connection, id)
            unfit = person.capacity not in CLOSED_BY or person.officer == former.officer
            state = rules.reviewed(former.state, finding, same_person=unfit)
            self._move(connection, former, state, finding=finding)
            made = former._replace(state=state, finding=finding)
            self._commit(connection, [self._step(made, "reviewed", person, now)], [])
        # ‖ As after `open`.
        self._after(made.party, "reviewed")
        return made

    def _release(
        self,
        connection: sa.Connection,
        made: Override,
        now: datetime,
        entries: list[Entry | Written],
        leaving: list[tuple[int, Outgoing]],
    ) -> None:
        """Decides what waits for a person in the case anew, with the clauses that opened."""
        hub, leave = self._hub, Leave(opened=frozenset(made.clauses))
        for row in waiting.rows(connection, only_open=True, case=made.case):
            if row.standing.kind != RELEASE or row.party != made.party:
                continue
            kept = self._waiting.kept(connection, row.source, row.message)
            if kept is None:
                continue
            found = self._deciding.again(connection, kept, hub.agreements.parties[made.party], leave, now)
            if not found.data or not leave.opened.intersection(found.decision.clauses):
                continue
            id = identity("hub", f"override\n{made.id}\n{row.source}\n{row.message}")
            more = {"override": made.id, "referral": {"source": row.source, "message": row.message}}
            entry, outgoing = self._deciding.entry(connection, id, kept, found, rfc3339(now), more)
            leaving.append((len(entries), outgoing))
            entries.append(entry)
            for said, out in used_notices(self._voice, [(made.id, row.source, row.message, made.party)], now):
                if out is not None:
                    leaving.append((len(entries), out))
                entries.append(said)

    def _commit(
        self,
        connection: sa.Connection,
        entries: Sequence[Entry | Written],
        leaving: Sequence[tuple[int, Outgoing]],
    ) -> None:
        numbers = self._hub.ledger.append(connection, entries)
        self._hub.exchange.outbox.enqueue(
            connection, [(numbers[at], numbered(out, numbers[at])) for at, out in leaving]
        )

    def _after(self, party: str, outcome: str) -> None:
        self._hub.telemetry.overrides.labels(party, outcome).inc()
        self._hub.exchange.publish()

    def _case(self, connection: sa.Connection, id: str) -> Case | None:
        facts = connection.execute(sa.select(case_table.c.facts).where(case_table.c.id == id)).scalar()
        return None if facts is None else Case.from_json(id, orjson.loads(facts))

    def _of(self, connection: sa.Connection, party: str, case: str) -> list[Override]:
        query = sa.select(table).where(table.c.party == party, table.c.case_id == case)
        return [_override(row) for row in connection.execute(query)]

    def _one(self, connection: sa.Connection, id: str, party: str = "") -> Override:
        row = connection.execute(sa.select(table).where(table.c.id == id)).first()
        if row is None or (party and row.party != party) or row.state == State.REFUSED.value:
            raise NotFound("there is no such override")
        return _override(row)

    def _move(self, connection: sa.Connection, former: Override, state: State, **values: str) -> None:
        moved = connection.execute(
            sa.update(table)
            .where(table.c.id == former.id, table.c.state == former.state.value)
            .values(state=state.value, **values)
        ).rowcount
        if moved != 1:
            raise AlreadyDecided("somebody else was faster")

    def _opened(self, made: Override, found: Opening, person: Person, reason: str) -> Entry:
        outcome = "opened" if made.state is State.OPEN else made.state.value
        salt = self._hub.keys.salt("reason", made.id)
        body = {
            **_frame(made, outcome, made.at, person),
            # Whoever has the reason and the salt can show that it is the one that was given then.
            "reason": hashlib.sha256(salt + reason.strip().encode()).hexdigest(),
            "reasons": [found.why] if found.why else [],
        }
        return Entry(OVERRIDE, "hub", made.id, made.party, body)

    def _step(self, made: Override, outcome: str, person: Person, now: datetime) -> Entry:
        body = _frame(made, outcome, rfc3339(now), person)
        if made.finding:
            body["reasons"] = [made.finding]
        return Entry(OVERRIDE, "hub", made.id, made.party, body)


def used_notices(
    voice: Voice, used: Sequence[tuple[str, str, str, str]], now: datetime
) -> list[tuple[Written, Outgoing | None]]:
    """What the hub tells the source of each message that left under an override: *used* are (override,
    source, message, party that received it).
    """
    return [
        voice.says(
            source,
            {"about": "override-used", "override": override, "party": party, "message": message},
            f"override used\n{override}\n{source}\n{message}\n{party}",
            now,
        )
        for override, source, message, party in used
    ]


def _frame(made: Override, outcome: str, at: str, person: Person) -> dict[str, Any]:
    return {
        "v": 1,
        "kind": OVERRIDE,
        "at": at,
        "source": "hub",
        "message": made.id,
        "party": made.party,
        "outcome": outcome,
        "threat": made.threat,
        "cases": [made.case] if made.case else [],
        "clauses": list(made.clauses),
        "until": made.until,
        "review_due": made.review_due,
        "decided_by": person.written(),
    }


def _values(made: Override) -> Mapping[str, Any]:
    return {
        "id": made.id,
        "party": made.party,
        "case_id": made.case,
        "clauses": orjson.dumps(made.clauses).decode(),
        "threat": made.threat,
        "capacity": made.capacity,
        "person": made.officer,
        "at": made.at,
        "until": made.until,
        "minutes": made.minutes,
        "review_due": made.review_due,
        "state": made.state.value,
        "finding": made.finding,
    }


def _override(row: sa.Row[Any]) -> Override:
    return Override(
        row.id,
        row.party,
        row.case_id,
        tuple(orjson.loads(row.clauses)),
        row.threat,
        row.capacity,
        row.person,
        row.at,
        row.until,
        row.minutes,
        row.review_due,
        State(row.state),
        row.finding,
    )


__all__ = ["Override", "Overrides", "used_notices"]
