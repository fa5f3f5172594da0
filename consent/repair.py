"""A ledger whose head, tiles and entries contradict each other: what is damaged, and what can be made anew.

Entries and signatures cannot be made anew; tiles and head follow from the entries. Both functions read the
whole ledger, on either database, and need no hub that runs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from consent import tiles
from consent.ledger import RESTORE, Checkpoint, ledger_checkpoint, ledger_entry, ledger_head, ledger_tile
from consent.merkle import EMPTY_ROOT, ProofError, leaf_hash
from consent.note import Signing, open_checkpoint
from schemas.database import reading
from schemas.errors import LedgerContradiction

__all__ = ["Damage", "check", "rebuild_tiles"]

Progress = Callable[[int, int], None]
_MAX_DAMAGE = 100  # that many lines say enough


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing wrong at *place*; *mendable* when tiles or head alone are concerned, which `rebuild_tiles`
    makes anew.
    """

    place: str
    detail: str
    mendable: bool = False


def check(engine: sa.Engine, signing: Signing, origin: str, progress: Progress | None = None) -> list[Damage]:
    """What contradicts what in the ledger behind *engine*: every entry, leaf, tile, checkpoint and the head.
    At most a hundred findings; none means that everything agrees. *progress* is told (entries done, in all).
    """
    with reading(engine).begin() as connection:
        return _Check(connection, signing, origin).run(progress)


def rebuild_tiles(engine: sa.Engine, signing: Signing, origin: str) -> Checkpoint:
    """Writes tiles and head anew from the entries, when these still lead to the newest checkpoint; returns
    the new head.

    One transaction: a crash leaves everything as it was. Raises `LedgerContradiction` when an entry is
    missing or does not hash to its leaf, or the entries are not the ones that were signed; then only a
    backup helps.
    """
    with engine.begin() as connection:
        newest = _newest(connection, signing, origin)
        edge, signed_root = tiles.Edge(), EMPTY_ROOT
        connection.execute(sa.delete(ledger_tile))
        for block in _sound_blocks(connection):
            leaves = block
            if newest and edge.size < newest.size <= edge.size + len(leaves):
                cut = newest.size - edge.size
                _write(connection, edge.extend(leaves[:cut]))
                signed_root, leaves = edge.root(), leaves[cut:]
            _write(connection, edge.extend(leaves))
        if newest and (edge.size < newest.size or signed_root != newest.root):
            raise LedgerContradiction(f"The entries are not those of the newest checkpoint. {RESTORE}.")
        connection.execute(sa.delete(ledger_head))
        connection.execute(
            sa.insert(ledger_head).values(
                id=1, size=edge.size, frontier=b"".join(edge.frontier()), root=edge.root()
            )
        )
    return Checkpoint(origin, edge.size, edge.root())


class _Check:
    """One pass over the ledger on *connection*, which sees one state of it."""

    def __init__(self, connection: sa.Connection, signing: Signing, origin: str) -> None:
        self._connection, self._signing, self._origin = connection, signing, origin
        self._edge = tiles.Edge()
        self._found: list[Damage] = []

    def run(self, progress: Progress | None) -> list[Damage]:
        total = self._connection.execute(sa.select(sa.func.max(ledger_entry.c.idx))).scalar()
        marks = self._checkpoints()
        mark = self._compare(next(marks, None), marks)
        for leaves in self._blocks():
            rest = leaves
            while mark and mark.size <= self._edge.size + len(rest):
                cut = mark.size - self._edge.size
                self._extend(rest[:cut])
                rest = rest[cut:]
                mark = self._compare(mark, marks)
            self._extend(rest)
            if progress:
                progress(self._edge.size, (total or 0) + 1)
            if len(self._found) >= _MAX_DAMAGE:
                return self._found
        if mark:
            self._add(f"checkpoint {mark.size}", f"it signs {mark.size} entries, there are {self._edge.size}")
        for level, number, stated in self._edge.partial_tiles():
            if level:
                self._tile(level, number, stated)
        self._head()
        return self._found

    def _add(self, place: str, detail: str, *, mendable: bool = False) -> None:
        self._found.append(Damage(place, detail, mendable))

    def _blocks(self) -> Iterator[list[bytes]]:
        """The leaves as the entries' own bytes make them."""
        for rows in _rows(self._connection):
            first = rows[0].idx
            if first != self._edge.size or rows[-1].idx != first + len(rows) - 1:
                self._add(f"entry {self._edge.size}", "it, or one of the 255 after it, is missing")
                return
            leaves = [leaf_hash(bytes(row.entry)) for row in rows]
            for row, leaf in zip(rows, leaves, strict=True):
                if bytes(row.leaf) != leaf:
                    self._add(
                        f"entry {row.idx}", "its bytes do not hash to its leaf: one of them was changed"
                    )
            yield leaves

    def _extend(self, leaves: list[bytes]) -> None:
        for (level, number), tile in self._edge.extend(leaves).items():
            if len(tile) == tiles.FULL_TILE_BYTES:
                self._tile(level, number, tile)

    def _tile(self, level: int, number: int, wanted: bytes) -> None:
        where = (ledger_tile.c.level == level, ledger_tile.c.n == number)
        stored = self._connection.execute(sa.select(ledger_tile.c.hashes).where(*where)).scalar()
        if stored is None or bytes(stored) != wanted:
            what = "it is missing" if stored is None else "it is not made of the entries below it"
            self._add(f"tile {level}/{number}", what, mendable=True)

    def _checkpoints(self) -> Iterator[Checkpoint]:
        query = sa.select(ledger_checkpoint.c.size, ledger_checkpoint.c.note)
        for size, note in self._connection.execute(query.order_by(ledger_checkpoint.c.size)).all():
            try:
                checkpoint = open_checkpoint(note, self._signing.keys_for(size), self._origin)
            except ProofError as error:
                self._add(f"checkpoint {size}", str(error))
                continue
            if checkpoint.size != size:
                self._add(f"checkpoint {size}", f"the note signs {checkpoint.size} entries")
                continue
            yield checkpoint

    def _compare(self, mark: Checkpoint | None, marks: Iterator[Checkpoint]) -> Checkpoint | None:
        while mark and mark.size == self._edge.size:
            if mark.root != self._edge.root():
                self._add(f"checkpoint {mark.size}", "it signs another tree than these entries make")
            mark = next(marks, None)
        return mark

    def _head(self) -> None:
        head = self._connection.execute(sa.select(ledger_head)).first()
        wanted = (self._edge.size, b"".join(self._edge.frontier()), self._edge.root())
        if head is None and not self._edge.size:
            return  # a hub that was never started
        if head is None:
            self._add("head", "there is none", mendable=True)
        elif (head.size, bytes(head.frontier), bytes(head.root)) != wanted:
            detail = f"it states {head.size} entries; there are {self._edge.size}, or their root is another"
            self._add("head", detail, mendable=True)


def _newest(connection: sa.Connection, signing: Signing, origin: str) -> Checkpoint | None:
    query = sa.select(ledger_checkpoint.c.note).order_by(ledger_checkpoint.c.size.desc()).limit(1)
    note = connection.execute(query).scalar()
    if note is None:
        return None
    try:
        return open_checkpoint(note, signing.keys_for(Checkpoint.from_note(note).size), origin)
    except ProofError as error:
        raise LedgerContradiction(f"The newest checkpoint does not verify: {error}. {RESTORE}.") from error


def _rows(connection: sa.Connection) -> Iterator[list[sa.Row[int, bytes, bytes]]]:
    at = -1
    columns = (ledger_entry.c.idx, ledger_entry.c.leaf, ledger_entry.c.entry)
    while True:
        query = sa.select(*columns).where(ledger_entry.c.idx > at).order_by(ledger_entry.c.idx)
        rows = list(connection.execute(query.limit(tiles.WIDTH)))
        if not rows:
            return
        at = rows[-1].idx
        yield rows


def _sound_blocks(connection: sa.Connection) -> Iterator[list[bytes]]:
    """The leaves, each checked against its entry and its place."""
    expected = 0
    for rows in _rows(connection):
        for row in rows:
            if row.idx != expected or leaf_hash(bytes(row.entry)) != bytes(row.leaf):
                raise LedgerContradiction(f"Entry {expected} is missing or was changed. {RESTORE}.")
            expected += 1
        yield [bytes(row.leaf) for row in rows]


def _write(connection: sa.Connection, changed: dict[tuple[int, int], bytes]) -> None:
    """Full tiles, and partial ones above level 0, which are written again each time they grow."""
    for (level, number), hashes in changed.items():
        if level or len(hashes) == tiles.FULL_TILE_BYTES:
            connection.execute(
                sa.delete(ledger_tile).where(ledger_tile.c.level == level, ledger_tile.c.n == number)
            )
            connection.execute(sa.insert(ledger_tile).values(level=level, n=number, hashes=hashes))
