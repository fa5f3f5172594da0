"""Does it still stand? What was decided is decided again when the agreements changed, or when more is known
of a case, before it is sent; and what was sent by then is recalled.

The ledger is the clock: an entry below the index of a change was made without knowing of it. So that nothing
is asked again while nothing changes, two numbers are compared first, in one query for a batch.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from broker.broker import Delivery
from consent import again, inputs, recalls, waiting
from consent.agreement import Agreements, Party
from consent.case import CONFLICT, LINK, ROLE, Caution
from consent.decision import Leave
from consent.entry import DELIVERY, DISCLOSURE, NARROWED, RECALL, STOPPED
from consent.guards import NGO
from consent.inputs import Asked
from consent.ledger import Entry, Ledger, ledger_entry
from consent.minimise import minimise
from consent.placing import Batch, Cases, Placed
from consent.policy import Decision, decide
from consent.proved import Opened, salt_of
from consent.recalls import Task
from consent.register import Register
from gateway.telemetry import Telemetry
from schemas.canonical import canonical_trusted
from schemas.catalogue import Catalogue
from schemas.clock import Clock, rfc3339
from schemas.database import reading, rows_among
from schemas.errors import Unproved
from schemas.message import Message, new_message

HUB = "hub"
Say = Callable[[sa.Connection, Sequence[Message], datetime], None]


@dataclass(slots=True)
class Learnt:
    """What one batch makes known: which message is about which case, and what is new to earlier decisions.
    Offsets are of entries within the batch.
    """

    messages: set[tuple[str, str, str]] = field(default_factory=set)
    cautions: dict[str, list[tuple[int, Caution]]] = field(default_factory=dict)

    def add(self, message: Message, placed: Placed, offset: int) -> None:
        """Notes *message*, whose own decisions begin at *offset*."""
        self.messages.update((case.id, message.source, message.id) for case in placed.cases)
        for case, found in placed.cautions.items():
            self.cautions.setdefault(case, []).extend((offset, caution) for caution in found)


class Verdict(NamedTuple):
    """What became of waiting deliveries: *changed* holds what may still be sent of those that no longer stand
    as they are (None: nothing), by disclosure. *seen* is up to where the hub's knowledge was considered.
    """

    changed: Mapping[str, Message | None]
    seen: int


class Recheck:
    """Asks again. *say* decides, records and releases messages of the hub in a transaction of the caller."""

    def __init__(
        self,
        engine: sa.Engine,
        ledger: Ledger,
        catalogue: Catalogue,
        register: Register,
        cases: Cases,
        telemetry: Telemetry,
        clock: Clock,
        say: Say,
    ) -> None:
        self._engine, self._ledger, self._catalogue = engine, ledger, catalogue
        self._register, self._cases = register, cases
        self._telemetry, self._clock, self._say = telemetry, clock, say

    def carried(self, connection: sa.Connection, learnt: Learnt, first: int) -> None:
        """Stores what a batch made known, and recalls what was delivered without knowing it. *first* is the
        ledger's index of the batch's first entry.

        Call it in the batch's transaction after its entries are appended: the ledger's head is locked then,
        so that a delivery is either seen here, or sees what is stored here (`sent`).
        """
        recalls.remember(connection, learnt.messages)
        parties = self._register.current().parties
        touching = {
            case: [(offset, c) for offset, c in found if _matters(c, parties)]
            for case, found in learnt.cautions.items()
        }
        touching = {case: found for case, found in touching.items() if found}
        if not touching:
            return
        recalls.warn(
            connection,
            {case: (first + max(o for o, _ in found), _reason(found)) for case, found in touching.items()},
        )
        about = recalls.messages_of(connection, touching)
        # What this very batch discloses is asked about again before it is delivered.
        before = {key for found in about.values() for key in found} - {m[1:] for m in learnt.messages}
        self._recall(connection, {case: [c for _, c in found] for case, found in touching.items()}, before)

    def check(
        self, party: str, deliveries: Sequence[Delivery], opened: Callable[[Delivery], Opened]
    ) -> Verdict:
        """Asks again about those of *deliveries* to *party* that were decided before something changed.
        *opened* gives what a delivery is proved to be, or raises `Unproved`.

        What no longer stands is in the ledger, signed, when this returns ‖. A crash after that delivers them
        again to this very question, whose answer is then recorded already.
        """
        with reading(self._engine).connect() as connection:
            agreements = self._register.refresh(connection) or self._register.current()
            seen = recalls.newest(connection)
            changed_at = max(seen, self._register.since)
            older = [d for d in deliveries if _index(d) < changed_at]
            if not older:
                return Verdict({}, seen)
            said = _said_before(connection, [d.headers["id"] for d in older])
            # Stopped is for good, whatever came after.
            changed: dict[str, Message | None] = {id: None for id, e in said.items() if e["kind"] == STOPPED}
            releases = [
                (d, release)
                for d in older
                if d.headers["id"] not in changed and (release := _if_proved(opened, d)) is not None
            ]
            known = recalls.warned(connection, {c for _, release in releases for c in release.entry["cases"]})
            doubted = [
                (d, release)
                for d, release in releases
                if d.headers["id"] in said or _doubtful(release.entry, _index(d), agreements, known)
            ]
            if not doubted:
                return Verdict(changed, seen)
            asked = inputs.of(connection, {_asked_as(release.entry) for _, release in doubted})
            cases = self._opened(connection, asked.values())
        recipient = agreements.parties.get(party)
        new: list[Entry] = []
        for delivery, (message, entry) in doubted:
            id = delivery.headers["id"]
            former = said.get(id)
            question = _with_leave(asked.get(_asked_as(entry)), entry)
            left, decision = self._left(message, question, cases, agreements, recipient)
            if left == message.data and former is None:
                self._telemetry.decided_again.labels(party, "unchanged").inc()
                continue
            changed[id] = replace(message, data=left) if left else None
            record = self._record(delivery, entry, left, decision, agreements)
            if former is None or former.get("content") != record.body.get("content"):
                new.append(record)
                self._telemetry.decided_again.labels(party, record.kind).inc()
        if new:
            with self._engine.begin() as connection:
                self._ledger.append(connection, new)
            # ‖ The narrower decisions are durable, and signed before anything leaves under them.
            self._ledger.sign()
        return Verdict(changed, seen)

    def sent(self, connection: sa.Connection, disclosures: Sequence[str], seen: int) -> None:
        """Recalls those of *disclosures*, just delivered, that would not have left had been known what was
        learnt since *seen*. Call it in the transaction of their outcome, after its entries are appended.
        """
        if recalls.newest(connection) <= seen:
            return
        touched = recalls.warned(connection, above=seen)
        about = recalls.messages_of(connection, touched)
        keys = {key for found in about.values() for key in found}
        self._recall(connection, {case: [] for case in touched}, keys, set(disclosures))

    def _left(
        self,
        message: Message,
        asked: Asked | None,
        cases: Batch,
        agreements: Agreements,
        recipient: Party | None,
    ) -> tuple[dict[str, Any], Decision | None]:
        """What of the waiting *message* may still leave, and the decision on it. Nothing, when nobody knows
        any more what was asked or who receives.
        """
        if asked is None or recipient is None:
            return {}, None
        question = asked.question
        placed = cases.now([c.id for c in question.cases], question.pseudonyms)
        now = {case.id: case for case in placed.cases}
        roles = again.roles_now(question, now, placed.roles)
        data = _in_roles(message.data, roles)
        kind = self._catalogue[message.type]
        held = again.held_by(asked, recipient, roles)
        put = again.asked_now(question, now, placed.elsewhere, held, roles)
        decision = decide(agreements, replace(put, at=self._clock()), recipient)
        return minimise(kind.shape, data, decision, roles, {}), decision

    def _record(
        self,
        delivery: Delivery,
        entry: Mapping[str, Any],
        left: Mapping[str, Any],
        decision: Decision | None,
        agreements: Agreements,
    ) -> Entry:
        """The entry for a delivery that no longer stands as it was decided."""
        kind, id = (NARROWED if left else STOPPED), delivery.headers["id"]
        body: dict[str, Any] = {
            "v": 1,
            "kind": kind,
            "at": rfc3339(self._clock()),
            "source": HUB,
            "message": id,
            "party": entry["party"],
            "type": entry["type"],
            "disclosure": _index(delivery),
            "agreements": agreements.version_hash,
            "clauses": list(decision.clauses) if decision else [],
            "reasons": list(decision.reasons) if decision else ["not-known-any-more"],
            "guards": list(decision.guards) if decision else [],
        }
        if left:
            salt = salt_of(delivery.body)  # that of the whole: who may open the one may open the other
            body["content"] = hashlib.sha256(salt + canonical_trusted(left)).hexdigest()
        return Entry(kind, HUB, id, entry["party"], body)

    def _recall(
        self,
        connection: sa.Connection,
        learnt: Mapping[str, Sequence[Caution]],
        about: set[tuple[str, str]],
        only: set[str] | None = None,
    ) -> None:
        """Recalls what was delivered of the messages *about* (source, message) the cases *learnt* and is too
        much by what is new in them; *only* these disclosures.
        """
        disclosed = [e for e in _disclosures(connection, about) if only is None or e["disclosure"] in only]
        wanted = {case: _parties(found) for case, found in learnt.items()}
        disclosed = [e for e in disclosed if any(_touches(wanted, c, e["party"]) for c in e["cases"])]
        has = _delivered(connection, [e["disclosure"] for e in disclosed])
        has -= recalls.recalled(connection, has)
        disclosed = [e for e in disclosed if e["disclosure"] in has]
        if not disclosed:
            return
        asked = inputs.of(connection, {_asked_as(e) for e in disclosed})
        cases = self._opened(connection, asked.values())
        current = self._register.current()
        wrong: list[tuple[Mapping[str, Any], str]] = []
        for entry in disclosed:
            question = _with_leave(asked.get(_asked_as(entry)), entry)
            agreements = self._register.at(entry["agreements"]) or current
            party = agreements.parties.get(entry["party"])
            if question is None or party is None:
                continue
            then = question.question
            placed = cases.now([c.id for c in then.cases], then.pseudonyms)
            now = {case.id: case for case in placed.cases}
            if again.is_less(question, now, placed.elsewhere, placed.roles, agreements, party):
                found = [c for case in entry["cases"] for c in learnt.get(case, ())]
                wrong.append((entry, _why(found)))
        if wrong:
            self._call_back(connection, wrong)

    def _call_back(self, connection: sa.Connection, wrong: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        """The entry, the task and the messages of each recall, in the caller's transaction."""
        now = self._clock()
        at = rfc3339(now)
        records, messages = [], []
        for entry, reason in wrong:
            id = entry["disclosure"]
            recalled = {"disclosure": id, "reason": reason, "instruction": "withdraw-and-confirm"}
            call = new_message(HUB, "hub.recall", {"to": entry["party"], "recall": recalled}, key=id, at=now)
            # SAFETY: not who received it: which provider did tells who works with a family. Whoever settles
            # the task at the hub sees that, and nobody else.
            source, of = _asked_as(entry)
            notice = {"to": source, "notice": {"message": of, "reason": reason}}
            messages += [call, new_message(HUB, "hub.recall-noticed", notice, key=id, at=now)]
            body = {
                "v": 1,
                "kind": RECALL,
                "at": at,
                "source": HUB,
                "message": id,
                "party": entry["party"],
                "type": entry["type"],
                "disclosure": entry["index"],
                "step": "sent",
                "reasons": [reason],
                "recall": call.id,
            }
            records.append(Entry(RECALL, HUB, id, entry["party"], body))
            self._telemetry.recalls.labels(entry["party"], reason).inc()
        numbers = self._ledger.append(connection, records)
        recalls.add(
            connection,
            [
                Task(
                    entry["disclosure"],
                    number,
                    entry["index"],
                    entry["party"],
                    *_asked_as(entry),
                    entry["type"],
                    reason,
                    at,
                    None,
                )
                for number, (entry, reason) in zip(numbers, wrong, strict=True)
            ],
        )
        self._say(connection, messages, now)

    def _opened(self, connection: sa.Connection, asked: Iterable[Asked]) -> Batch:
        """The cases of these questions as they are now, and the others of their people."""
        questions = [a.question for a in asked]
        return self._cases.open_batch(
            connection,
            {case.id for q in questions for case in q.cases},
            {pseudonym for q in questions for pseudonym in q.pseudonyms.values()},
        )


def _index(delivery: Delivery) -> int:
    """The ledger's index of the entry under which *delivery* leaves."""
    return int(delivery.headers["entry"])


def _asked_as(entry: Mapping[str, Any]) -> tuple[str, str]:
    """The (source, message) whose question *entry* answers: a person's approval answers that of what was
    referred.
    """
    of = entry.get("referral", entry)
    return of["source"], of["message"]


def _with_leave(asked: Asked | None, entry: Mapping[str, Any]) -> Asked | None:
    """*asked* with what people had decided by *entry*: what a person of the holder approved, and the
    break-glass clauses it cites. Neither outlives a guard or the agreement.
    """
    if asked is None:
        return None
    approved = frozenset((role, name) for role, name in entry.get("approved", ()))
    leave = Leave(approved, bool(entry.get("scrubbed")), frozenset(entry["clauses"]))
    return asked._replace(question=replace(asked.question, leave=leave))


def _doubtful(
    entry: Mapping[str, Any], index: int, agreements: Agreements, known: Mapping[str, tuple[int, str]]
) -> bool:
    """Whether *entry* was decided under other agreements, or before something was *known* of its cases."""
    if entry["source"] == HUB:
        return False  # the hub's own words hold nothing of anybody
    if entry["agreements"] != agreements.version_hash:
        return True
    return any(known[case][0] > index for case in entry["cases"] if case in known)


def _matters(caution: Caution, parties: Mapping[str, Party]) -> bool:
    """A link matters of a provider: who else is tasked about the perpetrator is not thereby his."""
    if caution.what != LINK:
        return True
    party = parties.get(caution.who)
    return party is None or party.kind in NGO


def _parties(cautions: Sequence[Caution]) -> set[str] | None:
    """Whom *cautions* touch; None for everybody."""
    if not cautions or any(c.what not in (LINK, CONFLICT) for c in cautions):
        return None
    return {c.who for c in cautions}


def _touches(wanted: Mapping[str, set[str] | None], case: str, party: str) -> bool:
    if case not in wanted:
        return False
    parties = wanted[case]
    return parties is None or party in parties


def _reason(found: Sequence[tuple[int, Caution]]) -> str:
    return ROLE if any(c.what == ROLE for _, c in found) else LINK


def _why(cautions: Sequence[Caution]) -> str:
    return "role-changed" if any(c.what == ROLE for c in cautions) else "link-became-known"


def _in_roles(data: dict[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
    """*data* with each of its people in the role of *roles*."""
    if all(person["role"] == roles.get(person["ref"], person["role"]) for person in data.get("people", ())):
        return data
    people = [{**p, "role": roles.get(p["ref"], p["role"])} for p in data["people"]]
    return {**data, "people": people}


def _if_proved(opened: Callable[[Delivery], Opened], delivery: Delivery) -> Opened | None:
    try:
        return opened(delivery)
    except Unproved:
        return None  # it is not sent either way; who writes it says so


def _about(connection: sa.Connection, ids: Iterable[str], *kinds: str) -> list[tuple[int, dict[str, Any]]]:
    """The entries of *kinds* on messages *ids* with their indices, in order."""
    wanted = ", ".join(f"'{kind}'" for kind in kinds)
    rows = rows_among(connection, ledger_entry, ("idx", "entry"), "message", ids, f"kind IN ({wanted})")
    return [(idx, orjson.loads(bytes(entry))) for idx, entry in sorted(rows, key=itemgetter(0))]


def _said_before(connection: sa.Connection, disclosures: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The last that was said of each disclosure when it was asked about again."""
    return {body["message"]: body for _, body in _about(connection, disclosures, STOPPED, NARROWED)}


def _disclosures(connection: sa.Connection, keys: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """Everything disclosed of the messages *keys*, at once or after a person's approval."""
    ids = {message for _, message in keys}
    ids |= waiting.referred(connection, ids)
    return [
        {**body, "index": idx} for idx, body in _about(connection, ids, DISCLOSURE) if _asked_as(body) in keys
    ]


def _delivered(connection: sa.Connection, disclosures: Iterable[str]) -> set[str]:
    return {
        body["message"]
        for _, body in _about(connection, disclosures, DELIVERY)
        if body["outcome"] == "delivered"
    }
