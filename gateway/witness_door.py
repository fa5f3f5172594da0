"""A witness as a process of its own, for an agency or the Privacy Commissioner: `POST /add-checkpoint`
(c2sp.org/tlog-witness). It knows a log's name and key, and nothing of the hub: no database, no broker, no
setting.

Its folder holds `witness.key` (private, mode 0600), `witness.vkey` (for the hub and for verifiers), `logs`
(the verifier keys of the logs it watches, one a line) and `witness.db` (the newest checkpoint of each log,
and signed contradictions).
"""

import asyncio
import logging
import sqlite3
import time
from pathlib import Path

import uvicorn
from starlette.types import Receive, Scope, Send

from consent.note import COSIGNATURE_V1, MLDSA44, Key, ProofError, Signer
from consent.witness import MAX_BODY_BYTES, Answer, Witness
from gateway.keys import write_once
from schemas.errors import BadSettings

log = logging.getLogger("isr_hub.witness")
_ALGORITHMS = {"ed25519": COSIGNATURE_V1, "ml-dsa-44": MLDSA44}
_PATH = "/add-checkpoint"


def init(folder: Path, name: str, logs: list[str], algorithm: str = "ed25519") -> str:
    """Makes a witness in *folder* under *name* for the verifier keys *logs*, and returns its own verifier
    key. A key that is there stays; logs are added. Raises `BadSettings`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        path = folder / "witness.key"
        if not path.exists():
            write_once(path, Signer.generate(name, _ALGORITHMS[algorithm]).to_text().encode("ascii"))
        signer = Signer.from_file(path)
        known = _log_keys(folder)
        known += [key for key in map(_log_key, logs) if key not in known]
    except ProofError as error:
        raise BadSettings(str(error)) from None
    if signer.name != name:
        raise BadSettings("this folder holds a witness of another name")
    (folder / "witness.vkey").write_text(f"{signer.vkey()}\n", encoding="ascii")
    (folder / "logs").write_text("".join(f"{key.vkey()}\n" for key in known), encoding="utf-8")
    return signer.vkey()


def open_witness(folder: Path) -> Witness:
    """The witness in *folder*. Raises `BadSettings`."""
    try:
        signer, keys = Signer.from_file(folder / "witness.key"), _log_keys(folder)
    except ProofError as error:
        raise BadSettings(f"{error}; isr-hub witness init makes a witness") from None
    if not keys:
        raise BadSettings("the file logs names no log: isr-hub witness init --log VKEY adds one")
    logs = {key.name: [other for other in keys if other.name == key.name] for key in keys}
    return Witness(folder / "witness.db", signer, logs, lambda: int(time.time()))


def serve(witness: Witness, host: str, port: int) -> None:
    """Answers until SIGTERM or Ctrl-C."""
    config = uvicorn.Config(
        Door(witness),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
    )
    uvicorn.Server(config).run()


class Door:
    """The one path of a *witness* over HTTP (ASGI)."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        answer = await self._answer(scope, receive)
        body = answer.body.encode()
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if answer.status == 405:
            headers.append((b"allow", b"POST"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        if scope["path"] != _PATH:
            return Answer(404, "not found\n")
        if scope["method"] != "POST":
            return Answer(405, "only POST\n")
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # whoever asked has gone
                return Answer(400, "the request ended early\n")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY_BYTES:
                return Answer(413, "the request is too large\n")
        try:
            answer = await asyncio.to_thread(self._witness.add_checkpoint, bytes(body))
        except sqlite3.Error as error:
            log.error("the witness's state cannot be used: %s", type(error).__name__)  # noqa: TRY400
            return Answer(503, "the state cannot be used\n")
        if answer.status in (409, 422):
            log.warning("a checkpoint does not continue the one cosigned before (%d)", answer.status)
        return answer


def _log_keys(folder: Path) -> list[Key]:
    path = folder / "logs"
    lines = path.read_text("utf-8").split("\n") if path.exists() else []
    return [Key.from_vkey(line) for line in lines if line.strip() and not line.startswith("#")]


def _log_key(text: str) -> Key:
    """The key of a vkey, or of a file whose first line is one."""
    path = Path(text)
    return Key.from_vkey(path.read_text("utf-8").split("\n")[0] if path.is_file() else text)
