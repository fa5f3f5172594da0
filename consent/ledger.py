"""The disclosure ledger: an append-only Merkle log in the hub's own database.

Three things are kept and must agree: the entries with their leaves, the tiles (complete subtrees, so that a
proof needs O(log n) reads; the partial tile of level 0 is the newest leaves themselves) and one head row
(size, frontier, root). All three change in the caller's transaction, so that an entry is durable exactly
when the decision it records is. Checkpoints are signed afterwards, each over a head that is already
durable: a signature may lag behind the head, never lead it.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from consent import merkle, tiles
from consent.entry import COMMON_FIELDS, DELIVERY
from consent.ledger_tables import ledger_checkpoint, ledger_entry, ledger_head, ledger_tile, ledger_witness
from consent.merkle import HASH_SIZE, ProofError, leaf_hash
from consent.note import Checkpoint, Key, Signer, Signing, TlogProof, add_signatures, open_checkpoint
from consent.proving import Lately, Proving
from consent.witness import request
from schemas.canonical import canonical_trusted
from schemas.clock import Clock
from schemas.database import add_rows, reading, rows_among
from schemas.errors import AlreadyDecided, BadProof, LedgerContradiction, NotFound, TooLarge

__all__ = [
    "RESTORE",
    "Checkpoint",
    "Entry",
    "Ledger",
    "Signer",
    "Written",
    "ledger_checkpoint",
    "ledger_entry",
    "ledger_head",
    "ledger_tile",
    "ledger_witness",
]

# The statements of every batch, as text: compiling and binding them through SQLAlchemy's expressions costs
# more than SQLite needs to run them. The mark `?` becomes the driver's own.
_SELECT_HEAD = "SELECT size, frontier, root FROM ledger_head WHERE id = 1"
_INSERT_HEAD = "INSERT INTO ledger_head (id, size, frontier, root) VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING"
_MOVE_HEAD = "UPDATE ledger_head SET size = ?, frontier = ?, root = ? WHERE id = 1 AND size = ? AND root = ?"
_ENTRY_COLUMNS = ("idx", "leaf", "entry", "source", "message", "party", "kind")
_UPSERT_TILE = (
    "INSERT INTO ledger_tile (level, n, hashes) VALUES (?, ?, ?) "
    "ON CONFLICT (level, n) DO UPDATE SET hashes = excluded.hashes"
)
_SELECT_NEWEST = "SELECT note FROM ledger_checkpoint ORDER BY size DESC LIMIT 1"
_INSERT_CHECKPOINT = "INSERT INTO ledger_checkpoint (size, note) VALUES (?, ?) ON CONFLICT DO NOTHING"
_CHUNK = 400  # values in one IN list
_NO_ENTRIES: Mapping[int, bytes] = MappingProxyType({})
RESTORE = (
    "Stop every hub process and keep a copy of the database. isr-hub ledger check says what is damaged: "
    "tiles and head alone are mended by isr-hub ledger rebuild-tiles; for anything else restore the newest "
    "backup that continues the newest checkpoint kept outside (isr-hub verify --since)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry to append. *body* is plain JSON without floats, holds no personal detail, and repeats
    the other four fields beside the time `at`: the ledger adds nothing to it.
    """

    kind: str
    source: str
    message: str
    party: str
    body: dict[str, Any]

    def encode(self) -> bytes:
        """The canonical bytes that are hashed. Raises `ValueError` when *body* says something else than
        the columns, and `TooLarge` over 65,535 bytes.
        """
        body = self.body
        if (
            body.get("kind") != self.kind
            or body.get("source") != self.source
            or body.get("message") != self.message
            or body.get("party") != self.party
            or "at" not in body
        ):
            raise ValueError(f"an entry's body repeats its {', '.join(COMMON_FIELDS)}")
        data = canonical_trusted(body)
        if len(data) > tiles.MAX_ENTRY_BYTES:
            raise TooLarge("a ledger entry is longer than 65,535 bytes; record digests, not content")
        return data


class Written(NamedTuple):
    """An entry whose canonical bytes, *data*, were written where it was decided; they repeat the fields."""

    kind: str
    source: str
    message: str
    party: str
    data: bytes

    def encode(self) -> bytes:
        """The bytes that are hashed. Raises `TooLarge` over 65,535 bytes."""
        if len(self.data) > tiles.MAX_ENTRY_BYTES:
            raise TooLarge("a ledger entry is longer than 65,535 bytes; record digests, not content")
        return self.data


class Ledger:
    """The ledger in the database behind *engine*, signed under *origin* by those whom *signing* names.

    Any number of processes and threads may hold one on the same database: the head row serialises them.
    """

    def __init__(self, engine: sa.Engine, signing: Signing, origin: str, clock: Clock) -> None:
        self.origin = origin
        self._engine = engine
        self._reading = reading(engine)
        self._signing = signing
        self._clock = clock
        # The edge that the last append in this process left, with its root. It is used again only when the
        # head row states the same root: after a rollback, or an append elsewhere, it is read anew.
        self._edge = tiles.Edge()
        self._edge_root = merkle.EMPTY_ROOT
        self._trusted: Checkpoint | None = None  # the last checkpoint whose signature was verified here
        self._mark = "%s" if engine.dialect.name == "postgresql" else "?"
        # Roots by size that this edge itself went through: each is a prefix of the next by construction.
        # Threads append while others sign, so it is read and changed under its own lock.
        self._passed: dict[int, bytes] = {}
        self._passing = threading.Lock()
        self._lately = Lately()

    def keys_for(self, size: int) -> Sequence[Key]:
        """The public keys of which one must have signed a checkpoint of *size*."""
        return self._signing.keys_for(size)

    def start(self) -> None:
        """Makes the head row of an empty ledger, and checks that the head, the tiles, the last entry and
        the newest checkpoint agree, in O(log n) reads. Safe to repeat.

        Raises `LedgerContradiction`, saying how to mend it; the hub MUST NOT run then.
        """
        # Other processes may be appending: what is compared is read at one moment.
        with self._reading.connect() as connection:
            is_new = connection.execute(sa.select(ledger_head.c.size)).first() is None
            if is_new and connection.execute(sa.select(ledger_entry.c.idx).limit(1)).first() is not None:
                raise LedgerContradiction(f"There are ledger entries but no head row. {RESTORE}.")
        if is_new:
            with self._engine.begin() as connection:
                self._write(connection, _INSERT_HEAD, [(0, b"", merkle.EMPTY_ROOT)])
        with self._reading.connect() as connection:
            self._check(connection)

    def append(self, connection: sa.Connection, entries: Sequence[Entry | Written]) -> range:
        """Appends *entries* in the caller's transaction on *connection* and returns their indices.

        Nothing is durable, and no index is taken, until the caller commits; a rollback or a crash before that
        leaves the ledger as it was. Other writers wait from here until the transaction ends, so call it
        late. Raises `AlreadyDecided` when a decision on the same message and party is recorded, and
        `LedgerContradiction` when the head changed under the lock; the caller MUST then roll back.
        """
        if not entries:
            return range(0)
        encoded = [entry.encode() for entry in entries]
        leaves = [leaf_hash(data) for data in encoded]
        size, frontier, root = self._locked_head(connection)
        edge = self._edge_at(connection, size, frontier, root)
        # Until this is done the edge belongs to no root: after an error it is read anew.
        self._edge_root = b""
        changed = edge.extend(leaves)
        self._lately.add(changed)
        rows = [
            (number, leaf, data, entry.source, entry.message, entry.party, entry.kind)
            for number, (leaf, data, entry) in enumerate(zip(leaves, encoded, entries, strict=True), size)
        ]
        try:
            add_rows(connection, ledger_entry, _ENTRY_COLUMNS, rows)
        except sa.exc.IntegrityError as error:
            # Not `from error`: the driver's text repeats the row.
            if _has_index(error):
                raise LedgerContradiction(f"An entry stands beyond the head. {RESTORE}.") from None
            raise AlreadyDecided from None
        self._write_tiles(connection, changed)
        new_root = edge.root()
        moved = self._write(
            connection, _MOVE_HEAD, [(edge.size, b"".join(edge.frontier()), new_root, size, root)]
        )
        if moved != 1:
            raise LedgerContradiction("Another writer moved the ledger's head; roll back and try again.")
        self._edge_root = new_root
        with self._passing:
            self._passed[edge.size] = new_root
        return range(size, edge.size)

    def lock(self, connection: sa.Connection) -> int:
        """Lets nobody else append until the caller's transaction on *connection* ends; returns the size."""
        return self._locked_head(connection)[0]

    def size(self, connection: sa.Connection) -> int:
        """How many entries there are, as *connection*'s transaction sees it."""
        return self._head(connection).size

    def sign(self) -> Checkpoint:
        """Signs the head when it is ahead of the newest checkpoint, and returns the newest checkpoint.

        The checkpoint is durable when it returns. Safe to repeat, and to run in several processes: a crash
        before the commit leaves entries unsigned, and the next call signs them. Never signs a head that
        is not consistent with the newest checkpoint: raises `LedgerContradiction`. Raises `NotSigned`
        when a key is kept elsewhere and does not answer.
        """
        with self._reading.connect() as connection:
            newest, head = self._newest(connection), self._head(connection)
            if newest is not None and (newest.size, newest.root) == (head.size, head.root):
                return newest
            self._check_consistent(connection, newest, head)
        # No transaction is open while it is signed: a key that is kept elsewhere may take its time. Whatever
        # was appended meanwhile continues this head, and is signed by the next call.
        signed = head.signed_by(*self._signing.signers_for(head.size))
        with self._engine.begin() as connection:
            # Ed25519 is deterministic: processes that sign the same head write the same note; any may win.
            self._write(connection, _INSERT_CHECKPOINT, [(signed.size, signed.note)])
        # ‖ A crash before the commit leaves the entries unsigned, until the next call.
        with self._passing:
            for size in [size for size in self._passed if size < signed.size]:
                del self._passed[size]
        return signed

    def ended(self, connection: sa.Connection, disclosures: Sequence[str]) -> set[str]:
        """Those of *disclosures* (ids) whose delivery has ended, as delivered or refused for good."""
        ended: set[str] = set()
        for at in range(0, len(disclosures), _CHUNK):
            query = sa.select(ledger_entry.c.message).where(
                ledger_entry.c.kind == DELIVERY, ledger_entry.c.message.in_(disclosures[at : at + _CHUNK])
            )
            ended.update(connection.execute(query).scalars())
        return ended

    def checkpoint(self) -> Checkpoint | None:
        """The newest signed checkpoint, or nothing when none was signed yet."""
        with self._reading.connect() as connection:
            return self._newest(connection)

    def head(self) -> Checkpoint:
        """The durable head, signed or not."""
        with self._reading.connect() as connection:
            return self._head(connection)

    def entries(self, start: int, stop: int) -> list[bytes]:
        """The entries from *start* up to, not including, *stop*, as far as they exist."""
        with self._reading.connect() as connection:
            return _entries(connection, start, stop)

    def find(self, message: str) -> list[tuple[int, bytes]]:
        """Every entry about *message*, as (index, entry), in order."""
        query = (
            sa.select(ledger_entry.c.idx, ledger_entry.c.entry)
            .where(ledger_entry.c.message == message)
            .order_by(ledger_entry.c.idx)
        )
        with self._reading.connect() as connection:
            return [(idx, bytes(entry)) for idx, entry in connection.execute(query)]

    def delivered(self, connection: sa.Connection, disclosures: Sequence[str]) -> set[str]:
        """Which of *disclosures* (ids) the ledger says their recipient has."""
        wanted = ("message", "entry")
        rows = rows_among(connection, ledger_entry, wanted, "message", disclosures, f"kind = '{DELIVERY}'")
        return {message for message, entry in rows if orjson.loads(bytes(entry))["outcome"] == "delivered"}

    def inclusion_proof(self, idx: int, size: int) -> list[bytes]:
        """The audit path of entry *idx* in the tree of *size* entries, leaf upwards. Raises `BadProof`
        outside it.
        """
        with self._reading.connect() as connection:
            return self._prove(connection, lambda read: merkle.inclusion_proof(idx, size, read))

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """The proof that the first *old* of *new* entries are still the same. Raises `BadProof` outside
        the tree.
        """
        with self._reading.connect() as connection:
            return self._prove(connection, lambda read: merkle.consistency_proof(old, new, read))

    def tlog_proof(self, idx: int) -> str:
        """Entry *idx* and its place under the newest checkpoint as one text (c2sp.org/tlog-proof@v1), to
        hand to a court or the Privacy Commissioner. The entry itself travels as the extra data.

        Raises `NotFound` while no checkpoint covers the entry.
        """
        with self._reading.connect() as connection:
            newest = self._newest(connection)
            if newest is None or not 0 <= idx < newest.size:
                raise NotFound("no signed checkpoint covers this entry")
            size = newest.size
            path = self._prove(connection, lambda read: merkle.inclusion_proof(idx, size, read))
            return TlogProof(idx, tuple(path), newest, _entries(connection, idx, idx + 1)[0]).encode()

    def tlog_proofs(
        self, indices: Sequence[int], size: int | None = None, entries: Mapping[int, bytes] = _NO_ENTRIES
    ) -> list[str]:
        """`tlog_proof` for each of *indices*, ascending, under one checkpoint (that of *size*, else the
        newest): what each release carries. *entries* are those that the caller has at hand, committed.

        Raises `NotFound` while no checkpoint covers the last of them.
        """
        if not indices:
            return []
        with self._reading.connect() as connection:
            newest = self._newest(connection) if size is None else self._signed(connection, size)
            if newest is None or not 0 <= indices[0] <= indices[-1] < newest.size:
                raise NotFound("no signed checkpoint covers this entry")
            said = dict(entries)
            missing = [index for index in indices if index not in said]
            said.update(zip(missing, _chosen(connection, missing), strict=True))
            proving = Proving(newest, self._nodes(connection, newest))
            try:
                return [proving.text(index, said[index]) for index in indices]
            except ProofError as error:
                raise BadProof(str(error)) from error

    def witness_request(self, old: int, checkpoint: Checkpoint | None = None) -> bytes:
        """What to send to a witness that last cosigned the size *old* (0 at first), to have *checkpoint* (the
        newest one) cosigned (c2sp.org/tlog-witness). Raises `BadProof` when the witness is ahead of it.
        """
        wanted = checkpoint or self.sign()
        return request(old, self.consistency_proof(old, wanted.size), wanted)

    def add_cosignatures(self, size: int, lines: str, keys: Sequence[Key]) -> Checkpoint:
        """Adds the witnesses' signature *lines* to the checkpoint of *size*, and returns it. Only lines of
        *keys* are kept, each once. Safe to repeat.

        Raises `NotFound` for a size that was not signed, and `BadProof` when a line of *keys* does not
        verify.
        """
        with self._engine.begin() as connection:
            return self.cosign(connection, size, lines, keys)

    def cosign(self, connection: sa.Connection, size: int, lines: str, keys: Sequence[Key]) -> Checkpoint:
        """`add_cosignatures` in the caller's transaction."""
        row = ledger_checkpoint.c.size == size
        query = sa.select(ledger_checkpoint.c.note).where(row).with_for_update()
        note = connection.execute(query).scalar()
        if note is None:
            raise NotFound("no checkpoint of this size was signed")
        try:
            note = add_signatures(note, lines, keys)
        except ProofError as error:
            raise BadProof(str(error)) from error
        connection.execute(sa.update(ledger_checkpoint).where(row).values(note=note))
        return Checkpoint.from_note(note)

    def export(self, folder: str | Path, progress: Callable[[int, int], None] | None = None) -> Checkpoint:
        """Writes the newest checkpoint and what it covers into *folder* as static files
        (c2sp.org/tlog-tiles), and returns it. Only what a former export there lacks is written;
        *progress* is told (tiles done, tiles in all).

        The checkpoint is replaced last and at once: a crash leaves the former export, still complete.
        Raises `LedgerContradiction` when the folder's checkpoint is not an earlier one of this ledger.
        """
        folder = Path(folder)
        newest = self.sign()
        former = self._former_export(folder, newest)
        wanted = [
            item for item in tiles.shape(newest.size) if not _is_exported(item, former.size if former else 0)
        ]
        with self._reading.connect() as connection:
            for done, (level, number, width) in enumerate(wanted):
                hashes = self._read_tile(connection, level, number)[: width * HASH_SIZE]
                _write_file(folder / tiles.tile_path(level, number, width), hashes)
                if level == 0:
                    first = number * tiles.WIDTH
                    bundle = tiles.write_bundle(_entries(connection, first, first + width))
                    _write_file(folder / tiles.bundle_path(number, width), bundle)
                if progress:
                    progress(done + 1, len(wanted))
        _write_file(folder / "keys", self.keys().encode())
        _write_file(folder / "checkpoint", newest.note.encode())
        return newest

    def keys(self) -> str:
        """The ledger's public key of today, and how it came to be that one (`consent.key_history`)."""
        return self._signing.public()

    def _write(self, connection: sa.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
        """Runs *statement* for each of *rows* and returns how many rows it touched."""
        return connection.exec_driver_sql(statement.replace("?", self._mark), list(rows)).rowcount

    def _locked_head(self, connection: sa.Connection) -> tuple[int, bytes, bytes]:
        # On SQLite nothing need be locked: the transaction began with the write lock.
        lock = "" if self._mark == "?" else " FOR UPDATE"
        row = connection.exec_driver_sql(_SELECT_HEAD + lock).first()
        if row is None:
            raise LedgerContradiction("The ledger has no head row; call start() first.")
        return row.size, bytes(row.frontier), bytes(row.root)

    def _edge_at(self, connection: sa.Connection, size: int, frontier: bytes, root: bytes) -> tiles.Edge:
        """The edge of the tree under the locked head. INVARIANT: it leads to *root*, or nothing is
        appended.
        """
        if self._edge_root != root or self._edge.size != size:
            try:
                edge = tiles.Edge(size, lambda level, n: self._read_tile(connection, level, n))
            except ProofError as error:
                raise LedgerContradiction(f"The ledger's tiles are incomplete. {RESTORE}.") from error
            if edge.root() != root or b"".join(edge.frontier()) != frontier:
                raise LedgerContradiction(f"The ledger's tiles do not lead to its head. {RESTORE}.")
            self._edge = edge
            with self._passing:
                self._passed = {size: root}
                self._lately.forget()
        return self._edge

    def _write_tiles(self, connection: sa.Connection, changed: dict[tuple[int, int], bytes]) -> None:
        rows = [
            (level, number, hashes)
            for (level, number), hashes in changed.items()
            if level or len(hashes) == tiles.FULL_TILE_BYTES
        ]
        if rows:
            self._write(connection, _UPSERT_TILE, rows)

    def _read_tile(self, connection: sa.Connection, level: int, number: int) -> bytes:
        where = (ledger_tile.c.level == level, ledger_tile.c.n == number)
        found = connection.execute(sa.select(ledger_tile.c.hashes).where(*where)).scalar()
        if found is None and level == 0:  # the partial one at the right edge is kept as the entries' leaves
            first = number * tiles.WIDTH
            query = (
                sa.select(ledger_entry.c.leaf)
                .where(ledger_entry.c.idx >= first, ledger_entry.c.idx < first + tiles.WIDTH)
                .order_by(ledger_entry.c.idx)
            )
            return b"".join(bytes(leaf) for leaf in connection.execute(query).scalars())
        return bytes(found or b"")

    def _head(self, connection: sa.Connection) -> Checkpoint:
        row = connection.exec_driver_sql(_SELECT_HEAD).first()
        if row is None:
            raise LedgerContradiction("The ledger has no head row; call start() first.")
        return Checkpoint(self.origin, row.size, bytes(row.root))

    def _open(self, note: str) -> Checkpoint:
        size = Checkpoint.from_note(note).size
        return open_checkpoint(note, self._signing.keys_for(size), self.origin)

    def _newest(self, connection: sa.Connection) -> Checkpoint | None:
        note = connection.exec_driver_sql(_SELECT_NEWEST).scalar()
        if note is None:
            return None
        trusted = self._trusted
        if trusted is None or trusted.note != note:
            try:
                trusted = self._open(note)
            except ProofError as error:
                raise LedgerContradiction(
                    "The newest checkpoint was not signed by the configured key for this origin. Start the "
                    "hub with the key and origin of this ledger, or use an empty database for a new ledger."
                ) from error
            self._trusted = trusted
        return trusted

    def _signed(self, connection: sa.Connection, size: int) -> Checkpoint | None:
        query = sa.select(ledger_checkpoint.c.note).where(ledger_checkpoint.c.size == size)
        note = connection.execute(query).scalar()
        return Checkpoint.from_note(note) if note is not None else None

    def _nodes(self, connection: sa.Connection, checkpoint: Checkpoint) -> merkle.ReadNode:
        """The nodes of the tree of *checkpoint*; from memory when this edge went through that very tree."""

        def read(level: int, number: int) -> bytes:
            return self._read_tile(connection, level, number)

        with self._passing:
            is_ours = self._passed.get(checkpoint.size) == checkpoint.root
            return tiles.node_reader(self._lately.reader(checkpoint.size, read) if is_ours else read)

    def _prove(
        self, connection: sa.Connection, make: Callable[[merkle.ReadNode], list[bytes]]
    ) -> list[bytes]:
        try:
            return make(tiles.node_reader(lambda level, n: self._read_tile(connection, level, n)))
        except ProofError as error:
            raise BadProof(str(error)) from error

    def _check_consistent(
        self, connection: sa.Connection, newest: Checkpoint | None, head: Checkpoint
    ) -> None:
        """Returns when *head* continues *newest*: known by construction, or else proved from the tiles."""
        old = newest or Checkpoint(self.origin, 0, merkle.EMPTY_ROOT)
        with self._passing:
            roots = self._passed.get(old.size), self._passed.get(head.size)
        if roots == (old.root, head.root) and old.size < head.size:
            return
        try:
            read = tiles.node_reader(lambda level, n: self._read_tile(connection, level, n))
            proof = merkle.consistency_proof(old.size, head.size, read)
            merkle.verify_consistency(old.size, head.size, old.root, head.root, proof)
        except ProofError as error:
            raise LedgerContradiction(
                f"The ledger's head does not continue its newest checkpoint. {RESTORE}."
            ) from error

    def _check(self, connection: sa.Connection) -> None:
        head = self._head(connection)
        frontier = bytes(connection.execute(sa.select(ledger_head.c.frontier)).scalar_one())
        last = connection.execute(sa.select(sa.func.max(ledger_entry.c.idx))).scalar()
        if head.size != (0 if last is None else last + 1):
            raise LedgerContradiction(f"The last entry is not the one that the head states. {RESTORE}.")
        edge = self._edge_at(connection, head.size, frontier, head.root)
        self._edge, self._edge_root = edge, head.root
        if last is not None:
            row = connection.execute(
                sa.select(ledger_entry.c.leaf, ledger_entry.c.entry).where(ledger_entry.c.idx == last)
            ).one()
            tile = self._read_tile(connection, 0, last // tiles.WIDTH)
            stored = tiles.hashes_of(tile)[last % tiles.WIDTH]
            if not leaf_hash(bytes(row.entry)) == bytes(row.leaf) == stored:
                raise LedgerContradiction(f"The last entry does not hash to its leaf. {RESTORE}.")
        newest = self._newest(connection)
        self._passed = {}  # start() proves what append may then take as known
        self._check_consistent(connection, newest, head)
        self._passed = {head.size: head.root}
        if newest is not None:
            self._passed[newest.size] = newest.root

    def _former_export(self, folder: Path, newest: Checkpoint) -> Checkpoint | None:
        path = folder / "checkpoint"
        if not path.exists():
            return None
        try:
            former = self._open(path.read_text("utf-8"))
            with self._reading.connect() as connection:
                self._check_consistent(connection, former, newest)
        except (ProofError, LedgerContradiction, UnicodeDecodeError) as error:
            raise LedgerContradiction(
                "The folder holds an export that this ledger does not continue. Keep it as evidence, and "
                "export into an empty folder."
            ) from error
        return former


def _has_index(error: sa.exc.IntegrityError) -> bool:
    """Whether the insert failed because an entry with that index is there already."""
    constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", "")  # psycopg
    return constraint == "pk_ledger_entry" or (
        getattr(error.orig, "sqlite_errorname", "") == "SQLITE_CONSTRAINT_PRIMARYKEY"
    )


def _entries(connection: sa.Connection, start: int, stop: int) -> list[bytes]:
    query = (
        sa.select(ledger_entry.c.entry)
        .where(ledger_entry.c.idx >= start, ledger_entry.c.idx < stop)
        .order_by(ledger_entry.c.idx)
    )
    return [bytes(entry) for entry in connection.execute(query).scalars()]


def _chosen(connection: sa.Connection, indices: Sequence[int]) -> list[bytes]:
    """The entries at *indices*, ascending."""
    found: list[bytes] = []
    for start in range(0, len(indices), _CHUNK):
        query = (
            sa.select(ledger_entry.c.entry)
            .where(ledger_entry.c.idx.in_(indices[start : start + _CHUNK]))
            .order_by(ledger_entry.c.idx)
        )
        found += [bytes(entry) for entry in connection.execute(query).scalars()]
    return found


def _is_exported(item: tuple[int, int, int], former_size: int) -> bool:
    """Whether the tile *item* (level, number, width) was full or equally wide in an export of
    *former_size*.
    """
    level, number, width = item
    there: int = former_size // tiles.WIDTH**level - number * tiles.WIDTH
    return there >= width if width == tiles.WIDTH else there == width


def _write_file(path: Path, data: bytes) -> None:
    """Writes *data* to *path* at once: a reader, or a crash, sees the old file or the new one, never a
    part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
