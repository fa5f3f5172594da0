"""What waits for people, and what they have decided, as far as a batch must know it: referrals, the sealed
submissions behind them, requests for information, duties after a release, and overrides that run.

All of it changes in the transaction of the decisions it belongs to. A submission is kept here only while a
referral needs it, sealed with the hub's key, and deleted in the transaction that ends the last of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from consent import duty as duties
from consent.decision import NO_LEAVE, REFERRED, Decision, Leave
from consent.entry import OVERRIDE
from consent.ledger import Entry
from consent.override import State as OverrideState
from consent.people import Keys
from consent.placing import Placed
from consent.referral import OPEN, RELEASE, REQUEST, Standing, State
from consent.waiting_tables import duty, kept_submission, override, referral
from schemas.clock import NEW_ZEALAND, instant_of, rfc3339
from schemas.database import add_rows, rows_among, rows_named
from schemas.message import Message, agency_of, identity

REQUESTS = frozenset({"nz.isr.fss.information-requested.v1"})
MAY_REQUIRE = frozenset({"oranga-tamariki", "police"})  # Oranga Tamariki Act 1989 s 66(1)
_DUTY_KEY = ("case_id", "kind", "party", "role")
_DUTY = (*_DUTY_KEY, "at", "due", "state", "ended")
_KEPT = ("source", "message", "sealed")
_REMEMBERED = 100_000
_WAITING, _LEGAL = State.WAITING.value, State.LEGAL.value

# When something is due that began at an instant, for (what, risk, site): what is `release`, `request`, or a
# kind of duty.
Due = Callable[[datetime, str, str | None, str], datetime]


class Kept(NamedTuple):
    """A submission as it was placed: enough to decide on it again."""

    message: Message
    data: dict[str, Any]
    roles: dict[str, str]
    refs: dict[str, str]
    cases: list[str]


class Row(NamedTuple):
    """One referral as stored, its times as instants."""

    id: str
    source: str
    message: str
    party: str
    holder: str
    type: str
    cells: tuple[tuple[str, str], ...]
    cases: tuple[str, ...]
    at: str
    ended: str
    reason: str
    answer: str
    standing: Standing


class Request(NamedTuple):
    """A request that somebody may be answering: *party* asked, *holder* was asked."""

    id: str
    party: str
    holder: str
    mandatory: bool


class Waiting:
    """The store behind *keys*; *due* says when a person has to have decided."""

    def __init__(self, keys: Keys, due: Due) -> None:
        self._keys, self._due = keys, due
        # Duties (case, kind, party, role) that this process has seen: most releases bring none that is new.
        self._known: set[tuple[str, str, str, str]] = set()

    def open_batch(self, connection: sa.Connection, messages: Sequence[Message], at: datetime) -> "Pending":
        """What people have decided that concerns *messages*, and room for what will wait for them."""
        running: dict[str, dict[str, tuple[str, frozenset[str]]]] = {}
        rows = connection.execute(
            sa.select(override.c.id, override.c.party, override.c.case_id, override.c.clauses).where(
                override.c.state == OverrideState.OPEN.value, override.c.until > rfc3339(at)
            )
        )
        for row in rows:
            running.setdefault(row.case_id, {})[row.party] = (row.id, frozenset(orjson.loads(row.clauses)))
        asked = _requests(connection, {m.causationid for m in messages if m.causationid})
        return Pending(self._keys, self._due, self._known, running, asked, at)

    def kept(self, connection: sa.Connection, source: str, message: str) -> Kept | None:
        """The submission that a referral waits with; None when it is not kept any more."""
        sealed = connection.execute(
            sa.select(kept_submission.c.sealed).where(
                kept_submission.c.source == source, kept_submission.c.message == message
            )
        ).scalar()
        if sealed is None:
            return None
        said = orjson.loads(self._keys.unseal(bytes(sealed)))
        event = Message.from_json(said["event"])
        if (event.source, event.id) != (source, message):
            raise ValueError("a kept submission is filed under another message")
        return Kept(event, said.get("data", event.data), said["roles"], said["refs"], said["cases"])


class Pending:
    """The waiting things of one batch; see `Waiting`."""

    def __init__(
        self,
        keys: Keys,
        due: Due,
        known: set[tuple[str, str, str, str]],
        running: Mapping[str, Mapping[str, tuple[str, frozenset[str]]]],
        asked: Mapping[tuple[str, str], Request],
        at: datetime,
    ) -> None:
        self._keys, self._due, self._known = keys, due, known
        self._running, self._asked = running, asked
        self._at, self._said_at = at, rfc3339(at)
        self._is_new = at.astimezone(NEW_ZEALAND).date().isoformat() >= duties.IPP3A_BEGINS
        self._dues: dict[tuple[str, str | None, str], str] = {}
        self._about: _About | None = None
        self._referrals: list[_Stored] = []
        self._kept: dict[tuple[str, str], tuple[Message, Placed, Mapping[str, str]]] = {}
        self._duties: dict[tuple[str, str, str, str], tuple[str | None, str]] = {}
        self._answered: dict[str, str] = {}
        self._used: list[tuple[str, Message, str, tuple[str, ...]]] = []

    def leaves(self, message: Message, placed: Placed) -> dict[str, Leave]:
        """What people decided for single recipients of *message*, by party; {} nearly always."""
        found: dict[str, Leave] = {}
        if self._running:
            for case in placed.cases:
                for party, (_, clauses) in self._running.get(case.id, {}).items():
                    found[party] = Leave(opened=found.get(party, NO_LEAVE).opened | clauses)
        request = self._request_of(message)
        if request is not None and request.mandatory:
            leave = found.get(request.party, NO_LEAVE)
            found[request.party] = leave._replace(mandatory=True)
        return found

    def add(
        self, message: Message, placed: Placed, refs: Mapping[str, str], decision: Decision, leave: Leave
    ) -> None:
        """Notes what follows from *decision*: who is asked, and which duties a release brings."""
        referred, given = decision.found.referred, decision.given
        if referred or given:
            about = self._about
            if about is None or about.message is not message:
                about = self._about = self._shared(message, placed)
            if referred:
                self._refer(about, decision, leave)
                self._kept[message.source, message.id] = (message, placed, refs)
            if given:
                self._oblige(about, decision)
                if message.type in REQUESTS:
                    self._ask(about, decision)
                if leave.opened:
                    self._use(about, decision, leave)
        if self._asked and (request := self._request_of(message)) is not None:
            self._answered[request.id] = message.id

    def used_by_override(self) -> list[tuple[str, str, str, str]]:
        """What left under an override: (override, source, message, party that received it)."""
        return [(id, message.source, message.id, party) for id, message, party, _ in self._used]

    def entries(self) -> list[Entry]:
        """What goes into the ledger beside the decisions: each use of an override."""
        return [
            Entry(
                OVERRIDE,
                "hub",
                identity("hub", f"override used\n{id}\n{m.source}\n{m.id}"),
                party,
                {
                    "v": 1,
                    "kind": OVERRIDE,
                    "at": self._said_at,
                    "source": "hub",
                    "message": identity("hub", f"override used\n{id}\n{m.source}\n{m.id}"),
                    "party": party,
                    "outcome": "used",
                    "override": id,
                    "of": {"source": m.source, "message": m.id},
                    "clauses": list(clauses),
                },
            )
            for id, m, party, clauses in self._used
        ]

    def save(self, connection: sa.Connection) -> None:
        """Writes what waits. Part of the batch's one transaction: a crash before its commit leaves nobody
        asked about what was not decided. The transaction is in sequence (`schemas.database.in_sequence`), so
        that what is not there when looked for is added by nobody else.
        """
        add_rows(connection, referral, _Stored._fields, self._referrals)
        there = {
            tuple(row) for row in rows_named(connection, kept_submission, _KEPT[:2], _KEPT[:2], self._kept)
        }
        kept = [self._sealed(*said) for key, said in self._kept.items() if key not in there]
        add_rows(connection, kept_submission, _KEPT, kept)
        new = {key: standing for key, standing in self._duties.items() if key not in self._known}
        rows = rows_among(connection, duty, _DUTY_KEY, "case_id", [key[0] for key in new])
        there = {tuple(row) for row in rows}
        add_rows(connection, duty, _DUTY, [self._duty(*d) for d in new.items() if d[0] not in there])
        for request, answer in self._answered.items():
            connection.execute(
                sa.update(referral)
                .where(referral.c.id == request, referral.c.state.in_([s.value for s in OPEN]))
                .values(state=State.ANSWERED.value, answer=answer, ended=self._said_at)
            )

    def committed(self) -> None:
        """Remembers the duties that are stored now. After the commit only: what was rolled back is not."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        self._known.update(self._duties)

    def _request_of(self, message: Message) -> Request | None:
        if not self._asked or message.causationid is None:
            return None
        return self._asked.get((message.causationid, agency_of(message.source)))

    def _shared(self, message: Message, placed: Placed) -> "_About":
        cases = [case.id for case in placed.cases]
        risk, site = _risk_and_site(placed)
        return _About(message, placed, agency_of(message.source), orjson.dumps(cases).decode(), risk, site)

    def _refer(self, about: "_About", decision: Decision, leave: Leave) -> None:
        message, party = about.message, decision.recipient
        self._referrals.append(
            _Stored(
                referral_id(message.source, message.id, party),
                RELEASE,
                message.source,
                message.id,
                party,
                about.agency,
                message.type,
                _cells(decision.found.referred),
                about.cases,
                leave.mandatory,
                self._said_at,
                self._due_at(RELEASE, about.risk, about.site),
                # What the law requires is for a lawyer to refuse, if at all.
                _LEGAL if leave.mandatory else _WAITING,
            )
        )

    def _ask(self, about: "_About", decision: Decision) -> None:
        message = about.message
        request = message.data.get("request", {})
        stated = request.get("dueAt")
        due = rfc3339(instant_of(stated)) if stated else self._due_at(REQUEST, about.risk, about.site)
        self._referrals.append(
            _Stored(
                identity("hub", f"request\n{message.source}\n{message.id}\n{decision.recipient}"),
                REQUEST,
                message.source,
                message.id,
                message.source,
                agency_of(decision.recipient),
                message.type,
                "[]",
                about.cases,
                request.get("under") == "OTA66" and about.agency in MAY_REQUIRE,
                self._said_at,
                due,
                _WAITING,
                disclosure=disclosure_id(message.source, message.id, decision.recipient),
            )
        )

    def _use(self, about: "_About", decision: Decision, leave: Leave) -> None:
        if cited := leave.opened.intersection(decision.clauses):
            for case in about.placed.cases:
                running = self._running.get(case.id, {}).get(decision.recipient)
                if running is not None:
                    used = (running[0], about.message, decision.recipient, tuple(sorted(cited)))
                    self._used.append(used)

    def _oblige(self, about: "_About", decision: Decision) -> None:
        known, party = about.placed.roles, decision.recipient
        roles = {known.get(ref, "") for ref, facets in decision.given.items() if ref and facets}
        add = self._duties.setdefault
        for case in about.placed.cases:
            id, standing = case.id, (case.risk, case.site)
            if self._is_new:
                for role in roles:
                    if role:
                        add((id, duties.NOTIFY, party, role), standing)
            # The purposes of child welfare alone rest on section 66C, to which the consultation belongs.
            if "child" in roles and decision.purpose.startswith("CW-"):
                add((id, duties.CONSULT, about.agency, "child"), standing)

    def _duty(
        self, key: tuple[str, str, str, str], standing: tuple[str | None, str]
    ) -> tuple[str, str, str, str, str, str, str, str]:
        return (*key, self._said_at, self._due_at(key[1], *standing), "", "")

    def _due_at(self, kind: str, risk: str | None, site: str) -> str:
        """When *kind* is due; a batch begins everything at one instant, so that few are counted."""
        found = self._dues.get((kind, risk, site))
        if found is None:
            found = self._dues[kind, risk, site] = rfc3339(self._due(self._at, kind, risk, site))
        return found

    def _sealed(self, message: Message, placed: Placed, refs: Mapping[str, str]) -> tuple[str, str, bytes]:
        said: dict[str, Any] = {
            "event": message.to_json(),
            "roles": placed.roles,
            "refs": dict(refs),
            "cases": [case.id for case in placed.cases],
        }
        if placed.data is not message.data:
            said["data"] = placed.data
        return message.source, message.id, self._keys.seal_bytes(orjson.dumps(said))


class _About(NamedTuple):
    """What all that waits about one message shares: the JSON of its cases' ids, the *agency* that sent it,
    and of which *risk* and *site* it is.
    """

    message: Message
    placed: Placed
    agency: str
    cases: str
    risk: str | None
    site: str


class _Stored(NamedTuple):
    """The columns of a referral, as they are when it begins."""

    id: str
    kind: str
    source: str
    message: str
    party: str
    holder: str
    type: str
    cells: str
    cases: str
    mandatory: bool
    at: str
    due: str
    state: str
    reason: str = ""
    ended: str = ""
    disclosure: str = ""
    answer: str = ""


@lru_cache(maxsize=4096)
def _cells(referred: int) -> str:
    return orjson.dumps(REFERRED.words(referred)).decode()


def rows(
    connection: sa.Connection,
    *,
    ids: Iterable[str] | None = None,
    holder: str = "",
    messages: Iterable[str] | None = None,
    only_open: bool = False,
    state: State | None = None,
    due_before: str = "",
    case: str = "",
    limit: int = 10_000,
) -> list[Row]:
    """The referrals that match what is given: those that wait first, the most urgent first."""
    query = sa.select(referral)
    if ids is not None:
        query = query.where(referral.c.id.in_(list(ids)))
    if messages is not None:
        query = query.where(referral.c.message.in_(list(messages)))
    if holder:
        query = query.where(referral.c.holder == holder)
    if only_open:
        query = query.where(referral.c.state.in_([s.value for s in OPEN]))
    if state is not None:
        query = query.where(referral.c.state == state.value)
    if due_before:
        query = query.where(referral.c.due < due_before)
    if case:
        query = query.where(referral.c.cases.contains(case, autoescape=True))
    query = query.order_by(referral.c.ended, referral.c.due, referral.c.id).limit(limit)
    return [_row(row) for row in connection.execute(query)]


def referred(connection: sa.Connection, messages: Iterable[str]) -> set[str]:
    """The ids of the referrals of *messages* (ids), ended ones too: a person's approval is recorded under
    them.
    """
    return {id for (id,) in rows_among(connection, referral, ("id",), "message", messages)}


def _row(row: sa.Row[Any]) -> Row:
    return Row(
        row.id,
        row.source,
        row.message,
        row.party,
        row.holder,
        row.type,
        tuple((role, name) for role, name in orjson.loads(row.cells)),
        tuple(orjson.loads(row.cases)),
        row.at,
        row.ended,
        row.reason,
        row.answer,
        Standing(row.kind, State(row.state), row.mandatory, instant_of(row.due)),
    )


def counts(connection: sa.Connection, at: str) -> dict[tuple[str, str, str], int]:
    """How much waits at *at*: (what, holder, state) → number. What: `release`, `request`, a kind of duty, or
    `review` of an override; state: `waiting`, `legal` or `overdue`.
    """
    found: dict[tuple[str, str, str], int] = {}

    def add(what: str, holder: str, state: str, number: int) -> None:
        found[what, holder, state] = found.get((what, holder, state), 0) + number

    # By label: a server that is given the deadline twice would take the two for different expressions.
    late = sa.case((referral.c.due < at, 1), else_=0).label("late")
    query = (
        sa.select(referral.c.kind, referral.c.holder, referral.c.state, late, sa.func.count())
        .where(referral.c.state.in_([s.value for s in OPEN]))
        .group_by(referral.c.kind, referral.c.holder, referral.c.state, sa.text("late"))
    )
    for kind, holder, state, is_late, number in connection.execute(query):
        add(kind, holder, "overdue" if is_late else "legal" if state == State.LEGAL else "waiting", number)
    late = sa.case((duty.c.due < at, 1), else_=0).label("late")
    of_duties = (
        sa.select(duty.c.kind, duty.c.party, late, sa.func.count())
        .where(duty.c.state == "")
        .group_by(duty.c.kind, duty.c.party, sa.text("late"))
    )
    for kind, party, is_late, number in connection.execute(of_duties):
        add(kind, agency_of(party), "overdue" if is_late else "waiting", number)
    late = sa.case((override.c.review_due < at, 1), else_=0).label("late")
    of_reviews = (
        sa.select(override.c.party, late, sa.func.count())
        .where(override.c.state.in_([OverrideState.OPEN.value, OverrideState.CLOSED.value]))
        .group_by(override.c.party, sa.text("late"))
    )
    for party, is_late, number in connection.execute(of_reviews):
        add("review", agency_of(party), "overdue" if is_late else "waiting", number)
    return found


def end(connection: sa.Connection, row: Row, state: State, reason: str, at: str) -> bool:
    """Moves *row* to *state* in the caller's transaction, if nobody was faster; says whether it did. The
    submission goes when nothing open needs it any more.
    """
    values: dict[str, Any] = {"state": state.value, "reason": reason}
    if state not in OPEN:
        values["ended"] = at
    moved = connection.execute(
        sa.update(referral)
        .where(referral.c.id == row.id, referral.c.state == row.standing.state.value)
        .values(**values)
    ).rowcount
    if moved != 1:
        return False
    if state not in OPEN:
        still = (
            sa.select(referral.c.id)
            .where(
                referral.c.source == row.source,
                referral.c.message == row.message,
                referral.c.kind == RELEASE,
                referral.c.state.in_([s.value for s in OPEN]),
            )
            .limit(1)
        )
        if connection.execute(still).first() is None:
            connection.execute(
                sa.delete(kept_submission).where(
                    kept_submission.c.source == row.source, kept_submission.c.message == row.message
                )
            )
    return True


def _requests(connection: sa.Connection, ids: set[str]) -> dict[tuple[str, str], Request]:
    """(id that an answer names, agency that was asked) → the request, by its own id and by that under which
    the agency received it.
    """
    found: dict[tuple[str, str], Request] = {}
    columns = ("message", "disclosure", "id", "party", "holder", "mandatory")
    for key in ("message", "disclosure"):
        for row in rows_among(connection, referral, columns, key, ids, f"kind = '{REQUEST}'"):
            request = Request(row[2], row[3], row[4], bool(row[5]))
            found[row[columns.index(key)], request.holder] = request
    return found


def _risk_and_site(placed: Placed) -> tuple[str | None, str]:
    """The highest risk of the cases, and the site of the first; unknown where there is none."""
    risks = [case.risk for case in placed.cases if case.risk]
    order = ("low", "medium", "high")
    risk = max(risks, key=lambda r: order.index(r) if r in order else 3) if risks else None
    return risk, placed.cases[0].site if placed.cases else ""


def referral_id(source: str, message: str, party: str) -> str:
    """The id of what waits for a person because *party* may not simply have *message* of *source*; also that
    of the decision that ends it.
    """
    return identity("hub", f"referral\n{source}\n{message}\n{party}")


def disclosure_id(source: str, message: str, party: str) -> str:
    """The id under which *party* receives *message* of *source*."""
    return identity("hub", f"disclosure\n{source}\n{message}\n{party}")


__all__ = [
    "MAY_REQUIRE",
    "REQUESTS",
    "Kept",
    "Pending",
    "Row",
    "Waiting",
    "counts",
    "disclosure_id",
    "duty",
    "end",
    "kept_submission",
    "override",
    "referral",
    "referral_id",
    "referred",
    "rows",
]
