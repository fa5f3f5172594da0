"""The whole hub, checked from its disk: what must hold at every instant, and what must hold once it is idle.

Every check returns what is wrong, as sentences; an empty list is a hub that kept its promises. The checks
read the tables and the agencies' folders, and ask nothing of the code that wrote them.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from broker.broker import SUBMISSIONS, deliveries_to
from broker.embedded import dead_letter, queue_message
from broker.outbox import inbox, outbox, outbox_watermark
from consent.case import Case
from consent.entry import DECISION_KINDS
from consent.ledger import ledger_checkpoint, ledger_entry
from consent.placing import case_table
from consent.verify import verify
from gateway.hub import Hub
from gateway.settings import Settings
from schemas.database import open_database

Key = tuple[str, str]  # source, id


@dataclass(frozen=True, slots=True)
class Disk:
    """A hub's database and folders as a crash left them. Read beside the hub, or without any."""

    entries: list[dict[str, Any]]
    signed: int  # entries under the newest checkpoint
    first_checkpoint: str
    taken: set[Key]
    queued: list[tuple[str, dict[str, Any], bytes]]  # queue, headers, body
    letters: list[tuple[str, dict[str, Any], dict[str, Any]]]  # queue, headers, error
    unpublished: list[int]  # ledger indices of releases that wait in the outbox
    files: Counter[Key]  # party, disclosure
    parts: int  # half-written files

    @classmethod
    def read(cls, data: Path) -> "Disk":
        """The hub in the folder *data*, as far as it was committed."""
        engine = open_database(Settings(data=data).database)
        try:
            with engine.connect().execution_options(reading=True) as connection:
                return cls._read(connection, data / "agencies")
        finally:
            engine.dispose()

    @classmethod
    def _read(cls, connection: sa.Connection, agencies: Path) -> "Disk":
        def rows(*columns: Any, by: Any) -> Iterable[Any]:
            return connection.execute(sa.select(*columns).order_by(by))

        entries = [json.loads(row.entry) for row in rows(ledger_entry.c.entry, by=ledger_entry.c.idx)]
        checkpoints = list(rows(*ledger_checkpoint.c, by=ledger_checkpoint.c.size))
        watermark = connection.execute(sa.select(sa.func.max(outbox_watermark.c.published))).scalar()
        queued = rows(*queue_message.c, by=queue_message.c.seq)
        letters = rows(*dead_letter.c, by=dead_letter.c.number)
        files = Counter(
            (file.parts[-3], file.name.partition(".")[0])
            for file in agencies.glob("*/received/*")
            if file.name.count(".") == 1  # more dots: a companion
        )
        return cls(
            entries,
            checkpoints[-1].size if checkpoints else 0,
            checkpoints[0].note if checkpoints else "",
            {(row.source, row.message) for row in rows(inbox, by=inbox.c.at)},
            [(row.queue, json.loads(row.headers), bytes(row.body)) for row in queued],
            [(row.queue, json.loads(row.headers), json.loads(row.error)) for row in letters],
            [
                row.number
                for row in rows(outbox.c.number, by=outbox.c.number)
                if row.number > (-1 if watermark is None else watermark)
            ],
            files,
            sum(1 for _ in agencies.glob("*/parts/*")),
        )

    def disclosures(self) -> dict[Key, int]:
        """(party, disclosure) → index of its entry."""
        return {
            (entry["party"], entry["disclosure"]): index
            for index, entry in enumerate(self.entries)
            if entry["kind"] == "disclosure"
        }


def releases(disk: Disk) -> list[str]:
    """What has left, or is about to, without an entry of its own under a signed checkpoint. Must be empty at
    every instant, the one after a crash included."""
    known = disk.disclosures()
    out: list[tuple[str, Key]] = [("file", key) for key in disk.files]
    for queue, headers, *_ in (*disk.queued, *disk.letters):
        if queue.startswith(deliveries_to("")):
            out.append(("queued release", (queue.removeprefix(deliveries_to("")), headers["id"])))
            if known.get(out[-1][1]) != int(headers["entry"]):
                out.append(("entry number", (out[-1][1][0], "")))
    wrong = [f"a {what} for {party} has no entry" for what, (party, _) in _without(out, known)]
    wrong += [
        f"a {what} for {key[0]} has an entry that is not signed"
        for what, key in out
        if key in known and known[key] >= disk.signed
    ]
    for entry in disk.entries:
        if entry["kind"] == "delivery" and (entry["party"], entry["message"]) not in known:
            wrong.append(f"a delivery to {entry['party']} is recorded that was never decided")
    return wrong


def _without(out: Iterable[tuple[str, Key]], known: Collection[Key]) -> Iterator[tuple[str, Key]]:
    return ((what, key) for what, key in out if key not in known)


def unpublished(disk: Disk) -> list[str]:
    """Whether releases wait in the outbox. None must, when there is nothing left to carry: only what is
    carried next would move them."""
    return [f"{len(disk.unpublished)} releases wait in the outbox"] if disk.unpublished else []


def stuck(disk: Disk) -> list[str]:
    """What waits where nothing will move it. Must be empty when the hub has nothing left to do."""
    depths = Counter(queue for queue, *_ in disk.queued)
    waiting = [f"{depth} messages wait in {queue}" for queue, depth in sorted(depths.items())]
    return unpublished(disk) + waiting


def settled(hub: Hub, accepted: Collection[Key], letters: Collection[tuple[str, str]]) -> list[str]:
    """Everything wrong with an idle *hub* whose senders were told that *accepted* (source, id) were accepted,
    and which may have set messages aside as *letters* (queue, code of the error) say."""
    disk = Disk.read(hub.settings.data)
    return [
        *releases(disk),
        *stuck(disk),
        *_carried_once(disk, accepted),
        *_decided_once(hub, disk),
        *_delivered_once(disk),
        *(
            f"a dead letter {error['code']} in {queue}"
            for queue, _, error in disk.letters
            if (queue, error["code"]) not in letters
        ),
        *_proved(hub, disk),
    ]


def _carried_once(disk: Disk, accepted: Collection[Key]) -> list[str]:
    # The inbox cannot hold a message twice: its key forbids it.
    aside = {(headers["source"], headers["id"]) for queue, headers, _ in disk.letters if queue == SUBMISSIONS}
    lost = set(accepted) - disk.taken - aside
    wrong = [f"{len(lost)} accepted submissions are lost"] if lost else []
    # What the hub says itself nobody submits.
    decided = {
        (e["source"], e["message"])
        for e in disk.entries
        if e["kind"] in DECISION_KINDS and e["source"] != "hub"
    }
    if undecided := disk.taken - decided:
        wrong.append(f"{len(undecided)} submissions were taken and nothing was decided")
    if strange := decided - disk.taken:
        wrong.append(f"{len(strange)} messages were decided that nobody submitted")
    return wrong


def _decided_once(hub: Hub, disk: Disk) -> list[str]:
    with hub.engine.connect() as connection:
        rows = connection.execute(sa.select(case_table.c.id, case_table.c.facts))
        sites = {row.id: Case.from_json(row.id, json.loads(row.facts)).site for row in rows}
    decisions: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for entry in disk.entries:
        if entry["kind"] in DECISION_KINDS:
            decisions[entry["source"], entry["message"]].append(entry)
    wrong = []
    for (source, _), entries in decisions.items():
        parties = Counter(entry["party"] for entry in entries)
        if hub.catalogue[entries[0]["type"]].audience == "addressee":
            expected = {next(iter(parties))}
        else:
            places = frozenset(sites[case] for case in entries[0]["cases"])
            expected = {party.id for party in hub.agreements.candidates(places, source)}
        if set(parties) != expected:
            wrong.append(f"a submission of {source} was not decided for exactly its candidates")
        if max(parties.values()) > 1:
            wrong.append(f"a submission of {source} was decided twice for one party")
    return wrong


def _delivered_once(disk: Disk) -> list[str]:
    known = disk.disclosures()
    delivered = Counter(
        (entry["party"], entry["message"], entry["disclosure"])
        for entry in disk.entries
        if entry["kind"] == "delivery" and entry["outcome"] == "delivered"
    )
    wrong = []
    for key, index in known.items():
        if (files := disk.files[key]) != 1:
            wrong.append(f"a disclosure to {key[0]} lies there as {files} files")
        if (times := delivered[*key, index]) != 1:
            wrong.append(f"a disclosure to {key[0]} was recorded as delivered {times} times")
    if disk.parts:
        wrong.append(f"{disk.parts} half-written files are left")
    return wrong


def _proved(hub: Hub, disk: Disk) -> list[str]:
    report = verify(hub.settings.data, str(hub.settings.data / "ledger.vkey"), disk.first_checkpoint)
    wrong = [f"ledger: {finding.place}: {finding.detail}" for finding in report.findings]
    if report.unsigned:
        wrong.append(f"{report.unsigned} entries are not signed")
    return wrong
