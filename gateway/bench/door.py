"""The HTTP door beside a route that only checks the token: durable when answered, beside nothing at all."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway.auth import SUBMIT, Gate, mint
from gateway.bench.figures import Side, median
from gateway.bench.load import NOW, SENDER, embedded_hub, renamed, submissions
from gateway.bench.processes import child
from gateway.bench.run import Run
from gateway.door import create_app
from gateway.hub import Hub
from gateway.intake import BATCH_CONTENT_TYPE
from schemas.message import CONTENT_TYPE

_CONNECTIONS = 64
_A_BATCH = 100


def measure(run: Run) -> None:
    """R6: messages taken a second, one a request and 100 a request, beside requests to the empty route."""
    with run.own_folder() as folder:
        opened = run.servers.hub(folder) if run.servers is not None else embedded_hub(folder)
        with (
            opened as hub,
            serving(create_app(hub)) as door,
            serving(_empty(hub)) as empty,
            child(fire) as client,
        ):
            token = mint(hub.settings, SENDER, [SUBMIT], clock=lambda: NOW)

            def fired(address: str, bodies: Sequence[bytes], kind: str) -> float:
                client.tell((address, token, bodies, kind))
                seconds, wrong = client.answer()
                if wrong:
                    raise RuntimeError(f"{wrong} of the bench's requests were not taken")
                return float(seconds)

            _measure(run, hub, fired, door, empty)


def _measure(
    run: Run, hub: Hub, fired: Callable[[str, Sequence[bytes], str], float], door: str, empty: str
) -> None:
    bodies = submissions(hub, run.natives(min(300, run.size.episodes)))
    one, batch, nothing = [], [], []
    n, count = run.size.repetitions, run.size.requests
    for repetition in range(n):
        run.step(f"messages over HTTP, {repetition + 1} of {n}")
        single = list(renamed(bodies, count, f"one {repetition}"))
        several = list(renamed(bodies, max(2 * _A_BATCH, count), f"batch {repetition}"))
        batches = [
            b"[" + b",".join(several[at : at + _A_BATCH]) + b"]" for at in range(0, len(several), _A_BATCH)
        ]
        nothing.append(count / fired(empty, single, CONTENT_TYPE))
        one.append(count / fired(door, single, CONTENT_TYPE))
        batch.append(len(several) / fired(door, batches, BATCH_CONTENT_TYPE))
    beside = Side("empty route with the same token check", median(nothing), "requests/s")
    for name, rates, what in (
        ("R6", one, "one message a request"),
        ("R6-batch", batch, "100 messages a request"),
    ):
        run.findings.ratio(
            name,
            median(rates) / beside.value,
            Side(f"{what}, durable when answered", median(rates), "messages/s"),
            beside,
            n,
        )


def _empty(hub: Hub) -> FastAPI:
    """An application whose only route checks the token as the door does, and reads the body."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    gate = Gate(hub.settings, lambda: hub.agreements, hub.clock)

    @app.post("/v1/messages")
    async def route(request: Request) -> Response:
        headers = request.headers
        gate.admit(
            headers.getlist("authorization"), headers.getlist("dpop"), request.method, str(request.url)
        ).require(SUBMIT)
        await request.body()
        return Response(status_code=202)

    return app


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serves *app* on a port of its own; yields its address."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="bench door")
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the bench's door did not open")
            threading.Event().wait(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def fire(ours: Connection) -> None:
    """In a process of its own, for each (address, token, bodies, kind) that it is told: sends the bodies over
    64 connections, and says seconds and how many were not answered with 202.
    """
    while True:
        try:
            address, token, bodies, kind = ours.recv()
        except EOFError:
            return
        ours.send(asyncio.run(_fire(*_requests(address, token, bodies, kind))))


def _requests(address: str, token: str, bodies: Sequence[bytes], kind: str) -> tuple[str, int, list[bytes]]:
    host = urlsplit(address)
    requests = [
        (
            f"POST /v1/messages HTTP/1.1\r\nHost: {host.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        for body in bodies
    ]
    return host.hostname or "", host.port or 0, requests


async def _fire(host: str, port: int, requests: list[bytes]) -> tuple[float, int]:
    waiting = iter(requests)
    wrong = 0

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal wrong
        for request in waiting:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next((int(x.split(b":")[1]) for x in lines if x.startswith(b"content-length:")), 0)
            await reader.readexactly(length)
            wrong += not head.startswith(b"HTTP/1.1 202")

    connections: list[Any] = [await asyncio.open_connection(host, port) for _ in range(_CONNECTIONS)]
    started = perf_counter()
    await asyncio.gather(*(one(*connection) for connection in connections))
    seconds = perf_counter() - started
    for _, writer in connections:
        writer.close()
    return seconds, wrong
