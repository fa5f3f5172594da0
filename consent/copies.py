"""Copies of a ledger that an outsider can read without the hub: a SQLite file, a folder of tiles, a web
address.

A copy is evidence, not truth: reading decides nothing, and what cannot be read is a `ProofError`.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from consent.entry import Columns
from consent.merkle import HASH_SIZE, ProofError
from consent.note import MAX_NOTE_BYTES, Checkpoint
from consent.tiles import FULL_TILE_BYTES, MAX_ENTRY_BYTES, WIDTH, bundle_path, read_bundle, tile_path

_TIMEOUT_SECONDS = 30.0
_MAX_BUNDLE_BYTES = WIDTH * (MAX_ENTRY_BYTES + 2)
# The driver reports damage as its own errors, and as text that cannot be decoded, in rows or in its messages.
_DAMAGED = (sqlite3.Error, UnicodeDecodeError, OverflowError)
_SQLITE_MAGIC = b"SQLite format 3\x00"


class NothingToVerify(Exception):
    """There is no ledger, export or proof at this place."""


@dataclass(slots=True)
class Block:
    """Up to 256 entries as a copy holds them, `None` where one is missing; *leaves* and *columns* are
    empty, and *tile* is `None`, where the copy does not keep them.
    """

    entries: list[bytes | None]
    leaves: list[bytes | None] = field(default_factory=list)
    columns: list[Columns | None] = field(default_factory=list)
    tile: bytes | None = None


class Copy(Protocol):
    """A copy of a ledger. Every method raises `ProofError` when the copy is damaged where it reads."""

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        """Every stored checkpoint as (size it is filed under, signed note), by size."""
        ...

    def head(self) -> tuple[int, bytes] | None:
        """Size and root that the copy claims beside its checkpoints, or nothing."""
        ...

    def held(self) -> int | None:
        """One more than the index of the last entry, or nothing when only the checkpoint can tell."""
        ...

    def block(self, number: int, width: int) -> Block:
        """The entries from `number * 256`, *width* of them."""
        ...

    def tile(self, level: int, number: int, width: int) -> bytes:
        """The first *width* hashes of a tile."""
        ...

    def beyond(self, size: int) -> int:
        """How many entries the copy holds that do not belong to the first *size*."""
        ...

    def keys(self) -> str:
        """The history of the ledger's keys as the copy states it, "" when it states none."""
        ...

    def close(self) -> None:
        """Lets go of what the copy is read from."""
        ...


class DatabaseCopy:
    """The hub's own SQLite file, opened read-only; one snapshot, also while a hub is writing to it."""

    def __init__(self, path: Path) -> None:
        try:
            self._connection = _open_read_only(path)
        except _DAMAGED as error:
            raise NothingToVerify("the file holds no ledger that SQLite can read") from error
        self._beside = path.with_name("ledger.vkey")

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        """See `Copy`."""
        rows = self._connection.cursor()
        try:
            for size, note in rows.execute("SELECT size, note FROM ledger_checkpoint ORDER BY size"):
                yield size, note if isinstance(note, str) else ""
        except _DAMAGED as error:
            raise ProofError("the checkpoints cannot be read: the file is damaged") from error

    def head(self) -> tuple[int, bytes] | None:
        """See `Copy`."""
        rows = self._rows("SELECT size, root FROM ledger_head")
        if len(rows) != 1 or not isinstance(rows[0][0], int) or not isinstance(rows[0][1], bytes):
            raise ProofError("the ledger has no single head row")
        return rows[0][0], rows[0][1]

    def held(self) -> int | None:
        """See `Copy`."""
        return int(self._rows("SELECT coalesce(max(idx), -1) + 1 FROM ledger_entry")[0][0])

    def block(self, number: int, width: int) -> Block:
        """See `Copy`."""
        first = number * WIDTH
        rows = self._rows(
            "SELECT idx, leaf, entry, kind, source, message, party FROM ledger_entry"
            " WHERE idx >= ? AND idx < ? ORDER BY idx",
            first,
            first + width,
        )
        if [row[0] for row in rows] != list(range(first, first + width)):
            held = {row[0]: row for row in rows}
            nothing = (None,) * 7
            rows = [held.get(idx, nothing) for idx in range(first, first + width)]
        tile = self._rows("SELECT hashes FROM ledger_tile WHERE level = 0 AND n = ?", number)
        if not tile and width == WIDTH:
            raise ProofError(f"tile {number} of level 0 is missing")
        return Block(
            entries=[_as_bytes(row[2]) for row in rows],
            leaves=[row[1] for row in rows],
            columns=[row[3:7] for row in rows],
            tile=tile[0][0] if tile else None,
        )

    def tile(self, level: int, number: int, width: int) -> bytes:
        """See `Copy`."""
        rows = self._rows("SELECT hashes FROM ledger_tile WHERE level = ? AND n = ?", level, number)
        if not rows and level == 0:  # the partial one is kept as the newest entries' leaves
            first = number * WIDTH
            query = "SELECT leaf FROM ledger_entry WHERE idx >= ? AND idx < ? ORDER BY idx"
            leaves = self._rows(query, first, first + width)
            return b"".join(leaf for (leaf,) in leaves if isinstance(leaf, bytes))
        return bytes(rows[0][0])[: width * HASH_SIZE] if rows and isinstance(rows[0][0], bytes) else b""

    def beyond(self, size: int) -> int:
        """See `Copy`."""
        rows = self._rows("SELECT count(*) FROM ledger_entry WHERE idx < 0 OR idx >= ?", size)
        return int(rows[0][0])

    def keys(self) -> str:
        """See `Copy`."""
        return keys_at(self._beside)

    def close(self) -> None:
        """See `Copy`. A reader that stays keeps the hub from emptying its write-ahead log when it closes,
        and what was deleted stands in there.
        """
        self._connection.close()

    def _rows(self, query: str, *values: int) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except _DAMAGED as error:
            raise ProofError("the database cannot be read here: the file is damaged") from error


class _TiledCopy:
    """A copy in the layout of c2sp.org/tlog-tiles, behind a function that fetches one file or nothing."""

    def __init__(self) -> None:
        self._note: str | None = None

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        """See `Copy`."""
        if self._note is None:  # read once: a log that is served may grow while it is read
            data = self._fetch("checkpoint", MAX_NOTE_BYTES)
            if data is None:
                raise NothingToVerify("there is no checkpoint at this place")
            try:
                self._note = data.decode()
            except UnicodeDecodeError as error:
                raise ProofError("the checkpoint is not valid UTF-8") from error
        yield Checkpoint.from_note(self._note).size, self._note

    def head(self) -> tuple[int, bytes] | None:
        """See `Copy`."""
        return None

    def held(self) -> int | None:
        """See `Copy`."""
        return None

    def block(self, number: int, width: int) -> Block:
        """See `Copy`."""
        bundle = self._first(bundle_path(number, width), bundle_path(number), _MAX_BUNDLE_BYTES)
        entries: list[bytes | None] = [*read_bundle(bundle)[:width]]
        entries += [None] * (width - len(entries))
        return Block(entries, tile=self.tile(0, number, width))

    def tile(self, level: int, number: int, width: int) -> bytes:
        """See `Copy`."""
        path = tile_path(level, number, width)
        return self._first(path, tile_path(level, number), FULL_TILE_BYTES)[: width * HASH_SIZE]

    def beyond(self, size: int) -> int:  # noqa: ARG002  # an export holds what its checkpoint names
        """See `Copy`."""
        return 0

    def keys(self) -> str:
        """See `Copy`."""
        try:
            return (self._fetch("keys", MAX_NOTE_BYTES) or b"").decode("utf-8", "replace")
        except ProofError:  # what cannot be had leads to no key
            return ""

    def close(self) -> None:
        """See `Copy`. Files are read one by one, and nothing is kept open."""

    def _first(self, path: str, full: str, limit: int) -> bytes:
        """The file at *path*, or the *full* one that has replaced it since."""
        data = self._fetch(path, limit)
        if data is None and full != path:
            data = self._fetch(full, limit)
        if data is None:
            raise ProofError(f"{path} is missing")
        return data

    def _fetch(self, path: str, limit: int) -> bytes | None:
        raise NotImplementedError


class FolderCopy(_TiledCopy):
    """An exported folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _fetch(self, path: str, limit: int) -> bytes | None:
        try:
            with (self._folder / path).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProofError(f"{path} cannot be read") from error
        if len(data) > limit:
            raise ProofError(f"{path} is too large")
        return data


class WebCopy(_TiledCopy):
    """An export served over HTTP or HTTPS."""

    def __init__(self, prefix: str, token: str = "") -> None:
        super().__init__()
        self._prefix = prefix.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def _fetch(self, path: str, limit: int) -> bytes | None:
        # `open_copy` sends only http and https here
        address = Request(f"{self._prefix}/{quote(path)}", headers=self._headers)  # noqa: S310
        try:
            with urlopen(address, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  # see above
                data: bytes = answer.read(limit + 1)
        except HTTPError as error:
            with error:
                if error.code in (404, 410):
                    return None
            raise ProofError(f"{path} cannot be fetched: the server answered {error.code}") from error
        except (OSError, HTTPException) as error:
            raise ProofError(f"{path} cannot be fetched") from error
        if len(data) > limit:
            raise ProofError(f"{path} is too large")
        return data


def open_copy(target: str | Path, token: str = "") -> Copy:
    """The copy at *target*: an http(s) address (asked with the access *token*), an exported folder, a data
    folder with `hub.db`, or a SQLite file.

    Raises `NothingToVerify`.
    """
    if isinstance(target, str) and target.startswith(("http://", "https://")):
        return WebCopy(target, token)
    path = Path(target)
    if (path / "hub.db").is_file():
        return DatabaseCopy(path / "hub.db")
    if (path / "checkpoint").is_file():
        return FolderCopy(path)
    if path.is_file() and read_start(path, len(_SQLITE_MAGIC)) == _SQLITE_MAGIC:
        return DatabaseCopy(path)
    raise NothingToVerify(
        "expected a folder with hub.db, an exported folder with checkpoint and tile/, an evidence bundle "
        "(folder or zip), a SQLite file, a tlog-proof file, or an http(s) address"
    )


def keys_at(path: Path) -> str:
    """The key history in the file at *path*, "" when there is none to be read."""
    try:
        return read_start(path, MAX_NOTE_BYTES).decode("utf-8", "replace")
    except NothingToVerify:
        return ""


def read_start(path: Path, count: int) -> bytes:
    """The first *count* bytes of the file at *path*. Raises `NothingToVerify` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise NothingToVerify("the file cannot be read") from error


def _open_read_only(path: Path) -> sqlite3.Connection:
    address = path.resolve().as_uri()
    try:
        return _connect(f"{address}?mode=ro")
    except sqlite3.OperationalError:
        # In WAL mode on read-only media. Without a log beside it nobody can be writing, so the file is
        # complete.
        if path.with_name(path.name + "-wal").exists():
            raise
        return _connect(f"{address}?immutable=1")


def _connect(address: str) -> sqlite3.Connection:
    """A connection on which one snapshot of the ledger has begun."""
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT size FROM ledger_head").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _as_bytes(value: object) -> bytes | None:
    """An entry that somebody replaced by text is still compared, byte by byte."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) else None
