"""The HTTP door: where agencies' systems hand in messages, and where the ledger shows itself.

Without a token there is no service, but for four things that hold nothing about anybody: whether the hub is
alive, the key to encrypt to, the ledger's checkpoint and its hashes. The entries behind the hashes name who
dealt with a case, so they are for auditors. There is one way in (`accept`) and no way out here: disclosures
leave through adapters only.
"""

import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from rich.console import Console
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.broker import SUBMISSIONS, deliveries_to
from broker.topology import mailbox_of
from consent import tiles
from gateway import access, console, problems, queries
from gateway.access import AccessLog, Look, Viewer, officer_of
from gateway.auth import AUDIT, BREAK_GLASS, OPERATE, READ, SUBMIT, Gate, Principal, challenge
from gateway.exchange import Receipt
from gateway.explain import outward
from gateway.gathering import Gathering
from gateway.hub import Hub
from gateway.intake import content_of, natives_of
from gateway.overrides import Override, Overrides
from gateway.referrals import Person, Referrals
from schemas.database import reading
from schemas.errors import HubError, InvalidMessage, NotAuthenticated, NotAuthorised, NotFound, Problem
from schemas.message import decode

log = logging.getLogger("isr_hub.door")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
_TILE = re.compile(r"(entries|\d|[1-5]\d|6[0-3])/((?:x\d{3}/){0,5}\d{3})(?:\.p/([1-9]\d{0,2}))?")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:$|-)")  # W3C Trace Context §3.2
_FOR_EVER = "public, max-age=31536000, immutable"  # a tile of a given width never changes


def create_app(hub: Hub, out: Console | None = None) -> FastAPI:
    """The door and the console on *hub*. Prints the console's sign-in link to *out* in the sandbox.

    Raises `BadSettings` when the settings would let in nobody, or anybody.
    """
    gate = Gate(hub.settings, lambda: hub.agreements, hub.clock)
    # Nothing describes itself to strangers: the interface is written down in docs/http.md.
    app = FastAPI(title="ISR hub", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(_Conduct)
    _answer_errors(app)
    _messages(app, hub, gate)
    _emergencies(app, hub, gate)
    _operations(app, hub, gate)
    _ledger(app, hub, gate)
    console.add_console(app, hub, gate, out)
    return app


def _caller(gate: Gate, scope: str) -> Callable[[Request], Principal]:
    def caller(request: Request) -> Principal:
        proofs = request.headers.getlist("dpop")
        principal = gate.admit(
            request.headers.getlist("authorization"),
            proofs,
            request.method,
            str(request.url) if proofs else "",  # what only a proof names
        )
        principal.require(scope)
        return principal

    return caller


def _quick_caller(gate: Gate, scope: str) -> Callable[[Request], Awaitable[Principal]]:
    """`_caller` for a route that many requests come by: only a token that is new here takes a thread, since
    its issuer's keys may have to be fetched.
    """
    ask = _caller(gate, scope)

    async def caller(request: Request) -> Principal:
        if gate.remembers(request.headers.getlist("authorization")):
            return ask(request)
        return await run_in_threadpool(ask, request)

    return caller


def _messages(app: FastAPI, hub: Hub, gate: Gate) -> None:
    may_submit, may_read = _quick_caller(gate, SUBMIT), _caller(gate, READ)

    gathering = Gathering(hub.exchange, lambda kind, body: natives_of(*hub.encryption.opened(kind, body)))

    @app.post("/v1/messages")
    async def submit(request: Request) -> Response:
        """Takes messages in. Answering 202 means that what is under `accepted` survives a power cut."""
        # Asked for here and not as dependencies, which would take longer than all else of this route. The
        # body is read only after the caller is known: a stranger cannot make the hub hold anything.
        principal = await may_submit(request)
        body = await content_of(request)
        kind = request.headers.get("content-type", "")
        return _receipt(await gathering.submit(principal.party, kind, body))

    @app.get("/v1/messages/{message}")
    def state(message: str, principal: Annotated[Principal, Depends(may_read)]) -> Response:
        """What became of a message that the caller sent, in outward words only."""
        # SAFETY: unknown, somebody else's and not yet carried take the same path and get the same bytes.
        if not _ID.fullmatch(message):
            raise NotFound
        found = outward(hub, principal.party, message)
        if found is None:
            raise NotFound
        return _json(found)

    @app.get("/v1/encryption-key")
    def encryption_key() -> Response:
        """What to encrypt to, as a JWK set."""
        return _json(hub.encryption.public())


def _emergencies(app: FastAPI, hub: Hub, gate: Gate) -> None:
    may_open = _caller(gate, BREAK_GLASS)
    overrides = Overrides(hub)

    async def content(request: Request, _: Annotated[Principal, Depends(may_open)]) -> bytes:
        return await content_of(request)

    @app.post("/v1/overrides")
    def break_glass(
        principal: Annotated[Principal, Depends(may_open)], body: Annotated[bytes, Depends(content)]
    ) -> Response:
        """Opens what the break-glass clauses say for the caller's party and one case. Whatever is refused is
        recorded, and sounds like a case that does not exist.
        """
        said = _words(body, "case", "threat", "reason", "capacity", "officer")
        person = _staff(hub, principal, said)
        return _json(_override(overrides.open(person, said["case"], said["threat"], said["reason"])), 201)

    @app.post("/v1/overrides/{id}/agreement")
    def agree(
        id: str, principal: Annotated[Principal, Depends(may_open)], body: Annotated[bytes, Depends(content)]
    ) -> Response:
        """A second person of the same party agrees."""
        said = _words(body, "capacity", "officer")
        return _json(_override(overrides.agree(id, _staff(hub, principal, said))))


def _words(body: bytes, *names: str) -> dict[str, str]:
    """The texts *names* of a JSON object, and no others. Raises `InvalidMessage`."""
    said = decode(body)
    wrong = [
        Problem(f"/{name}", "is missing or is no text", "send it as a string")
        for name in names
        if not isinstance(said, dict) or not isinstance(said.get(name), str)
    ]
    if isinstance(said, dict) and (more := len(said.keys() - set(names))):
        wrong.append(Problem("", f"has {more} properties that are not known", "send " + ", ".join(names)))
    if wrong:
        raise InvalidMessage("the body is not what is asked for here", *wrong)
    return {name: said[name] for name in names}


def _staff(hub: Hub, principal: Principal, said: dict[str, str]) -> Person:
    """Who acts, as the calling party's system says."""
    who = access.viewer(hub.keys, principal.party, said["officer"], "DECIDE", "")
    return Person(who.party, said["capacity"], who.officer)


def _override(made: Override) -> dict[str, str]:
    return {"id": made.id, "state": made.state.value, "until": made.until, "reviewDue": made.review_due}


def _receipt(receipts: list[Receipt]) -> Response:
    """202 with what was accepted; when nothing was, the problem that says why."""
    accepted = [id for receipt in receipts for id in receipt.accepted]
    rejected = [(at, error) for at, receipt in enumerate(receipts) for error in receipt.rejected]
    if rejected and not accepted:
        if any(error.retryable for _, error in rejected):
            raise next(error for _, error in rejected if error.retryable)
        return problems.respond(problems.none_accepted([error for _, error in rejected]))
    return _json(
        {
            "accepted": accepted,
            # In a batch, the position (from 0) of the message that was rejected.
            "rejected": [{**problems.problem(error), "position": at} for at, error in rejected],
            "unplaced": [problems.finding(p) for receipt in receipts for p in receipt.unplaced],
        },
        202,
    )


def _operations(app: FastAPI, hub: Hub, gate: Gate) -> None:
    may_operate = _local_or(_caller(gate, OPERATE))

    @app.get("/v1/health/live")
    def live() -> Response:
        """Whether the process answers."""
        return _json({"status": "pass"})

    @app.get("/v1/health")
    def health(_: Annotated[None, Depends(may_operate)]) -> Response:
        """Whether the hub can do its work, part by part; 503 when one part cannot."""
        parts = {
            "database": _works(lambda: _ask(hub.engine)),
            "broker": _works(lambda: hub.broker.depth(SUBMISSIONS)),
            "ledger": _works(hub.ledger.checkpoint),
        }
        ready = all(word == "pass" for word in parts.values())
        return _json({"status": "pass" if ready else "fail", "parts": parts}, 200 if ready else 503)

    @app.get("/metrics")
    def metrics(_: Annotated[None, Depends(may_operate)]) -> Response:
        """What operators watch, for Prometheus."""
        mailboxes = map(mailbox_of, hub.recipients.mailboxes())
        queues = (SUBMISSIONS, *map(deliveries_to, sorted(hub.agreements.parties)), *mailboxes)
        for queue, depth in hub.broker.depths(queues).items():
            hub.telemetry.queue_depth.labels(queue).set(depth)
        hub.telemetry.show_waiting(Referrals(hub).counts())
        return Response(generate_latest(hub.telemetry.registry), media_type=CONTENT_TYPE_LATEST)


def _ledger(app: FastAPI, hub: Hub, gate: Gate) -> None:
    may_audit: Callable[[Request], Principal | None] = _caller(gate, AUDIT)
    if not hub.settings.production:
        may_audit = _local_or(_caller(gate, AUDIT))

    @app.get("/ledger/checkpoint")
    def checkpoint() -> Response:
        """The newest signed checkpoint (c2sp.org/tlog-checkpoint)."""
        newest = hub.ledger.checkpoint()
        if newest is None:
            raise NotFound
        return PlainTextResponse(newest.note, headers={"Cache-Control": "no-cache"})

    @app.get("/ledger/keys")
    def keys() -> Response:
        """The ledger's public key of today, with the rotations that lead to it."""
        return PlainTextResponse(hub.ledger.keys(), headers={"Cache-Control": "no-cache"})

    looks = AccessLog(hub.engine, hub.ledger, hub.keys, hub.clock)

    @app.get("/ledger/tile/entries/{path:path}")
    def entries(path: str, auditor: Annotated[Principal | None, Depends(may_audit)]) -> Response:
        """A bundle of entries (c2sp.org/tlog-tiles), for auditors. Reading the ledger is a look: one entry
        for all bundles of some minutes.
        """
        party, client = (auditor.party, auditor.client) if auditor else ("hub", "this-machine")
        looks.record(Viewer(officer_of(hub.keys, party, client), party, "ADM-AUDIT"), Look("ledger-entries"))
        size, _level, number, width = _asked(hub, "entries/" + path)
        return _octets(queries.bundle(hub.ledger, size, number, width), "private, no-store")

    @app.get("/ledger/tile/{path:path}")
    def tile(path: str) -> Response:
        """A tile of hashes (c2sp.org/tlog-tiles)."""
        size, level, number, width = _asked(hub, path)
        return _octets(queries.tile(hub.engine, size, level, number, width), _FOR_EVER)


def _asked(hub: Hub, path: str) -> tuple[int, int, int, int]:
    """The size under the newest checkpoint, and level, number and width of the tile at *path*; raises
    `NotFound` for any other spelling than the standard's.
    """
    match = _TILE.fullmatch(path)
    newest = hub.ledger.checkpoint()
    if match is None or newest is None:
        raise NotFound
    number = int(match[2].replace("x", "").replace("/", ""))
    width = int(match[3] or tiles.WIDTH)
    of_entries = match[1] == "entries"
    level = 0 if of_entries else int(match[1])
    spelt = tiles.bundle_path(number, width) if of_entries else tiles.tile_path(level, number, width)
    if spelt != f"tile/{path}":
        raise NotFound
    return newest.size, level, number, width


def _octets(content: bytes | None, caching: str) -> Response:
    if content is None:
        raise NotFound
    return Response(content, media_type="application/octet-stream", headers={"Cache-Control": caching})


def _local_or(otherwise: Callable[[Request], Principal]) -> Callable[[Request], Principal | None]:
    """Lets in who asks from this very machine; everybody else must be let in by *otherwise*.

    A request that came through a proxy on this machine is not local; a proxy that hides that it is one must
    not forward these paths (docs/http.md says so).
    """

    def admit(request: Request) -> Principal | None:
        forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "via"))
        if forwarded or not _is_loopback(request.client.host if request.client else ""):
            return otherwise(request)
        return None

    return admit


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _works(part: Callable[[], object]) -> str:
    try:
        part()
    except Exception as error:  # whatever it is, this part does not work
        log.warning("a part of the hub fails: %s", type(error).__name__)
        return "fail"
    return "pass"


def _ask(engine: sa.Engine) -> None:
    with reading(engine).begin() as connection:
        connection.execute(sa.select(1))


def _json(value: Any, status: int = 200) -> Response:
    return Response(
        orjson.dumps(value),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _answer_errors(app: FastAPI) -> None:
    def hub_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, HubError):  # what the framework hands over is what was registered
            raise error
        response = problems.answer(error)
        if isinstance(error, NotAuthenticated | NotAuthorised):
            response.headers.update(challenge(error, tried="authorization" in request.headers))
        if response.status_code == 500:
            log.error("%s while serving a request: %s", error.code, error.detail)
        return response

    def framework_error(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return problems.bare(error.status_code, error.headers)
        # The framework's own words would repeat what was sent.
        return problems.bare(422 if isinstance(error, RequestValidationError) else 500)

    app.add_exception_handler(HubError, hub_error)
    app.add_exception_handler(HTTPException, framework_error)
    app.add_exception_handler(RequestValidationError, framework_error)
    app.add_exception_handler(Exception, framework_error)


class _Conduct:
    """What holds for every answer: it is not to be guessed at or kept, and one log line says that it was
    given.

    The line names the route, not the path, and the trace id of a `traceparent`; neither says anything about
    anybody.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        def tell() -> None:
            log.info(
                "%s %s %d %.1f ms trace=%s",
                scope["method"] if scope["method"] in _METHODS else "(other)",
                getattr(scope.get("route"), "path", "(none)"),
                status,
                (time.perf_counter() - started) * 1000,
                _trace(scope),
            )

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                present = {name.lower() for name, _ in headers}
                headers.append((b"x-content-type-options", b"nosniff"))
                if b"cache-control" not in present:
                    headers.append((b"cache-control", b"no-store"))
            elif not message.get("more_body", False):
                tell()  # before the caller has the answer, so that whoever saw it finds its line
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            if not status:  # the framework answers outside of here
                status = 500
                tell()
            raise


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _trace(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if (
            name == b"traceparent"
            and (match := _TRACE.match(value.decode("latin-1")))
            and match[1].strip("0")
        ):
            return match[1]
    return "-"
