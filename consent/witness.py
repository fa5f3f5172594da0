"""Somebody outside the hub who remembers: a witness that cosigns (c2sp.org/tlog-witness).

A log can show one tree to the one and another tree to the other; each would verify. It cannot once a witness
signs only checkpoints that continue the last one it signed. Like the verifier, this needs Python's own
library and `cryptography`, so that an agency or an auditor can run it on a machine of theirs.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from consent.merkle import EMPTY_ROOT, ProofError, verify_consistency
from consent.note import (
    MAX_NOTE_BYTES,
    Checkpoint,
    Key,
    Signer,
    open_checkpoint,
    read_number,
    read_path,
    write_path,
)

MAX_BODY_BYTES = MAX_NOTE_BYTES
_TABLES = (
    "CREATE TABLE IF NOT EXISTS latest (origin TEXT PRIMARY KEY, size INTEGER NOT NULL, note TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS evidence (note TEXT PRIMARY KEY, against TEXT NOT NULL, reason TEXT)",
)
_TEXT = "text/plain; charset=utf-8"
_SIZE = "text/x.tlog.size"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the witness answers over HTTP: *status*, *body* and its *content_type*."""

    status: int
    body: str
    content_type: str = _TEXT


class Witness:
    """Cosigns the checkpoints of *logs* (the keys trusted for each origin), remembering the newest in the
    SQLite file at *path*. *clock* gives POSIX seconds. Threads and processes may share the file.
    """

    def __init__(
        self, path: str | Path, signer: Signer, logs: Mapping[str, Sequence[Key]], clock: Callable[[], int]
    ) -> None:
        if not signer.key.cosigns:
            raise ValueError("a witness signs with a cosigning key")
        self._path, self._signer, self._logs, self._clock = path, signer, logs, clock
        with self._transaction() as connection:
            for table in _TABLES:
                connection.execute(table)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Cosigns the checkpoint in *body* (`old SIZE`, proof lines, empty line, checkpoint) when it
        continues the newest one, and answers as the specification says; never raises for what a log can send.

        The checkpoint is durable before it is cosigned. A crash in between loses the answer: the log is then
        told the size it has already reached (409), and gets the cosignature for it by asking again.
        """
        try:
            old, proof, checkpoint = _read_request(body)
        except ProofError as error:
            return Answer(400, f"{error}\n")
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            return Answer(404, "unknown origin\n")
        try:
            open_checkpoint(checkpoint.note, keys, checkpoint.origin)
        except ProofError as error:
            return Answer(403, f"{error}\n")
        if old > checkpoint.size:
            return Answer(400, "the old size is larger than the checkpoint\n")
        with self._transaction() as connection:  # holds the write lock: what is compared is what is replaced
            latest = _latest(connection, checkpoint.origin)
            refused = self._compare(connection, latest, old, proof, checkpoint)
            if refused:
                return refused
            connection.execute(
                "INSERT INTO latest VALUES (?, ?, ?) ON CONFLICT (origin) DO UPDATE SET size = excluded.size,"
                " note = excluded.note",
                (checkpoint.origin, checkpoint.size, checkpoint.note),
            )
        return Answer(200, self._signer.sign(checkpoint.text(), self._clock()))

    def latest(self, origin: str) -> Checkpoint | None:
        """The newest checkpoint cosigned for *origin*."""
        with self._transaction() as connection:
            return _latest(connection, origin)

    def evidence(self) -> list[tuple[str, str, str]]:
        """Every signed checkpoint that was not shown to continue its log, as (note, the newest one then,
        why).

        Two roots for one tree size prove that the log, or a thief of its key, misbehaved. A bad proof does
        not: anybody can send one; but then ask the log for a good one.
        """
        with self._transaction() as connection:
            return connection.execute("SELECT note, against, reason FROM evidence ORDER BY rowid").fetchall()

    def _compare(
        self,
        connection: sqlite3.Connection,
        latest: Checkpoint | None,
        old: int,
        proof: Sequence[bytes],
        new: Checkpoint,
    ) -> Answer | None:
        """Nothing when *new* may be cosigned, else the refusal."""
        size, root, note = (latest.size, latest.root, latest.note) if latest else (0, EMPTY_ROOT, "")
        if old != size:
            return Answer(409, f"{size}\n", _SIZE)
        if latest and new.size == size and new.root != root:
            self._keep(connection, new, note, "two roots for one tree size")
            return Answer(409, f"{size}\n", _SIZE)
        try:
            verify_consistency(size, new.size, root, new.root, proof)
        except ProofError as error:
            # Perhaps only a bad proof; but a log that has no good one for this checkpoint has forked.
            self._keep(connection, new, note, str(error))
            return Answer(422, f"{error}\n")
        return None

    def _keep(self, connection: sqlite3.Connection, new: Checkpoint, against: str, reason: str) -> None:
        connection.execute(
            "INSERT INTO evidence VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (new.note, against, reason)
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=10.0, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")


def request(old: int, proof: Sequence[bytes], checkpoint: Checkpoint) -> bytes:
    """The body that asks a witness to cosign *checkpoint*, whose *proof* leads from the size *old*."""
    return f"old {old}\n{write_path(proof)}\n{checkpoint.note}".encode()


def _read_request(body: bytes) -> tuple[int, list[bytes], Checkpoint]:
    if len(body) > MAX_BODY_BYTES:
        raise ProofError("the request is too large")
    try:
        head, separator, note = body.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise ProofError("the request is not valid UTF-8") from error
    lines = head.split("\n")
    if not separator or not lines[0].startswith("old "):
        raise ProofError("the request is not an old size, a proof, an empty line and a checkpoint")
    old = read_number(lines[0].removeprefix("old "), "the old size")
    return old, read_path(lines[1:]), Checkpoint.from_note(note)


def _latest(connection: sqlite3.Connection, origin: str) -> Checkpoint | None:
    row = connection.execute("SELECT note FROM latest WHERE origin = ?", (origin,)).fetchone()
    return Checkpoint.from_note(row[0]) if row else None
