"""The register of what was considered (Family Violence Act 2018 s 24): every request for information and
every message that could have gone to somebody ends as shared, part shared or declined with a reason, or it is
overdue. Read from the ledger and the referrals; nothing is decided here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from consent.entry import DECISION_KINDS
from consent.referral import OPEN, REQUEST, State, is_overdue
from consent.waiting import REQUESTS, Row, referral_id, rows
from gateway import queries
from schemas.clock import rfc3339
from schemas.database import reading

SHARED, PART, DECLINED, WAITING, OVERDUE = "shared", "part", "declined", "waiting", "overdue"
ENDINGS = {
    SHARED: "shared",
    PART: "part shared",
    DECLINED: "declined, with a reason",
    WAITING: "waits for a person, in time",
    OVERDUE: "overdue: nobody has decided",
}
_PAGE = 500


class Considered(NamedTuple):
    """One line. *what*: `request`, or `candidate` for a message that could go to *party*; *holder* sent it or
    was asked; *due* is "" where no person is needed; *by* is the capacity of who decided, "" where the
    agreements did.
    """

    what: str
    at: str
    holder: str
    party: str
    message: str
    type: str
    ending: str
    reasons: tuple[str, ...]
    due: str
    by: str
    entry: int


class Register:
    """The register of an open *hub*."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def lines(self, start: int, stop: int) -> Iterator[Considered]:
        """Every line that began in the ledger's entries from *start* up to, not including, *stop*."""
        page: list[queries.Row] = []
        for row in queries.between(self._hub.engine, start, stop):
            # What ends a referral or an override is not considered anew; the hub's own words are no
            # information about anybody.
            said = row.body
            if said["kind"] in DECISION_KINDS and "referral" not in said and said["source"] != "hub":
                page.append(row)
            if len(page) == _PAGE:
                yield from self._page(page)
                page = []
        yield from self._page(page)

    def overdue(self) -> list[Row]:
        """What is overdue now, whenever it began, the oldest deadline first."""
        with reading(self._hub.engine).begin() as connection:
            now = rfc3339(self._hub.clock())
            return rows(connection, only_open=True, due_before=now)

    def _page(self, page: Iterable[queries.Row]) -> Iterator[Considered]:
        page = list(page)
        referred = [row for row in page if row.body["referred"]]
        asked = {row.index: row for row in page if row.body["type"] in REQUESTS and row.body["given"]}
        wanted = {row.body["message"] for row in (*referred, *asked.values())}
        found: dict[str, Row] = {}
        requests: dict[tuple[str, str], Row] = {}
        with reading(self._hub.engine).begin() as connection:
            for one in rows(connection, messages=wanted) if wanted else ():
                found[one.id] = one
                if one.standing.kind == REQUEST:
                    requests[one.source, one.message] = one
        ended = self._ended([one for one in found.values() if one.standing.state not in OPEN])
        for row in page:
            said = row.body
            held = found.get(referral_id(said["source"], said["message"], said["party"]))
            yield self._candidate(row, held, ended)
            request = requests.get((said["source"], said["message"]))
            if request is not None and row.index in asked:
                yield self._request(row, request, ended)

    def _ended(self, referrals: Iterable[Row]) -> dict[str, Mapping[str, Any]]:
        """The deciding entry of each of *referrals*, by its id; for an answered request, the decision on the
        answer.
        """
        found: dict[str, Mapping[str, Any]] = {}
        for one in referrals:
            answered = one.standing.state is State.ANSWERED
            for row in queries.decisions_on(self._hub.engine, one.answer if answered else one.id):
                if row.body["party"] == one.party:
                    found[one.id] = row.body
        return found

    def _candidate(
        self, row: queries.Row, held: Row | None, ended: Mapping[str, Mapping[str, Any]]
    ) -> Considered:
        said = row.body
        ending = {"permit": SHARED, "reduced": PART, "refer": WAITING, "refuse": DECLINED}[said["outcome"]]
        reasons, due, by = tuple(said["reasons"]), "", ""
        if held is not None:
            due = rfc3339(held.standing.due)
            if held.standing.state in OPEN:
                ending = OVERDUE if is_overdue(held.standing, self._hub.clock()) else WAITING
            else:
                given = said["outcome"] == "reduced"
                ending = {
                    State.APPROVED: SHARED,
                    State.TOLD: PART if given else SHARED,
                    State.PART: PART,
                }.get(held.standing.state, PART if given else DECLINED)
                reasons, by = _decided(held, ended)
        return Considered(
            "candidate",
            said["at"],
            said["source"],
            said["party"],
            said["message"],
            said["type"],
            ending,
            reasons,
            due,
            by,
            row.index,
        )

    def _request(self, row: queries.Row, request: Row, ended: Mapping[str, Mapping[str, Any]]) -> Considered:
        reasons, by = _decided(request, ended)
        if request.standing.state in OPEN:
            ending = OVERDUE if is_overdue(request.standing, self._hub.clock()) else WAITING
        elif request.standing.state is State.ANSWERED:
            outcome = ended.get(request.id, {}).get("outcome", "")
            ending = {"permit": SHARED, "reduced": PART, "refer": WAITING}.get(outcome, DECLINED)
        else:
            ending = SHARED if request.standing.state is State.TOLD else DECLINED
        return Considered(
            "request",
            request.at,
            request.holder,
            request.party,
            request.message,
            request.type,
            ending,
            reasons,
            rfc3339(request.standing.due),
            by,
            row.index,
        )


def _decided(one: Row, ended: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, ...], str]:
    said = ended.get(one.id, {})
    reasons = (one.reason,) if one.reason else tuple(said.get("reasons", ()))
    return reasons, said.get("decided_by", {}).get("capacity", "")


def counted(lines: Iterable[Considered]) -> Counter[tuple[str, str, str]]:
    """(what, holder, ending) → how many."""
    return Counter((line.what, line.holder, line.ending) for line in lines)


__all__ = ["ENDINGS", "Considered", "Register", "counted"]
