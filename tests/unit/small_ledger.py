"""A small ledger as its verifier reads it."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consent.ledger import Entry, Ledger, Signer, ledger_checkpoint, ledger_entry, ledger_head, ledger_tile
from consent.report import Report
from schemas.database import metadata, open_database

ORIGIN = "isr.test/ledger"
SIGNER = Signer(ORIGIN, bytes(range(32)))
KEY = SIGNER.vkey()
SIZE = 600  # two full tiles and a partial one
BATCH = 100
UNSIGNED = 7


def entry(number: int, kind: str = "disclosure", **more: Any) -> Entry:
    body = {
        "kind": kind,
        "at": "2026-11-22T00:00:00.000Z",
        "source": "police",
        "message": f"m{number}",
        "party": f"ngo.āwhina#{number % 3}",
        **({"disclosure": f"d{number}"} if kind == "disclosure" else {}),
        **more,
    }
    return Entry(kind, body["source"], body["message"], body["party"], body)


def delivery(number: int, disclosure: int, **more: Any) -> Entry:
    said = {"source": "hub", "message": f"d{number}", "party": f"ngo.āwhina#{number % 3}", **more}
    return entry(number, "delivery", disclosure=disclosure, **said)


def grow(folder: Path, entries: list[Entry], *, sign: bool = True) -> Ledger:
    """Appends *entries* in batches to the ledger in *folder*."""
    engine = open_database(f"sqlite:///{folder / 'hub.db'}")
    metadata.create_all(engine, tables=[ledger_entry, ledger_tile, ledger_head, ledger_checkpoint])
    ledger = Ledger(engine, SIGNER, ORIGIN, lambda: datetime(2026, 11, 22, tzinfo=UTC))
    ledger.start()
    for at in range(0, len(entries), BATCH):
        with engine.begin() as connection:
            ledger.append(connection, entries[at : at + BATCH])
        if sign:
            ledger.sign()
    engine.dispose()
    return ledger


def make(folder: Path) -> Path:
    """A sound ledger of every kind of entry in *folder*, its export, and the newest checkpoint kept aside."""
    disclosures = SIZE // 2
    entries = [entry(i) for i in range(disclosures)]
    entries += [entry(1000 + i, "refusal") for i in range(SIZE - 2 * disclosures + 100)]
    entries += [delivery(i, i) for i in range(SIZE - len(entries))]
    ledger = grow(folder, entries)
    ledger.export(folder / "out")
    (folder / "kept").write_text(ledger.sign().note)
    grow(folder, [entry(2000 + i, "referral") for i in range(UNSIGNED)], sign=False)
    return folder


def run(folder: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(folder / "hub.db") as connection:
        assert connection.execute(statement, values).rowcount != 0
    connection.close()


def places(report: Report) -> set[str]:
    assert report.ok == (not report.findings)
    return {finding.place for finding in report.findings}
