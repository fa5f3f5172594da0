"""The console's pages for the people who decide: what waits, one referral with its draft, the register,
break-glass, duties.

They work without JavaScript. One page alone shows something of a message: a referral's draft, to a person of
the agency that sent it, after that look is in the ledger. Another shows what somebody wrote: the reason of an
override, to whoever reviews it.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, Any, Protocol
from urllib.parse import parse_qs, urlencode

from fastapi import Depends, FastAPI, Request
from starlette.responses import RedirectResponse, Response

from consent.clause import THREATS
from consent.duty import CHANNELS, CONSULT, DISPOSITIONS, NOTIFY
from consent.override import FINDINGS
from consent.override import State as OverrideState
from consent.referral import CAPACITIES, REASONS, RELEASE, State, is_overdue
from consent.waiting import Row
from gateway import queries
from gateway.access import Viewer
from gateway.auth import DECIDE
from gateway.duties import Duties
from gateway.hub import Hub
from gateway.overrides import Override, Overrides
from gateway.referrals import Draft, Person, Referrals
from gateway.register import ENDINGS, Register, counted
from schemas.clock import NEW_ZEALAND
from schemas.errors import AlreadyDecided, HubError, InvalidMessage, NotAuthorised, NotFound, TooLarge
from schemas.message import agency_of

_MAX_FORM = 32_768  # a reason of 2,000 characters, each escaped
_SHOWN = 200  # rows of a list on one page; the rest is said in words
DUTY_TITLES = {NOTIFY: "Tell the individual (IPP 3A)", CONSULT: "Ask the child (s 66K)"}
Make = Callable[[Request], Response]


class _Show(Protocol):
    def __call__(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page."""
        ...


def add_pages(app: FastAPI, hub: Hub, show: _Show, guarded: Callable[[str, str, Make], Make]) -> None:
    """Adds the pages to *app*; *show* makes a page, *guarded* lets in whom a scope lets in, records the look,
    and puts who looks into `request.state.viewer`.
    """
    pages = _OfficerPages(hub, show)

    async def form(request: Request) -> dict[str, list[str]]:
        content = b""
        async for part in request.stream():
            content += part
            if len(content) > _MAX_FORM:
                raise TooLarge("the form is too large")
        return parse_qs(content.decode("utf-8", "replace"))

    def posted(what: str, make: Make) -> Callable[..., Response]:
        inner = guarded(DECIDE, what, make)

        def route(request: Request, sent: Annotated[dict[str, list[str]], Depends(form)]) -> Response:
            request.state.form = sent
            return inner(request)

        return route

    for path, make in (
        ("waiting", pages.waiting),
        ("referral", pages.referral),
        ("register", pages.register),
        ("overrides", pages.overrides),
        ("override", pages.reason),
        ("duties", pages.duties),
    ):
        app.add_api_route(f"/console/{path}", guarded(DECIDE, path, make), methods=["GET"])
    for path, make in (
        ("referral", pages.decide),
        ("overrides", pages.override),
        ("duties", pages.record),
    ):
        app.add_api_route(f"/console/{path}", posted(f"{path}-decide", make), methods=["POST"])


class _OfficerPages:
    """The pages, each made from what the hub holds now."""

    def __init__(self, hub: Hub, show: _Show) -> None:
        self._hub, self._show = hub, show
        self._referrals, self._register = Referrals(hub), Register(hub)
        self._overrides, self._duties = Overrides(hub), Duties(hub)

    def waiting(self, request: Request) -> Response:
        """What waits for a person: of the viewer's agency, or of all for whoever looks for the hub."""
        viewer: Viewer = request.state.viewer
        agency = "" if viewer.party == "hub" else agency_of(viewer.party)
        now = self._hub.clock()
        found = self._referrals.open(agency)
        return self._show(
            "waiting.html",
            agency=agency,
            rows=[(row, is_overdue(row.standing, now)) for row in found[:_SHOWN]],
            total=len(found),
            overdue=sum(is_overdue(row.standing, now) for row in found),
            legal=sum(row.standing.state.value == "legal" for row in found),
            done=_word(request.query_params.get("done", "")),
        )

    def referral(self, request: Request, wrong: HubError | None = None) -> Response:
        """One referral: what is asked, of whom, why, and, to its holder's person, what would leave."""
        viewer: Viewer = request.state.viewer
        row = self._referrals.one(request.query_params.get("id", ""))
        theirs = row.holder == agency_of(viewer.party)
        if not theirs and viewer.party != "hub":
            raise NotFound
        draft, gone = None, ""
        if theirs and row.standing.kind == RELEASE:
            try:
                draft = self._referrals.draft(row.id, _person(viewer, {}), scrubbed=True)
            except (AlreadyDecided, NotFound) as error:
                gone = error.detail
        decisions = queries.decisions_on(self._hub.engine, row.message, row.source)
        said = next((r for r in decisions if r.body["party"] == row.party), None)
        return self._show(
            "referral.html",
            422 if wrong else 200,
            row=row,
            late=is_overdue(row.standing, self._hub.clock()),
            theirs=theirs,
            draft=draft,
            parts=_parts(draft),
            gone=gone,
            decided=said,
            wrong=wrong,
            form=getattr(request.state, "form", {}),
            capacities=CAPACITIES,
            reasons=_reasons(row),
        )

    def decide(self, request: Request) -> Response:
        """Approves, declines or ends as told, and goes back to what waits."""
        sent = request.state.form
        id, act = request.query_params.get("id", ""), _one(sent, "act")
        person = _person(request.state.viewer, sent)
        cells = [(role, name) for role, _, name in (c.partition(":") for c in sent.get("cell", ()))]
        scrubbed = _one(sent, "scrubbed") == "yes"
        steps: Mapping[str, Callable[[], State]] = {
            "decline": lambda: self._referrals.decline(id, person, _one(sent, "reason")),
            "told": lambda: self._referrals.told(id, person),
        }
        try:
            if act == "approve" and cells:  # nobody approves everything by choosing nothing
                state = self._referrals.approve(id, person, cells, scrubbed=scrubbed)
            else:
                step: Callable[[], State] = steps.get(act, _not_said)
                state = step()
        except InvalidMessage as error:
            return self.referral(request, error)
        return _back("waiting", done=state.value)

    def register(self, request: Request) -> Response:
        """What was considered on a day, and what is overdue now."""
        day = _date(request.query_params.get("date", ""))
        day = day or self._hub.clock().astimezone(NEW_ZEALAND).date()
        size = self._hub.ledger.head().size
        start, stop = queries.day_range(self._hub.engine, size, day)
        counts = counted(self._register.lines(start, stop))
        keys = sorted({(what, holder) for what, holder, _ in counts}, key=lambda k: (k[0] != "request", k))
        late = self._register.overdue()
        return self._show(
            "register.html",
            day=day,
            keys=keys,
            counts=counts,
            endings=ENDINGS,
            late=late[:_SHOWN],
            overdue=len(late),
        )

    def overrides(self, request: Request, wrong: HubError | None = None) -> Response:
        """What was opened or tried, and the form to open."""
        viewer: Viewer = request.state.viewer
        now = self._hub.clock()
        found = self._overrides.find(limit=_SHOWN)
        in_force = self._hub.agreements.in_force(now)
        party = self._hub.agreements.parties.get(viewer.party)
        return self._show(
            "overrides.html",
            422 if wrong else 200,
            rows=[(o, o.runs(now), o.is_overdue(now)) for o in found],
            viewer=viewer,
            clauses=in_force.behind_glass(party) if in_force and party else {},
            threats=THREATS,
            capacities=CAPACITIES,
            findings=FINDINGS,
            wrong=wrong,
            form=getattr(request.state, "form", {}),
            done=_word(request.query_params.get("done", "")),
        )

    def reason(self, request: Request) -> Response:
        """Why one override was opened, in the words of who opened it, for whoever reviews it."""
        found = self._overrides.find(id=request.query_params.get("id", ""))
        if not found or found[0].state is OverrideState.REFUSED:
            raise NotFound
        return self._show(
            "override.html", one=found[0], reason=self._overrides.reason(found[0].id), threats=THREATS
        )

    def override(self, request: Request) -> Response:
        """Opens, agrees, closes or reviews."""
        sent, viewer = request.state.form, request.state.viewer
        id, act = _one(sent, "id"), _one(sent, "act")
        person = _person(viewer, sent)
        steps: Mapping[str, Callable[[], Any]] = {
            "open": lambda: self._overrides.open(
                person, _one(sent, "case").strip(), _one(sent, "threat"), _one(sent, "reason")
            ),
            "agree": lambda: self._overrides.agree(id, person),
            "close": lambda: self._overrides.close(id, person),
            "review": lambda: self._overrides.review(id, person, _one(sent, "finding")),
        }
        try:
            made: Override = steps.get(act, _not_said)()
        except (InvalidMessage, NotFound, NotAuthorised, AlreadyDecided) as error:
            return self.overrides(request, error)
        return _back("overrides", done=made.state.value)

    def duties(self, request: Request, wrong: HubError | None = None) -> Response:
        """Whom the viewer's party must tell or ask."""
        viewer: Viewer = request.state.viewer
        party = "" if viewer.party == "hub" else viewer.party
        found = self._duties.find(party=party, limit=10_000)
        return self._show(
            "duties.html",
            422 if wrong else 200,
            party=party,
            rows=[(d, self._duties.is_overdue(d)) for d in found[:_SHOWN]],
            total=len(found),
            overdue=sum(self._duties.is_overdue(d) for d in found),
            titles=DUTY_TITLES,
            dispositions=DISPOSITIONS,
            channels=CHANNELS,
            capacities=CAPACITIES,
            wrong=wrong,
            done=_word(request.query_params.get("done", "")),
        )

    def record(self, request: Request) -> Response:
        """Records how one duty ended."""
        sent, viewer = request.state.form, request.state.viewer
        code, _, channel = _one(sent, "code").partition(":")
        try:
            kind, party, case, role = (_one(sent, name) for name in ("kind", "party", "case", "role"))
            done = self._duties.record(kind, party, case, role, code, _person(viewer, sent), channel)
        except (InvalidMessage, NotFound, AlreadyDecided) as error:
            return self.duties(request, error)
        return _back("duties", done=done.state)


def _not_said() -> Any:
    raise InvalidMessage("choose what you decide; and, to approve, what may leave")


def _parts(draft: Draft | None) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """The cells of *draft* as (role, class, how, guards): `leaves`, `read` first, or `held`."""
    if draft is None:
        return []
    parts: list[tuple[str, str, str, tuple[str, ...]]] = [(r, c, "leaves", ()) for r, c in draft.leaves]
    parts += [(r, c, "read", ()) for r, c in draft.to_read]
    return parts + [(r, c, "held", codes) for (r, c), codes in draft.held]


def _reasons(row: Row) -> dict[str, str]:
    """The reasons that there are against *row*, with what each says."""
    legal = row.standing.mandatory
    return {code: r.says for code, r in REASONS.items() if r.mandatory or not legal}


def _person(viewer: Viewer, sent: Mapping[str, list[str]]) -> Person:
    return Person(viewer.party, _one(sent, "capacity"), viewer.officer)


def _one(sent: Mapping[str, list[str]], name: str) -> str:
    return sent.get(name, [""])[0]


def _word(text: str) -> str:
    return text if re.fullmatch(r"[a-z-]{1,30}", text) else ""


def _back(page: str, **said: str) -> Response:
    return RedirectResponse(f"/console/{page}?{urlencode(said)}", 303)


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None
