"""What waits for a person of the agency that holds it: shown to that person, approved, declined, escalated.

An approval is decided again at its moment, under the agreements and guards of that moment and on the cases as
they are then, and leaves by the same way as everything else: minimise, ledger, outbox. Its entry and a
decline's share one key, so that a referral ends once, whoever decides at the same time.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from broker.broker import Outgoing
from consent import referral as rules
from consent import waiting
from consent.agreement import Agreements, Party
from consent.decision import tags_of
from consent.entry import ESCALATION, REFUSAL
from consent.ledger import Entry, Written
from consent.minimise import minimise
from consent.people import Keys, People
from consent.placing import Cases, Placed
from consent.policy import Decision, Leave, Outcome, Question, decide
from consent.referral import OPEN, RELEASE, Standing, State
from consent.subjects import Subjects
from consent.waiting import Kept, Row, Waiting
from gateway.disclose import Releasing, numbered
from gateway.notices import Voice
from gateway.record import Recorder
from schemas.canonical import canonical_trusted
from schemas.catalogue import MessageType, holdings
from schemas.classes import CASE, Facet
from schemas.clock import rfc3339
from schemas.database import in_sequence, reading
from schemas.errors import AlreadyDecided, InvalidMessage, NotFound, Problem
from schemas.message import agency_of

_NUMBER = Facet("ID-XREF")
Cell = tuple[str, str]  # role, class


class Person(NamedTuple):
    """Who decides: an *officer* (a keyed digest, see `gateway.access.officer_of`) of *party*, in *capacity*
    (`consent.referral.CAPACITIES`).
    """

    party: str
    capacity: str
    officer: str

    def written(self) -> dict[str, str]:
        """The person as an entry names one."""
        return {"party": self.party, "capacity": self.capacity, "officer": self.officer}


class Draft(NamedTuple):
    """What would leave if *leaves* were approved now: *data*, which is for the holder's person only, the
    cells that a person must have read for places first (*to_read*), and those that a guard holds, with its
    codes.
    """

    data: dict[str, Any]
    leaves: tuple[Cell, ...]
    to_read: tuple[Cell, ...]
    held: tuple[tuple[Cell, tuple[str, ...]], ...]


class Again(NamedTuple):
    """A kept message decided anew for one recipient."""

    placed: Placed
    decision: Decision
    data: dict[str, Any]


class Deciding:
    """Decides a kept submission anew, with what people decided about it. Shared by approvals and overrides:
    there is no other way out for what was kept.
    """

    def __init__(
        self, keys: Keys, agreements: Callable[[], Agreements], kind_of: Callable[[str], MessageType]
    ):
        self._keys, self._agreements, self._kind_of = keys, agreements, kind_of
        self._people, self._subjects = People(keys), Subjects(keys)
        self._cases = Cases(keys, lambda _: ())

    def again(self, connection: sa.Connection, kept: Kept, recipient: Party, leave: Leave, at: Any) -> Again:
        """What *recipient* may have of *kept* at *at*, on the cases as they are now."""
        kind = self._kind_of(kept.message.type)
        batch = self._cases.open_batch(connection, set(kept.cases), set(kept.refs.values()))
        placed = batch.found(kept.cases, kept.data, kept.roles, kept.refs)
        own = self._people.identifiers_of(connection, kept.refs.values())
        _, held = holdings(kind.shape, placed.data)
        facets = {ref: frozenset(found) for ref, found in held.items()}
        identifiers = {}
        for ref, pseudonym in kept.refs.items():
            numbers = own.get(pseudonym, {}).get(recipient.agency)
            if numbers:
                identifiers[ref] = numbers
                facets[ref] = facets.get(ref, frozenset()) | {_NUMBER}
        question = Question(
            type=kept.message.type,
            purpose=kind.purpose,
            audience=kind.audience,
            source=kept.message.source,
            roles=placed.roles,
            pseudonyms=kept.refs,
            holdings=facets,
            cases=placed.cases,
            at=at,
            elsewhere=placed.elsewhere,
            tags=tags_of(placed.data),
            leave=leave,
        )
        decision = decide(self._agreements(), question, recipient)
        data = minimise(kind.shape, placed.data, decision, placed.roles, identifiers)
        return Again(placed, decision, data)

    def entry(
        self, connection: sa.Connection, id: str, kept: Kept, found: Again, at: str, more: Mapping[str, Any]
    ) -> tuple[Entry, Outgoing]:
        """The disclosure of *found* as the decision *id*, with *more* in its entry, and what leaves."""
        named, party = replace(kept.message, id=id), found.decision.recipient
        keys = self._subjects.made_for(connection, kept.refs.values())
        releasing = Releasing(named, found.placed, keys, kept.message.id)
        release, outgoing = releasing.release(party, canonical_trusted(found.data))
        recorder = Recorder(self._keys.salt, named, found.placed, kept.refs, keys, self._agreements(), at)
        written = recorder.entry(found.decision, release)
        body = {**orjson.loads(written.data), **more}
        return Entry(written.kind, written.source, written.message, written.party, body), outgoing


class Referrals:
    """The referrals of an open *hub*."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._waiting = Waiting(hub.keys, lambda at, *_: at)
        self._deciding = Deciding(hub.keys, lambda: hub.agreements, lambda name: hub.catalogue[name])
        self._voice = Voice(hub.keys, lambda: hub.agreements, lambda name: hub.catalogue[name])

    def open(self, holder: str = "") -> list[Row]:
        """What waits, the most urgent first; for *holder*'s people only when it is given."""
        return self.find(holder=holder, only_open=True)

    def find(self, **wanted: Any) -> list[Row]:
        """The referrals that match; see `consent.waiting.rows`."""
        with reading(self._hub.engine).begin() as connection:
            return waiting.rows(connection, **wanted)

    def counts(self) -> dict[tuple[str, str, str], int]:
        """How much waits for people now; see `consent.waiting.counts`."""
        with reading(self._hub.engine).begin() as connection:
            return waiting.counts(connection, rfc3339(self._hub.clock()))

    def one(self, id: str) -> Row:
        """The referral *id*. Raises `NotFound`."""
        found = self.find(ids=[id])
        if not found:
            raise NotFound("there is no such referral")
        return found[0]

    def draft(self, id: str, person: Person, *, scrubbed: bool = False) -> Draft:
        """What would leave now if everything that may were approved by *person*; nothing of it is stored or
        logged. Raises `NotFound` to anybody but a person of the holder, `AlreadyDecided` when it ended.
        """
        with reading(self._hub.engine).begin() as connection:
            row = self._mine(connection, id, person)
            kept = self._kept(connection, row)
            recipient = self._recipient(row)
            now = self._hub.clock()
            asked = {
                read: self._deciding.again(
                    connection,
                    kept,
                    recipient,
                    Leave(frozenset(row.cells), read, mandatory=row.standing.mandatory),
                    now,
                )
                for read in (False, True)
            }
        unread, read = asked[False].decision, asked[True].decision
        leaves = tuple(
            cell for cell in row.cells if cell not in unread.referred and _gives(asked[False], cell)
        )
        to_read = tuple(cell for cell in row.cells if cell not in leaves and _gives(asked[True], cell))
        held = tuple(
            (cell, tuple(sorted(read.guards))) for cell in row.cells if cell not in (*leaves, *to_read)
        )
        return Draft(asked[scrubbed].data if leaves or scrubbed else {}, leaves, to_read, held)

    def approve(
        self, id: str, person: Person, cells: Iterable[Cell] = (), *, scrubbed: bool = False
    ) -> State:
        """Releases what was referred, or only *cells* of it, on *person*'s decision; the state afterwards.
        *scrubbed*: the person has read the text, and no place stands in it.

        Raises `NotFound`, `AlreadyDecided`, and `InvalidMessage` when a guard still holds what was named,
        saying which: then nothing happened.
        """
        rules.require_capacity(person.capacity)
        hub, named = self._hub, frozenset(cells)
        with hub.engine.begin() as connection:
            in_sequence(connection)
            hub.register.refresh(connection)
            row = self._mine(connection, id, person)
            if row.standing.kind != RELEASE:
                rules.approved(row.standing, whole=True)
            if unknown := named - set(row.cells):
                raise InvalidMessage(
                    "this was not referred",
                    Problem("/cells", f"{len(unknown)} of the classes are not among it", "see the referral"),
                )
            wanted = named or frozenset(row.cells)
            kept, now = self._kept(connection, row), hub.clock()
            leave = Leave(wanted, scrubbed, mandatory=row.standing.mandatory)
            found = self._deciding.again(connection, kept, self._recipient(row), leave, now)
            given = frozenset(cell for cell in wanted if _gives(found, cell))
            if not given or (named and given != named):
                raise _held(sorted(wanted - given), found.decision, scrubbed=scrubbed)
            state = rules.approved(row.standing, whole=given == set(row.cells))
            at = rfc3339(now)
            entry, outgoing = self._deciding.entry(
                connection,
                row.id,
                kept,
                found,
                at,
                {
                    "referral": {"source": row.source, "message": row.message},
                    "decided_by": person.written(),
                    "approved": [list(cell) for cell in sorted(given)],
                    "scrubbed": scrubbed,
                },
            )
            if not waiting.end(connection, row, state, "", at):
                raise AlreadyDecided("somebody else decided this just now")
            (number,) = hub.ledger.append(connection, [entry])
            hub.exchange.outbox.enqueue(connection, [(number, numbered(outgoing, number))])
        # ‖ Committed: the referral ended, its release is recorded and in the outbox, its submission is gone
        # if nothing else needs it. A crash here leaves it unsigned and unpublished, as after `carry`: the
        # next `publish`, or the start of the exchange, goes on from here.
        hub.telemetry.considered.labels(row.holder, state.value).inc()
        hub.exchange.publish()
        return state

    def decline(self, id: str, person: Person, reason: str) -> State:
        """Ends a referral without a release, for *reason*; the state afterwards. What section 66 requires
        goes to the agency's legal adviser instead. Raises `NotFound`, `AlreadyDecided`, `InvalidMessage`.
        """
        return self._end(id, person, reason, lambda at: rules.declined(at, reason, person.capacity))

    def told(self, id: str, person: Person) -> State:
        """Ends a referral because *person* told it outside the hub, by telephone; the state afterwards.
        Raises `NotFound`, `AlreadyDecided`.
        """
        rules.require_capacity(person.capacity)
        return self._end(id, person, "told-in-person", rules.told)

    def escalate(self) -> list[Row]:
        """Marks what nobody decided in time and records it; returns what was newly marked. Safe to repeat."""
        hub = self._hub
        now = hub.clock()
        at = rfc3339(now)
        with hub.engine.begin() as connection:
            in_sequence(connection)
            late = [
                row
                for row in waiting.rows(connection, state=State.WAITING, due_before=at)
                if (state := rules.escalated(row.standing, now)) is not None
                and waiting.end(connection, row, state, "", at)
            ]
            version = hub.agreements.version_hash
            entries: list[Entry | Written] = [_escalation(row, "overdue", at, version) for row in late]
            leaving: list[tuple[int, Outgoing]] = []
            for holder, number in sorted(Counter(row.holder for row in late).items()):
                to = next((p.id for _, p in sorted(hub.agreements.parties.items()) if p.agency == holder), "")
                if to:
                    notice = {"about": "referrals-overdue", "count": number}
                    said, outgoing = self._voice.says(to, notice, f"overdue\n{holder}\n{at}", now)
                    if outgoing is not None:
                        leaving.append((len(entries), outgoing))
                    entries.append(said)
            numbers = hub.ledger.append(connection, entries)
            hub.exchange.outbox.enqueue(
                connection, [(numbers[i], numbered(out, numbers[i])) for i, out in leaving]
            )
        # ‖ As after `approve`.
        if late:
            hub.exchange.publish()
        return late

    def _end(self, id: str, person: Person, reason: str, step: Callable[[Standing], State]) -> State:
        hub = self._hub
        with hub.engine.begin() as connection:
            in_sequence(connection)
            row = self._mine(connection, id, person)
            state, at = step(row.standing), rfc3339(hub.clock())
            if state is row.standing.state:
                return state  # with the lawyers already
            if not waiting.end(connection, row, state, reason, at):
                raise AlreadyDecided("somebody else decided this just now")
            by = person.written()
            version = hub.agreements.version_hash
            entry = (
                _escalation(row, "legal", at, version, by, reason)
                if state in OPEN
                else self._refusal(row, reason, at, by)
            )
            hub.ledger.append(connection, [entry])
        # ‖ As after `approve`.
        hub.telemetry.considered.labels(row.holder, state.value).inc()
        hub.exchange.publish()
        return state

    def _mine(self, connection: sa.Connection, id: str, person: Person) -> Row:
        """The open referral *id* of *person*'s agency."""
        found = waiting.rows(connection, ids=[id])
        # Somebody else's and none are the same to whoever asks (V8).
        if not found or found[0].holder != agency_of(person.party):
            raise NotFound("there is no such referral for a person of this agency")
        if found[0].standing.state not in OPEN:
            raise AlreadyDecided("this was decided before; the ledger says how")
        return found[0]

    def _kept(self, connection: sa.Connection, row: Row) -> Kept:
        kept = self._waiting.kept(connection, row.source, row.message)
        if kept is None:
            raise NotFound("what was referred is not kept any more; ask its sender to send it anew")
        return kept

    def _recipient(self, row: Row) -> Party:
        found: Party | None = self._hub.agreements.parties.get(row.party)
        if found is None:
            raise NotFound("the recipient is in no agreement any more; decline it")
        return found

    def _refusal(self, row: Row, reason: str, at: str, by: Mapping[str, str]) -> Entry:
        source = row.source if row.standing.kind == RELEASE else row.holder
        withheld: dict[str, dict[str, list[str]]] = {}
        for role, name in row.cells:
            withheld.setdefault(role, {}).setdefault(reason, []).append(name)
        hub = self._hub
        body = {
            **_frame(row, source, at, hub.agreements.version_hash),
            "kind": REFUSAL,
            "outcome": Outcome.REFUSE.value,
            "purpose": hub.catalogue[row.type].purpose,
            "salt": hub.keys.salt("entry", source, row.id, row.party)[:16].hex(),
            "withheld": withheld,
            "reasons": [reason],
            "decided_by": dict(by),
            **{name: [] for name in ("basis", "clauses", "subjects", "guards", "obligations")},
            **{name: {} for name in ("given", "conditions", "referred")},
        }
        return Entry(REFUSAL, source, row.id, row.party, body)


def _gives(found: Again, cell: Cell) -> bool:
    """Whether *found* gives something of *cell*, so that nobody approves what does not leave."""
    role, name = cell
    return bool(found.data) and any(
        facet.name == name and (found.placed.roles.get(ref, "") if ref else CASE) == role
        for ref, facets in found.decision.given.items()
        for facet in facets
    )


def _held(cells: Iterable[Cell], decision: Decision, *, scrubbed: bool) -> InvalidMessage:
    fix = "decline it, or tell it in person"
    if not scrubbed:
        fix = "read the text for places and say so (scrubbed), " + fix
    held = " ".join(sorted(decision.guards)) or "no clause in force"
    return InvalidMessage(
        "a guard holds it back, and no approval overrides one",
        *(Problem("/cells", f"{role}:{name} is held by {held}", fix) for role, name in cells),
    )


def _frame(row: Row, source: str, at: str, version: str) -> dict[str, Any]:
    return {
        "v": 1,
        "at": at,
        "source": source,
        "message": row.id,
        "party": row.party,
        "type": row.type,
        "agreements": version,
        "cases": list(row.cases),
        "referral": {"source": row.source, "message": row.message},
    }


def _escalation(
    row: Row, outcome: str, at: str, version: str, by: Mapping[str, str] | None = None, reason: str = ""
) -> Entry:
    source = row.source if row.standing.kind == RELEASE else row.holder
    body = {
        **_frame(row, source, at, version),
        "kind": ESCALATION,
        "outcome": outcome,
        "due": rfc3339(row.standing.due),
    }
    if by is not None:
        body |= {"decided_by": dict(by), "reasons": [reason]}
    return Entry(ESCALATION, source, row.id, row.party, body)


__all__ = ["Again", "Cell", "Deciding", "Draft", "Person", "Referrals"]
