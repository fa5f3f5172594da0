"""The console: what moved, what was given to whom and why, what was set aside, and whether the ledger holds.

Pages are made on the server and need no JavaScript. They show decisions, never content: no name, address or
narrative passes through here. A person signs in with a one-time link that the hub prints where it was
started; where a real issuer decides who comes in there is no such link, and so no console.
"""

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode

import jinja2
from fastapi import Depends, FastAPI, Request
from markupsafe import Markup, escape
from rich.console import Console
from starlette.responses import RedirectResponse, Response

from broker.broker import ACCEPT, SUBMISSIONS, deliveries_to
from consent import recalls
from consent.agreement import KINDS
from consent.entry import DECISION_KINDS, DELIVERY, withheld
from consent.matrix import matrix_rows
from consent.merkle import CompactRange, ProofError, leaf_hash, verify_consistency
from gateway import access, officer_pages, problems, queries
from gateway.access import AccessLog, Look, Viewer
from gateway.auth import AUDIT, DECIDE, OPERATE, Gate, mint_session
from gateway.explain import OUTCOMES, clause_title, explain, in_order, party_name, reason_says, type_title
from gateway.hub import Hub
from schemas.classes import CLASSES, SUBJECT_ROLES
from schemas.clock import NEW_ZEALAND, Clock, instant_of, rfc3339
from schemas.database import reading
from schemas.errors import HubError, InvalidMessage, NotAuthorised, NotFound, Problem, TooLarge

COOKIE = "isr_session"
SESSION_SECONDS = 8 * 3600
LINK_SECONDS = 3600
DAY_CAP = 50_000  # entries counted for one day; a busier day says that it was cut
_MAX_FORM = 4096
_RECALLS_SHOWN = 200
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
_TE_REO = re.compile(
    "|".join(("Oranga Tamariki", "Ngāi Tahu", "Te Whatu Ora", "whānau", "tamariki", "tamaiti"))
)


class Tickets:
    """One-time sign-in tickets, kept in memory as digests: a link that was used, or is an hour old, opens
    nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._live, self._lock = clock, dict[bytes, float](), Lock()

    def issue(self) -> str:
        """A new ticket."""
        ticket = secrets.token_urlsafe(24)
        with self._lock:
            self._forget()
            self._live[_digest(ticket)] = self._clock().timestamp() + LINK_SECONDS
        return ticket

    def use(self, ticket: str) -> bool:
        """Whether *ticket* opens the console; it does so once."""
        with self._lock:
            self._forget()
            return self._live.pop(_digest(ticket), None) is not None

    def any(self) -> bool:
        """Whether an unused ticket is still good."""
        with self._lock:
            self._forget()
            return bool(self._live)

    def _forget(self) -> None:
        now = self._clock().timestamp()
        self._live = {ticket: until for ticket, until in self._live.items() if now < until}


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "replace")).digest()


def is_same_origin(headers: Mapping[str, str], origin: str) -> bool:
    """Whether a browser sent this form from a page of *origin* itself: by `Sec-Fetch-Site` where the browser
    says it, else by `Origin`. Neither: no. Needs no token in the form, since no other site can set either
    header.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return headers.get("origin") == origin


@dataclass(slots=True)
class Day:
    """What happened on one day, counted."""

    messages: set[tuple[str, str]] = field(default_factory=set)
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)  # (party, outcome)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)  # (party, delivered | refused)
    withheld: Counter[str] = field(default_factory=Counter)
    guards: Counter[str] = field(default_factory=Counter)
    is_cut: bool = False

    def add(self, entry: Mapping[str, Any]) -> None:
        """Counts one ledger *entry*."""
        if entry["kind"] == DELIVERY:
            self.ended[entry["party"], entry["outcome"]] += 1
        if entry["kind"] not in DECISION_KINDS:
            return
        self.messages.add((entry["source"], entry["message"]))
        self.decisions[entry["party"], entry["outcome"]] += 1
        self.withheld.update({name for _, name, _ in withheld(entry)})
        self.guards.update(entry["guards"])

    def by_outcome(self, outcome: str) -> int:
        """How many decisions came to *outcome*."""
        return sum(n for (_, said), n in self.decisions.items() if said == outcome)

    def parties(self) -> list[str]:
        """The parties that something was decided for or delivered to."""
        return sorted({party for party, _ in (*self.decisions, *self.ended)})


def add_console(app: FastAPI, hub: Hub, gate: Gate, out: Console | None) -> None:
    """Adds the console to *app*, and prints the sign-in link to *out*. Adds nothing where a real issuer is
    set.
    """
    if not gate.is_sandbox:
        return
    pages = _Pages(hub)
    tickets = Tickets(hub.clock)

    def print_link() -> None:
        if out is not None:
            link = f"http://{hub.settings.listen}/console/sign-in?ticket={tickets.issue()}"
            out.print(f"Console: {link} (opens once, within the hour)", soft_wrap=True, highlight=False)

    print_link()

    looks = AccessLog(hub.engine, hub.ledger, hub.keys, hub.clock)

    def shown(scope: str, what: str, make: Callable[[Request], Response]) -> Callable[[Request], Response]:
        def route(request: Request) -> Response:
            claims = gate.session(request.cookies.get(COOKIE, ""))
            if not claims:
                return RedirectResponse("/console/sign-in", 303, headers=_HEADERS)
            try:
                gate.person(request.cookies[COOKIE]).require(scope)  # type: ignore[union-attr]  # it has claims
                if request.method == "POST" and not _from_here(request):
                    raise NotAuthorised("the form was not sent from the console")
                if "viewer" not in claims:
                    back = urlencode({"next": request.url.path}) if request.method == "GET" else ""
                    return RedirectResponse(f"/console/purpose?{back}", 303, headers=_HEADERS)
                # ‖ Before anything is read: a crash leaves a look that showed nothing, never the reverse.
                request.state.viewer = Viewer(**claims["viewer"])
                looks.record(request.state.viewer, _look(hub, what, request))
                return make(request)
            except HubError as error:
                return pages.error(error)

        return route

    for path, scope, make in (
        ("", AUDIT, pages.today),
        ("/disclosures", AUDIT, pages.disclosures),
        ("/message", AUDIT, pages.message),
        ("/agreements", AUDIT, pages.agreements),
        ("/set-aside", OPERATE, pages.set_aside),
        ("/ledger", AUDIT, pages.ledger),
    ):
        app.add_api_route(f"/console{path}", shown(scope, path[1:] or "today", make), methods=["GET"])
    app.add_api_route(
        "/console/set-aside/{number}", shown(OPERATE, "send-again", pages.send_again), methods=["POST"]
    )

    officer_pages.add_pages(app, hub, pages.show, shown)
    _add_purpose(app, hub, gate, pages)

    @app.get("/")
    def root() -> Response:
        return RedirectResponse("/console", 303)

    @app.get("/console/console.css")
    def css() -> Response:
        return Response(pages.css, media_type="text/css", headers={"Cache-Control": "no-cache"})

    @app.get("/console/sign-in")
    def sign_in_page(request: Request) -> Response:
        # Looking does not use the ticket up: programs that fetch links ahead would lock the person out.
        if not tickets.any():
            print_link()
        return pages.show("sign-in.html", ticket=request.query_params.get("ticket", "")[:200], failed=False)

    @app.post("/console/sign-in")
    def sign_in(request: Request, form: Annotated[dict[str, str], Depends(_form)]) -> Response:
        ticket = form.get("ticket", "").strip().rpartition("ticket=")[2]
        if not _from_here(request) or not tickets.use(ticket):
            return pages.show("sign-in.html", 403, ticket="", failed=True)
        print_link()  # for the next person, or the next browser
        response = RedirectResponse("/console", 303, headers=_HEADERS)
        session = mint_session(hub.settings, [AUDIT, OPERATE, DECIDE], SESSION_SECONDS, hub.clock)
        response.set_cookie(COOKIE, session, SESSION_SECONDS, path="/console", **_cookie_flags(request))
        return response

    @app.post("/console/sign-out")
    def sign_out(request: Request) -> Response:
        response = RedirectResponse("/console/sign-in", 303, headers=_HEADERS)
        if _from_here(request):
            response.delete_cookie(COOKIE, path="/console", **_cookie_flags(request))
        return response


def _add_purpose(app: FastAPI, hub: Hub, gate: Gate, pages: "_Pages") -> None:
    """Asks whoever signed in who looks, and why, once a session."""

    @app.get("/console/purpose")
    def purpose_page(request: Request) -> Response:
        if not gate.session(request.cookies.get(COOKIE, "")):
            return RedirectResponse("/console/sign-in", 303, headers=_HEADERS)
        return pages.purpose({"next": request.query_params.get("next", "")}, [])

    @app.post("/console/purpose")
    def say_purpose(request: Request, form: Annotated[dict[str, str], Depends(_form)]) -> Response:
        claims = gate.session(request.cookies.get(COOKIE, ""))
        if not claims or not _from_here(request):
            return RedirectResponse("/console/sign-in", 303, headers=_HEADERS)
        try:
            viewer = access.viewer(
                hub.keys,
                form.get("party", "") if form.get("party", "") in ("hub", *hub.agreements.parties) else "",
                form.get("officer", ""),
                form.get("purpose", ""),
                form.get("reference", ""),
            )
        except InvalidMessage as error:
            return pages.purpose(form, error.problems, 422)
        response = RedirectResponse(_within(form.get("next", "")), 303, headers=_HEADERS)
        seconds = max(1, int(claims["exp"] - hub.clock().timestamp()))  # changing it prolongs nothing
        session = mint_session(hub.settings, claims["scope"].split(), seconds, hub.clock, asdict(viewer))
        response.set_cookie(COOKIE, session, seconds, path="/console", **_cookie_flags(request))
        return response


def _from_here(request: Request) -> bool:
    return is_same_origin(request.headers, f"{request.url.scheme}://{request.headers.get('host', '')}")


def _within(path: str) -> str:
    """*path* when it is a page of the console, else its first page: a link must not lead elsewhere."""
    return path if re.fullmatch(r"/console(/[a-z-]+)*", path) else "/console"


def _look(hub: Hub, what: str, request: Request) -> Look:
    """What *request* looks at. Of its parameters only what the hub itself offers to choose: anything else
    that somebody typed may be a name.
    """
    asked = {**request.query_params, **request.path_params}
    offered = {
        "party": hub.agreements.parties,
        "type": {kind.name for kind in hub.catalogue},
        "outcome": OUTCOMES,
        "role": SUBJECT_ROLES,
        "check": ("all",),
    }
    kept = {name: asked[name] for name, choices in offered.items() if asked.get(name) in choices}
    if (day := _date(asked.get("date", ""))) is not None:
        kept["date"] = day.isoformat()
    for name in ("below", "number"):
        if asked.get(name, "").isdecimal() and len(asked[name]) < 16:
            kept[name] = asked[name]
    return Look(what, urlencode(kept), access.message_id(asked.get("id", "").strip()))


def _cookie_flags(request: Request) -> dict[str, Any]:
    return {"secure": request.url.scheme == "https", "httponly": True, "samesite": "strict"}


async def _form(request: Request) -> dict[str, str]:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MAX_FORM:
            raise TooLarge("the form is too large")
    return {name: values[0] for name, values in parse_qs(content.decode("utf-8", "replace")).items()}


class _Pages:
    """The pages, each made from what the hub holds now."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        folder = Path(str(files("gateway"))) / "console"
        self.css = (folder / "console.css").read_bytes()
        self._jinja = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._jinja.filters.update(
            nz_time=_nz_time, te_reo=_te_reo, count=lambda n: f"{n:,}", rfc3339=rfc3339, spaced=_spaced
        )
        self._jinja.globals.update(
            party_name=lambda party: party_name(hub, party),
            type_title=lambda type: type_title(hub, type),
            reason_says=reason_says,
            clause_title=lambda name: clause_title(hub, name),
            in_order=in_order,
            outcomes=OUTCOMES,
            classes=CLASSES,
        )
        self._matrices: dict[tuple[str, date, str], dict[tuple[str, str], str]] = {}

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        """The page *template* with *values*."""
        text = self._jinja.get_template(template).render(**values)
        return Response(text, status, _HEADERS, "text/html")

    def error(self, error: HubError) -> Response:
        """The page for an *error*."""
        said = problems.problem(error)
        return self.show("error.html", said["status"], said=said)

    def purpose(self, form: Mapping[str, str], wrong: Sequence[Problem], status: int = 200) -> Response:
        """Who looks, and why: asked once a session, with what was *wrong* about a former answer."""
        return self.show(
            "purpose.html",
            status,
            form=form,
            wrong=wrong,
            purposes=access.PURPOSES,
            parties=["hub", *sorted(self._hub.agreements.parties)],
        )

    def today(self, request: Request) -> Response:
        """What moved on a day; today's unless another is asked for."""
        hub = self._hub
        size = hub.ledger.head().size
        day = _date(request.query_params.get("date", "")) or hub.clock().astimezone(NEW_ZEALAND).date()
        start, stop = queries.day_range(hub.engine, size, day)
        counted = Day(is_cut=stop - start > DAY_CAP)
        for row in queries.between(hub.engine, max(start, stop - DAY_CAP), stop):
            counted.add(row.body)
        latest = queries.entry(hub.engine, size - 1)
        depths = hub.broker.depths(_queues(hub))
        return self.show(
            "today.html",
            day=day,
            counted=counted,
            latest=_local_date(latest.body["at"]) if latest else None,
            submissions=depths[SUBMISSIONS],
            waiting={party: depths[deliveries_to(party)] for party in hub.agreements.parties},
            dead_letters=len(hub.broker.dead_letters()),
        )

    def disclosures(self, request: Request) -> Response:
        """Decisions, newest first, by party, type, outcome and day."""
        hub, asked = self._hub, request.query_params
        size = hub.ledger.head().size
        start, stop = 0, size
        day = _date(asked.get("date", ""))
        if day is not None:
            start, stop = queries.day_range(hub.engine, size, day)
        chosen = {name: asked.get(name, "") for name in ("party", "type", "outcome")}
        below = asked.get("below", "")
        if below.isdecimal() and len(below) < 16:
            stop = min(stop, int(below))
        page = queries.disclosures_page(
            hub.engine,
            below=stop,
            start=start,
            party=chosen["party"],
            type=chosen["type"],
            outcome=chosen["outcome"],
        )
        kept = {**{k: v for k, v in chosen.items() if v}, **({"date": day.isoformat()} if day else {})}
        return self.show(
            "disclosures.html",
            page=page,
            chosen=chosen,
            day=day,
            parties=sorted(hub.agreements.parties),
            types=sorted((kind.name, kind.title) for kind in hub.catalogue),
            older=urlencode({**kept, "below": page.older}) if page.older is not None else "",
            newest=urlencode(kept),
            is_first=not below,
        )

    def message(self, request: Request) -> Response:
        """Why each party got what it got of one message."""
        asked = request.query_params
        id = asked.get("id", "").strip()
        if not id:
            return self.show("message.html", found=None, id="", missing=False)
        try:
            found = explain(self._hub, id, asked.get("source", ""))
        except NotFound:
            return self.show("message.html", 404, found=None, id=id[:64], missing=True)
        return self.show("message.html", found=found, id=id, missing=False)

    def agreements(self, request: Request) -> Response:
        """The agreements, what they come to, and their clauses."""
        hub = self._hub
        today = hub.clock().astimezone(NEW_ZEALAND).date()
        role = request.query_params.get("role", "")
        role = role if role in SUBJECT_ROLES else ""
        with reading(hub.engine).connect() as connection:
            recalled = recalls.tasks(connection)[:_RECALLS_SHOWN]
        return self.show(
            "agreements.html",
            agreements=sorted(hub.agreements, key=lambda a: a.name),
            lives=hub.register.shown(today),
            troubles=hub.register.troubles(),
            recalls=recalled,
            today=today,
            version=hub.agreements.version_hash,
            parties=[p for _, p in sorted(hub.agreements.parties.items())],
            kinds=[k for k in KINDS if any(p.kind == k for p in hub.agreements.parties.values())],
            cells=self._cells(today, role),
            role=role,
            roles=SUBJECT_ROLES,
        )

    def _cells(self, day: date, role: str) -> dict[tuple[str, str], str]:
        """(class, kind of recipient) → the widest outcome about *role* that a clause in force can give."""
        key = (self._hub.agreements.version_hash, day, role)
        if key not in self._matrices:
            order = ("", "refer", "reduced", "full")
            cells: dict[tuple[str, str], str] = {}
            for row in matrix_rows(self._hub.agreements, day):
                if not role or row.role == role:
                    cell = (row.data_class, row.kind)
                    cells[cell] = max(cells.get(cell, ""), row.outcome, key=order.index)
            if len(self._matrices) > 20:
                self._matrices.clear()
            self._matrices[key] = cells
        return self._matrices[key]

    def set_aside(self, request: Request) -> Response:
        """What could not go on by itself, with what would mend it; never what it says."""
        letters = [
            {
                "number": letter.number,
                "at": letter.at,
                "step": _step(letter.queue),
                "party": letter.headers.get("party", letter.headers.get("source", "")),
                "type": letter.headers.get("type", ""),
                "code": letter.error.get("code", ""),
                "detail": letter.error.get("detail", ""),
                "problems": letter.error.get("problems", []),
            }
            for letter in reversed(self._hub.broker.dead_letters())
        ]
        return self.show("set-aside.html", letters=letters, sent=request.query_params.get("sent", ""))

    def send_again(self, request: Request) -> Response:
        """Puts one dead letter back on its journey, and says how it went on the page it came from."""
        receipt = self._hub.exchange.send_again(request.path_params["number"])
        sent = "again" if receipt.rejected else "yes"
        return RedirectResponse(f"/console/set-aside?sent={sent}", 303, headers=_HEADERS)

    def ledger(self, request: Request) -> Response:
        """The ledger's state, and whether it proves itself."""
        hub = self._hub
        head, newest = hub.ledger.head(), hub.ledger.checkpoint()
        verdict, is_whole = "", request.query_params.get("check") == "all"
        try:
            if newest is not None:
                proof = hub.ledger.consistency_proof(newest.size, head.size)
                verify_consistency(newest.size, head.size, newest.root, head.root, proof)
            if is_whole and not _leads_to(hub, head.size, head.root):
                verdict = "the entries do not lead to the root"
        except (HubError, ProofError) as error:
            verdict = str(error)
        return self.show(
            "ledger.html",
            head=head,
            newest=newest,
            verdict=verdict,
            is_whole=is_whole,
            origin=hub.ledger.origin,
            key_file=hub.settings.data / "ledger.vkey",
            address=f"http://{hub.settings.listen}/ledger",
            witnessing=hub.witnessing.standing(newest) if hub.witnessing else None,
        )


def _leads_to(hub: Hub, size: int, root: bytes) -> bool:
    """Whether the first *size* entries, each hashed anew, give *root*."""
    tree = CompactRange()
    for start in range(0, size, 500):
        tree.extend(map(leaf_hash, hub.ledger.entries(start, min(start + 500, size))))
    return tree.size == size and tree.root() == root


def _queues(hub: Hub) -> Iterable[str]:
    return (SUBMISSIONS, *map(deliveries_to, sorted(hub.agreements.parties)))


def _step(queue: str) -> str:
    if queue == ACCEPT:
        return "coming in"
    return "being carried" if queue == SUBMISSIONS else "being delivered"


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None


def _local_date(at: str) -> date:
    return instant_of(at).astimezone(NEW_ZEALAND).date()


def _nz_time(at: str) -> Markup:
    """An instant as people in New Zealand write it, machine-readable beside it."""
    local: datetime = instant_of(at).astimezone(NEW_ZEALAND)
    said = f"{local.day} {local:%b %Y}, {local:%H:%M:%S}"
    return Markup('<time datetime="{}">{}</time>').format(at, said)


def _te_reo(text: str) -> Markup:
    """*text* with its words of te reo Māori marked as such, so that a screen reader speaks them rightly."""
    return Markup(_TE_REO.sub(lambda m: f'<span lang="mi">{m[0]}</span>', str(escape(text))))  # noqa: S704


def _spaced(name: str) -> str:
    """A property's *name* as words: `occurredOn` as `occurred on`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
