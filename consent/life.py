"""The life of an agreement: drafted, approved by both sides, in force for its term, suspended at once,
superseded, revoked. Pure: what may follow what, and who may do it.

No one person brings an agreement into force: its author does not approve it, each side of each of its clauses
does, and at least two people of two parties have. Whoever is on either side can stop it alone; to go on
takes another person than the one who stopped it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple

from consent.clause import ANY, Agreement, Party
from schemas.errors import OutOfTurn

DRAFT, APPROVED, SUSPENDED, REVOKED = "draft", "approved", "suspended", "revoked"
PROPOSE, APPROVE, SUSPEND, RESUME, REVOKE, SUPERSEDE = (
    "propose",
    "approve",
    "suspend",
    "resume",
    "revoke",
    "supersede",
)
VERBS = (PROPOSE, APPROVE, SUSPEND, RESUME, REVOKE, SUPERSEDE)
HOLDER, RECIPIENT = "holder", "recipient"


class Officer(NamedTuple):
    """Who acts: a *party*, and in it a *person*, known by a keyed digest only."""

    party: str
    person: str


class Side(NamedTuple):
    """A side that has to approve: a kind of party, or one party, as *holder* or as *recipient*."""

    capacity: str
    who: str


@dataclass(frozen=True, slots=True)
class Life:
    """Where one version of an agreement, or of the list of parties, stands. *content* is the hash that its
    approvals are about; *stopped_by* suspended it; *superseded_by* (`ID@version`) takes its place.
    """

    agreement: str
    version: int
    content: str
    file: str
    state: str = DRAFT
    author: Officer | None = None
    approvals: tuple[Officer, ...] = ()
    stopped_by: Officer | None = None
    superseded_by: str = ""

    @property
    def name(self) -> str:
        """`ID@version`."""
        return f"{self.agreement}@{self.version}"

    @property
    def counts(self) -> bool:
        """Whether decisions are made by it, on the days of its term."""
        return self.state == APPROVED

    def to_json(self) -> dict[str, Any]:
        """Who did what, as stored."""
        return {
            "author": self.author,
            "approvals": self.approvals,
            "stopped_by": self.stopped_by,
            "superseded_by": self.superseded_by,
        }

    def with_stored(self, stored: Mapping[str, Any]) -> "Life":
        """This life with who did what, as `to_json` stored it."""
        return replace(
            self,
            author=_officer(stored["author"]),
            approvals=tuple(Officer(*a) for a in stored["approvals"]),
            stopped_by=_officer(stored["stopped_by"]),
            superseded_by=stored["superseded_by"],
        )


def _officer(stored: Any) -> Officer | None:
    return Officer(*stored) if stored else None


def says(life: Life, agreement: Agreement | None, today: date) -> str:
    """The one word for where *life* stands *today*: draft, approved (not begun), in force, suspended,
    superseded, expired or revoked. *agreement* is its content with the end that its successor gives it.
    """
    if life.state != APPROVED or agreement is None:
        return life.state
    if today < agreement.effective_from:
        return "approved"
    if agreement.effective_to is not None and today > agreement.effective_to:
        return "superseded" if life.superseded_by else "expired"
    return "in force" if agreement.status == "active" else agreement.status


def sides(agreement: Agreement | None) -> tuple[Side, ...]:
    """Who has to approve *agreement*: whoever holds and whoever receives under any clause. The list of
    parties (None) has no sides; there two people of two parties are enough.
    """
    if agreement is None:
        return ()
    clauses = (*agreement.clauses, *(glass.clause for glass in agreement.break_glass))
    found = {Side(RECIPIENT, clause.recipient) for clause in clauses}
    found |= {Side(HOLDER, source) for clause in clauses for source in clause.sources}
    return tuple(sorted(found))


def stands_for(party: Party, side: Side) -> bool:
    """Whether *party* may speak for *side*. For holders that are not named (`any`) a core party of the
    meeting does.
    """
    return side.who in (party.id, party.kind) or (side.who == ANY and party.table)


def lacking(life: Life, wanted: tuple[Side, ...], parties: Mapping[str, Party]) -> tuple[Side, ...]:
    """The sides whose approval is still lacking."""
    there = [parties[o.party] for o in life.approvals if o.party in parties]
    return tuple(side for side in wanted if not any(stands_for(party, side) for party in there))


def approved(life: Life, by: Officer, wanted: tuple[Side, ...], parties: Mapping[str, Party]) -> Life:
    """*life* after *by* approved it: in state approved once nothing is lacking. Raises `OutOfTurn`."""
    _require(life, DRAFT)
    if life.author is not None and by.person == life.author.person:
        raise OutOfTurn("whoever proposed an agreement does not approve it: another person of a party has to")
    if any(by.person == a.person or by.party == a.party for a in life.approvals):
        raise OutOfTurn("this person or party has approved it already")
    if wanted and not any(stands_for(parties[by.party], side) for side in wanted):
        raise OutOfTurn(f"{by.party} is on neither side of {life.name}")
    after = replace(life, approvals=(*life.approvals, by))
    if len(after.approvals) >= 2 and not lacking(after, wanted, parties):
        after = replace(after, state=APPROVED)
    return after


def stepped(
    life: Life, verb: str, by: Officer, wanted: tuple[Side, ...], parties: Mapping[str, Party], lead: str
) -> Life:
    """*life* after *by* suspended, resumed or revoked it. Raises `OutOfTurn`."""
    if wanted and by.party != lead and not any(stands_for(parties[by.party], side) for side in wanted):
        raise OutOfTurn(f"{by.party} is on neither side of {life.name}")
    if verb == SUSPEND:
        _require(life, APPROVED)
        return replace(life, state=SUSPENDED, stopped_by=by)
    if verb == RESUME:
        _require(life, SUSPENDED)
        if life.stopped_by is not None and by.person == life.stopped_by.person:
            raise OutOfTurn("whoever suspended an agreement does not resume it: another person has to")
        return replace(life, state=APPROVED, stopped_by=None)
    _require(life, DRAFT, APPROVED, SUSPENDED)
    return replace(life, state=REVOKED)


def superseded(life: Life, successor: Life, all_lives: Mapping[str, Life]) -> Life:
    """*life* once *successor* takes its place from the day that it begins. Raises `OutOfTurn`, also when the
    chain would come back to where it began.
    """
    _require(life, APPROVED)
    _require(successor, APPROVED)
    after: Life | None = successor
    while after is not None:
        if after.name == life.name:
            raise OutOfTurn(f"{successor.name} is itself superseded by {life.name}")
        after = all_lives.get(after.superseded_by)
    return replace(life, superseded_by=successor.name)


def _require(life: Life, *states: str) -> None:
    if life.state not in states:
        raise OutOfTurn(f"{life.name} is {life.state}; this takes one that is {' or '.join(states)}")
