"""Reconciliation: what the hub's ledger says was released against what recipients say they received.

Receipts are CSV (a heading row) or NDJSON with `delivery` (the id of the disclosure), `party`, `time` (RFC
3339) and, where the recipient keeps it, `digest`: SHA-256 in hex over the salt that came with the delivery
and the canonical bytes of its data, which is what the ledger's entry holds as `content`. Files of any length
are read row by row into a table on disk, and the ledger beside it; neither is ever held in memory.
"""

import csv
import json
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from consent.entry import DELIVERY, DISCLOSURE, STOPPED
from gateway import queries
from gateway.hub import Hub
from schemas.clock import instant_of
from schemas.errors import InvalidMessage, Problem

# Every kind of difference there is, in the order in which somebody should look into them.
KINDS: Mapping[str, str] = {
    "received-by-other": "somebody else received it than the one to whom it was released",
    "received-not-released": "received, and the ledger knows no such release",
    "digest-differs": "what was received is not what was released",
    "stopped-yet-received": "it was stopped before it was sent, and received",
    "refused-yet-received": "the hub says that the recipient refused it, and it was received",
    "released-not-received": "the hub says that it was delivered, and nobody says that it was received",
    "received-not-recorded": "received, and the ledger does not say yet how the delivery ended",
    "received-twice": "the same party states it twice, and not the same",
}
_COLUMNS = ("delivery", "party", "time", "digest")
_NEEDED = _COLUMNS[:3]
_BATCH = 500
_MAX_LINE = 10_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INSERT = "INSERT INTO receipt (delivery, party, digest, place) VALUES (?, ?, ?, ?)"
_TABLES = """
    CREATE TABLE receipt (delivery TEXT, party TEXT, digest TEXT, place TEXT, seen INTEGER DEFAULT 0);
    CREATE INDEX by_delivery ON receipt (delivery);
"""


class Difference(NamedTuple):
    """One difference: its *kind* of `KINDS`, the *delivery*, whom the ledger and the receipt name, the
    ledger's *entry*, and where the receipt stands.
    """

    kind: str
    delivery: str
    released_to: str
    received_by: str
    entry: int | None
    place: str


@dataclass(slots=True)
class Reconciled:
    """What comparing came to, *differences* apart: how many releases and receipts there were, how many agree,
    and how many are still on their way.
    """

    released: int = 0
    receipts: int = 0
    agreed: int = 0
    waiting: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    parties: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """For a program."""
        return {
            "released": self.released,
            "receipts": self.receipts,
            "agreed": self.agreed,
            "on_their_way": self.waiting,
            "parties": self.parties,
            "differences": {kind: self.kinds[kind] for kind in KINDS if self.kinds[kind]},
        }


def reconcile(
    hub: Hub,
    receipts: Iterable[Path],
    start: int,
    stop: int,
    tell: Callable[[Difference], None],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Reconciled:
    """Compares the releases in the entries from *start* up to *stop* with *receipts* (files), and *tell*s
    each difference as it is found. Only parties that handed in receipts are asked what they did not receive.

    Raises `InvalidMessage`, naming file, row and column, for a receipt that cannot be read.
    """
    found = Reconciled()

    def say(*difference: Any) -> None:
        one = Difference(*difference)
        found.kinds[one.kind] += 1
        tell(one)

    with (
        # Ids of deliveries and parties only; gone when the comparison is done.
        tempfile.TemporaryDirectory(prefix="isr-hub-") as folder,
        closing(sqlite3.connect(Path(folder) / "receipts.db", isolation_level=None)) as table,
    ):
        table.execute("PRAGMA synchronous = OFF")
        table.executescript(_TABLES)
        for path in receipts:
            found.receipts += _load(table, path)
        found.parties = [row[0] for row in table.execute("SELECT DISTINCT party FROM receipt ORDER BY 1")]
        for part in _releases(hub, start, stop):
            _compare(hub, table, part, found, say)
            progress(part[-1].index - start + 1, stop - start)
        _unexpected(hub, table, start, stop, say)
    return found


def _releases(hub: Hub, start: int, stop: int) -> Iterator[list[queries.Row]]:
    part: list[queries.Row] = []
    for row in queries.between(hub.engine, start, stop):
        if row.body["kind"] == DISCLOSURE:
            part.append(row)
            if len(part) == _BATCH:
                yield part
                part = []
    if part:
        yield part


def _compare(
    hub: Hub,
    table: sqlite3.Connection,
    part: list[queries.Row],
    found: Reconciled,
    say: Callable[..., None],
) -> None:
    ids = [row.body["disclosure"] for row in part]
    after = queries.afterwards(hub.engine, ids)
    marks = ",".join("?" * len(ids))
    received: dict[str, list[tuple[str, str, str]]] = {}
    rows = table.execute(
        f"SELECT delivery, party, digest, place FROM receipt WHERE delivery IN ({marks}) ORDER BY rowid",  # noqa: S608
        ids,
    )
    for delivery, *receipt in rows:
        received.setdefault(delivery, []).append((receipt[0], receipt[1], receipt[2]))
    table.execute(f"UPDATE receipt SET seen = 1 WHERE delivery IN ({marks})", ids)  # noqa: S608
    for row in part:
        said = row.body
        found.released += 1
        outcome, content = "", said["content"]
        for later in after.get(said["disclosure"], ()):
            if later.body["kind"] == DELIVERY:
                outcome = later.body["outcome"]
            elif later.body["kind"] == STOPPED:
                outcome = STOPPED
            content = later.body.get("content", content)  # narrowed: less left than was decided first
        _one(row, outcome, content, received.get(said["disclosure"], []), found, say)


def _one(
    row: queries.Row,
    outcome: str,
    content: str,
    receipts: list[tuple[str, str, str]],
    found: Reconciled,
    say: Callable[..., None],
) -> None:
    """Compares one release of *content* (committed), whose delivery came to *outcome* ("" while it is on its
    way), with its receipts.
    """
    delivery, party = row.body["disclosure"], row.body["party"]
    mine = [receipt for receipt in receipts if receipt[0] == party]
    for other, _, place in receipts:
        if other != party:
            say("received-by-other", delivery, party, other, row.index, place)
    if not mine:
        if outcome == "delivered" and party in found.parties:
            say("released-not-received", delivery, party, "", row.index, "")
        found.waiting += outcome == ""
        return
    place = mine[0][2]
    wrong = [
        kind
        for kind, is_so in (
            ("digest-differs", any(d and d != content for _, d, _ in mine)),
            ("stopped-yet-received", outcome == STOPPED),
            ("refused-yet-received", outcome not in ("", "delivered", STOPPED)),
            ("received-not-recorded", outcome == ""),
            ("received-twice", len({d for _, d, _ in mine}) > 1),
        )
        if is_so
    ]
    for kind in wrong:
        say(kind, delivery, party, party, row.index, place)
    found.agreed += not wrong and len(receipts) == len(mine)


def _unexpected(hub: Hub, table: sqlite3.Connection, start: int, stop: int, say: Callable[..., None]) -> None:
    """Receipts of what was not released in the period: a difference, unless it was released outside it."""
    rows = table.execute("SELECT delivery, party, place FROM receipt WHERE seen = 0 ORDER BY rowid")
    while part := rows.fetchmany(_BATCH):
        ended = queries.deliveries_of(hub.engine, sorted({delivery for delivery, _, _ in part}))
        for delivery, party, place in part:
            end = ended.get(delivery)
            if end is None:
                say("received-not-released", delivery, "", party, None, place)
            elif not start <= end.body["disclosure"] < stop and end.body["party"] != party:
                say("received-by-other", delivery, end.body["party"], party, end.body["disclosure"], place)


def _load(table: sqlite3.Connection, path: Path) -> int:
    count, batch = 0, []
    table.execute("BEGIN")
    for place, row in _rows(path):
        batch.append((row["delivery"], row["party"], row["digest"], place))
        if len(batch) == _BATCH:
            table.executemany(_INSERT, batch)
            count, batch = count + len(batch), []
    table.executemany(_INSERT, batch)
    table.execute("COMMIT")
    return count + len(batch)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each receipt of *path* with where it stands."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.read(1)
            file.seek(0)
            is_json = first == "{" or path.suffix in (".ndjson", ".jsonl")
            yield from _ndjson(path.name, file) if is_json else _csv(path.name, file)
    except UnicodeDecodeError:
        raise _unreadable(path.name, "is not UTF-8 text", "save it as UTF-8") from None
    except OSError:
        raise _unreadable(path.name, "cannot be read", "name a file of receipts") from None
    except csv.Error:
        raise _unreadable(path.name, "is not CSV", "quote values with commas or line breaks") from None


def _csv(name: str, file: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    rows = csv.reader(_short(name, file), strict=True)
    heading = [column.strip().lower() for column in next(rows, [])]
    if missing := [column for column in _NEEDED if column not in heading]:
        raise _unreadable(
            f"{name} row 1", "lacks the column " + ", ".join(missing), "write " + ",".join(_COLUMNS)
        )
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        place = f"{name} row {number}"
        if len(row) != len(heading):
            raise _unreadable(place, "has another number of columns than the heading", "mend the row")
        yield place, _checked(place, dict(zip(heading, row, strict=True)))


def _ndjson(name: str, file: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(_short(name, file), 1):
        if not line.strip():
            continue
        place = f"{name} row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise _unreadable(place, "is not a JSON object", "write one object a line")
        yield place, _checked(place, row)


def _short(name: str, file: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if len(line) > _MAX_LINE:
            raise _unreadable(f"{name} row {number}", "is too long", "one receipt a line")
        yield line


def _checked(place: str, row: Mapping[str, Any]) -> dict[str, str]:
    """The receipt in *row*, every value of it checked. Values are never repeated."""
    receipt = {}
    for column in _COLUMNS:
        value = row.get(column) or ""
        if not isinstance(value, str) or len(value) > 200 or (not value.strip() and column in _NEEDED):
            raise _unreadable(f"{place}, column {column}", "is missing or no text", "give it")
        receipt[column] = value.strip()
    try:
        instant_of(receipt["time"])
    except ValueError:
        raise _unreadable(
            f"{place}, column time", "is not a time with offset", "write 2026-11-22T09:30:00+13:00"
        ) from None
    receipt["digest"] = receipt["digest"].lower()
    if receipt["digest"] and not _DIGEST.fullmatch(receipt["digest"]):
        raise _unreadable(f"{place}, column digest", "is not SHA-256 in hex", "64 digits, or leave it empty")
    return receipt


def _unreadable(place: str, detail: str, fix: str) -> InvalidMessage:
    return InvalidMessage("the receipts cannot be read", Problem(place, detail, fix))
