"""What the door and the console read: the ledger's entries by message, by day and backwards, and its tiles.

Read-only. Entries hold no personal detail, but they show who dealt with a case: who calls decides who may see
them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

import orjson
import sqlalchemy as sa

from consent import tiles
from consent.entry import DECISION_KINDS, DELIVERY, NARROWED, RECALL, STOPPED
from consent.ledger import Ledger, ledger_entry, ledger_tile
from consent.merkle import HASH_SIZE
from schemas.clock import NEW_ZEALAND, instant_of
from schemas.database import reading

_CHUNK = 500
SCAN = 20_000  # entries looked at for one page; a rarer match is found by going on from there


@dataclass(frozen=True, slots=True)
class Row:
    """One ledger entry: its *index* and what it says."""

    index: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, newest first; *older* is the index to go on below, None at the ledger's beginning."""

    rows: list[Row]
    older: int | None


def decisions_on(engine: sa.Engine, message: str, source: str | None = None) -> list[Row]:
    """The decisions on *message*, in order; only those on what *source* sent when it is given."""
    query = (
        sa.select(ledger_entry.c.idx, ledger_entry.c.entry)
        .where(ledger_entry.c.message == message, ledger_entry.c.kind.in_(DECISION_KINDS))
        .order_by(ledger_entry.c.idx)
    )
    if source is not None:
        query = query.where(ledger_entry.c.source == source)
    return _rows(engine, query)


def deliveries_of(engine: sa.Engine, disclosures: Sequence[str]) -> dict[str, Row]:
    """How the delivery of each of *disclosures* (ids) ended, for those that have ended."""
    found: dict[str, Row] = {}
    for start in range(0, len(disclosures), _CHUNK):
        query = sa.select(ledger_entry.c.idx, ledger_entry.c.entry).where(
            ledger_entry.c.message.in_(disclosures[start : start + _CHUNK]),
            ledger_entry.c.kind == DELIVERY,
        )
        found.update((row.body["message"], row) for row in _rows(engine, query))
    return found


def afterwards(engine: sa.Engine, disclosures: Sequence[str]) -> dict[str, list[Row]]:
    """What became of each of *disclosures* (ids), in order: stopped or narrowed before it was sent, its
    delivery, its recall.
    """
    found: dict[str, list[Row]] = {}
    for start in range(0, len(disclosures), _CHUNK):
        query = (
            sa.select(ledger_entry.c.idx, ledger_entry.c.entry)
            .where(
                ledger_entry.c.message.in_(disclosures[start : start + _CHUNK]),
                ledger_entry.c.kind.in_((DELIVERY, STOPPED, NARROWED, RECALL)),
            )
            .order_by(ledger_entry.c.idx)
        )
        for row in _rows(engine, query):
            found.setdefault(row.body["message"], []).append(row)
    return found


def entry(engine: sa.Engine, index: int) -> Row | None:
    """The entry at *index*."""
    query = sa.select(ledger_entry.c.idx, ledger_entry.c.entry).where(ledger_entry.c.idx == index)
    return next(iter(_rows(engine, query)), None)


def disclosures_page(
    engine: sa.Engine,
    *,
    below: int,
    start: int = 0,
    party: str = "",
    type: str = "",
    outcome: str = "",
    limit: int = 50,
) -> Page:
    """Up to *limit* decisions with index from *start* and under *below*, newest first, that match what is
    given.
    """
    query = (
        sa.select(ledger_entry.c.idx, ledger_entry.c.entry)
        .where(ledger_entry.c.kind.in_(DECISION_KINDS), ledger_entry.c.idx >= start)
        .order_by(ledger_entry.c.idx.desc())
        .limit(_CHUNK)
    )
    if party:
        query = query.where(ledger_entry.c.party == party)
    rows: list[Row] = []
    looked_at = 0
    while looked_at < SCAN:
        part = _rows(engine, query.where(ledger_entry.c.idx < below))
        for row in part:
            if (not type or row.body["type"] == type) and (not outcome or row.body["outcome"] == outcome):
                rows.append(row)
                if len(rows) == limit:
                    return Page(rows, row.index)
        if len(part) < _CHUNK:
            return Page(rows, None)
        looked_at += len(part)
        below = part[-1].index
    return Page(rows, below)


def between(engine: sa.Engine, start: int, stop: int) -> Iterator[Row]:
    """Every entry from *start* up to, not including, *stop*."""
    for first in range(start, stop, _CHUNK):
        query = (
            sa.select(ledger_entry.c.idx, ledger_entry.c.entry)
            .where(ledger_entry.c.idx >= first, ledger_entry.c.idx < min(first + _CHUNK, stop))
            .order_by(ledger_entry.c.idx)
        )
        yield from _rows(engine, query)


def day_range(engine: sa.Engine, size: int, day: date) -> tuple[int, int]:
    """The indices (first, one after the last) of the entries of the New Zealand *day* in a ledger of *size*
    entries.

    Found by halving: entries are appended in the order of their times, but for the milliseconds by which two
    processes may differ.
    """
    midnight = datetime.combine(day, time(), NEW_ZEALAND)
    following = datetime.combine(day + timedelta(days=1), time(), NEW_ZEALAND)
    return _index_at(engine, size, midnight), _index_at(engine, size, following)


def period(engine: sa.Engine, size: int, since: date | None, until: date | None) -> tuple[int, int]:
    """The indices (first, one after the last) of the entries of the New Zealand days *since* to *until*, both
    included; None is open.
    """
    start = day_range(engine, size, since)[0] if since else 0
    return start, max(start, day_range(engine, size, until)[1] if until else size)


def _index_at(engine: sa.Engine, size: int, instant: datetime) -> int:
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        row = entry(engine, middle)
        if row is None or instant_of(row.body["at"]) >= instant:
            high = middle
        else:
            low = middle + 1
    return low


def tile(engine: sa.Engine, size: int, level: int, number: int, width: int) -> bytes | None:
    """The first *width* hashes of a tile of the tree of *size* entries (c2sp.org/tlog-tiles); None when the
    tree does not reach that far.
    """
    if not _reaches(size, level, number, width):
        return None
    with reading(engine).begin() as connection:
        if level == 0:
            # The leaves stand beside the entries; the newest of them are in no tile yet.
            first = number * tiles.WIDTH
            leaves = sa.select(ledger_entry.c.leaf).where(
                ledger_entry.c.idx >= first, ledger_entry.c.idx < first + width
            )
            return b"".join(connection.execute(leaves.order_by(ledger_entry.c.idx)).scalars())
        query = sa.select(ledger_tile.c.hashes).where(ledger_tile.c.level == level, ledger_tile.c.n == number)
        return bytes(connection.execute(query).scalar_one())[: width * HASH_SIZE]


def bundle(ledger: Ledger, size: int, number: int, width: int) -> bytes | None:
    """The first *width* entries that belong to tile *number* of level 0; None when the tree does not reach
    that far.
    """
    if not _reaches(size, 0, number, width):
        return None
    first = number * tiles.WIDTH
    return tiles.write_bundle(ledger.entries(first, first + width))


def _reaches(size: int, level: int, number: int, width: int) -> bool:
    there: int = size // tiles.WIDTH**level - number * tiles.WIDTH
    return 0 < width <= there


def _rows(engine: sa.Engine, query: sa.Select[int, bytes]) -> list[Row]:
    with reading(engine).begin() as connection:
        return [Row(idx, orjson.loads(bytes(body))) for idx, body in connection.execute(query)]


def entries_at(engine: sa.Engine, indices: Sequence[int]) -> dict[int, Row]:
    """The entries at *indices*, by index, as far as they exist."""
    found: dict[int, Row] = {}
    for start in range(0, len(indices), _CHUNK):
        query = sa.select(ledger_entry.c.idx, ledger_entry.c.entry).where(
            ledger_entry.c.idx.in_(indices[start : start + _CHUNK])
        )
        found.update((row.index, row) for row in _rows(engine, query))
    return found
