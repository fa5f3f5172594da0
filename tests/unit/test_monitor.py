"""The monitor walks the whole ledger, keeps its cursor only behind what it checked, and shouts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from consent import monitor
from consent.ledger import Ledger, Signer, ledger_checkpoint, ledger_entry, ledger_head, ledger_tile
from consent.merkle import ProofError, leaf_hash
from consent.monitor import Alarm, Seen, watch
from consent.note import COSIGNATURE_V1, Checkpoint
from consent.quorum import Quorum
from consent.tiles import read_bundle, write_bundle
from schemas.clock import utc_now
from schemas.database import metadata, open_database
from tests.unit.test_ledger import entry

ORIGIN = "isr.test/ledger"
LOG = Signer(ORIGIN, bytes(range(32)))
WITNESS = Signer("witness.test", bytes(range(2, 34)), COSIGNATURE_V1)
NOW = 1_790_000_000
SIZE = 300
BIG = 70_000  # more than one full tile of level 1
TABLES = [ledger_entry, ledger_tile, ledger_head, ledger_checkpoint]


def grow(folder: Path, count: int, signer: Signer = LOG, salt: int = 0) -> Path:
    """Appends *count* entries to the ledger in *folder*, exports it, and returns the export."""
    folder.mkdir(exist_ok=True)
    engine = open_database(f"sqlite:///{folder / 'hub.db'}")
    metadata.create_all(engine, tables=TABLES)
    ledger = Ledger(engine, signer, ORIGIN, utc_now)
    ledger.start()
    start = ledger.head().size
    for at in range(start, start + count, 7_000):
        with engine.begin() as connection:
            ledger.append(connection, [entry(salt + i) for i in range(at, min(at + 7_000, start + count))])
    ledger.export(folder / "out")
    engine.dispose()
    return folder / "out"


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grow(tmp_path_factory.mktemp("big"), BIG)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def stored(kept: Path) -> Seen:
    return Seen(**json.loads(kept.read_text()))


def shouts(kind: str, target: Path, kept: Path, now: int = NOW) -> str:
    with pytest.raises(Alarm) as raised:
        watch(target, LOG.vkey(), kept, now)
    assert raised.value.kind == kind, raised.value
    return str(raised.value)


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_monitor_checks_a_ledger_and_what_is_added_to_it(tmp_path: Path, kept: Path) -> None:
    export = grow(tmp_path / "log", SIZE)
    first = watch(export, LOG.vkey(), kept, NOW)
    assert (first.checked, first.since) == (SIZE, NOW)
    assert stored(kept) == first
    assert watch(export, LOG.vkey(), kept, NOW + 5) == first
    grow(tmp_path / "log", 1)
    told: list[tuple[int, int]] = []
    then = watch(
        tmp_path / "log", LOG.vkey(), kept, NOW + 9, progress=lambda done, total: told.append((done, total))
    )
    assert (then.checked, then.since) == (SIZE + 1, NOW + 9)
    assert told == []  # only the block at the end was read again


@pytest.mark.parametrize(
    "name", ["tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1", "tile/0/100", "tile/entries/200"]
)
def test_monitor_shouts_at_any_flipped_byte_and_keeps_no_cursor_beyond_it(
    big: Path, tmp_path: Path, kept: Path, name: str
) -> None:
    shutil.copytree(big, tmp_path / "copy")
    damage(tmp_path / "copy" / name, flipped(20))
    with pytest.raises(Alarm) as raised:
        watch(tmp_path / "copy", LOG.vkey(), kept, NOW)
    assert raised.value.kind in {"changed", "fork"}
    block = {"tile/0/100": 100, "tile/entries/200": 200}.get(name, 0)
    assert (stored(kept).checked if kept.exists() else 0) <= block * 256
    assert watch(big, LOG.vkey(), kept, NOW).checked == BIG  # goes on from there on a sound copy


def test_monitor_goes_on_where_it_was_interrupted(
    big: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole = monitor._Walk._leaves

    def leaves(self: monitor._Walk, number: int, width: int) -> list[bytes]:
        read.append(number)
        if len(read) == 150:
            raise KeyboardInterrupt
        return whole(self, number, width)

    monkeypatch.setattr(monitor._Walk, "_leaves", leaves)
    with pytest.raises(KeyboardInterrupt):
        watch(big, LOG.vkey(), kept, NOW)
    assert stored(kept).checked == 128 * 256
    assert watch(big, LOG.vkey(), kept, NOW).checked == BIG
    assert sorted(set(read)) == list(range(BIG // 256 + 1))
    assert read.count(5) == 1


@pytest.mark.parametrize("name", ["tile/1/000", "tile/0/100", "tile/entries/200", "tile/2/000.p/1"])
def test_monitor_shouts_at_a_gap(big: Path, tmp_path: Path, kept: Path, name: str) -> None:
    shutil.copytree(big, tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    shouts("gap", tmp_path / "copy", kept)


def test_monitor_shouts_at_an_entry_that_is_missing_from_its_bundle(tmp_path: Path, kept: Path) -> None:
    export = grow(tmp_path / "log", SIZE)
    damage(export / "tile/entries/000", lambda data: write_bundle(read_bundle(data)[:-1]))
    assert "entry 255" in shouts("gap", export, kept)


def test_monitor_shouts_at_two_entries_that_were_swapped(tmp_path: Path, kept: Path) -> None:
    export = grow(tmp_path / "log", SIZE)

    def swap(data: bytes) -> bytes:
        entries = read_bundle(data)
        return write_bundle([entries[1], entries[0], *entries[2:]])

    damage(export / "tile/entries/000", swap)
    leaves = [leaf_hash(item) for item in read_bundle((export / "tile/entries/000").read_bytes())]
    (export / "tile/0/000").write_bytes(b"".join(leaves))  # made to fit
    assert "entries 0 to 255" in shouts("changed", export, kept)


def test_monitor_shouts_at_a_ledger_that_shrank(tmp_path: Path, kept: Path) -> None:
    """An older backup, honestly signed: every other reader finds it sound."""
    export = grow(tmp_path / "log", SIZE)
    shutil.copytree(export, tmp_path / "older")
    grow(tmp_path / "log", 5)
    watch(export, LOG.vkey(), kept, NOW)
    before = kept.read_text()
    assert f"{SIZE + 5}" in shouts("shrink", tmp_path / "older", kept)
    assert kept.read_text() == before


@pytest.mark.parametrize("size", [SIZE, SIZE + 80])
def test_monitor_shouts_at_a_fork_signed_with_the_true_key(tmp_path: Path, kept: Path, size: int) -> None:
    watch(grow(tmp_path / "log", SIZE), LOG.vkey(), kept, NOW)
    shouts("fork", grow(tmp_path / "fork", size, salt=10_000), kept)


def test_monitor_shouts_at_a_checkpoint_of_another_key(tmp_path: Path, kept: Path) -> None:
    thief = Signer(ORIGIN, bytes(range(9, 41)))
    shouts("unsigned", grow(tmp_path / "log", 3, thief), kept)
    assert not kept.exists()


def test_monitor_shouts_at_a_stale_checkpoint(tmp_path: Path, kept: Path) -> None:
    export = grow(tmp_path / "log", 3)
    watch(export, LOG.vkey(), kept, NOW)
    watch(export, LOG.vkey(), kept, NOW + monitor.STALE_SECONDS)
    shouts("stale", export, kept, NOW + monitor.STALE_SECONDS + 60)


def test_monitor_takes_the_age_of_a_checkpoint_from_its_witness(tmp_path: Path, kept: Path) -> None:
    export = grow(tmp_path / "log", 3)

    def asked(now: int) -> Seen:
        return watch(export, LOG.vkey(), kept, now, witnesses=[WITNESS.key])

    with pytest.raises(Alarm, match="has not cosigned"):
        asked(NOW)
    checkpoint = Checkpoint.from_note((export / "checkpoint").read_text())
    (export / "checkpoint").write_text(checkpoint.note + WITNESS.sign(checkpoint.text(), NOW))
    asked(NOW + 60)
    with pytest.raises(Alarm) as raised:
        asked(NOW + monitor.STALE_SECONDS + 60)
    assert raised.value.kind == "stale"


def test_monitor_refuses_a_state_that_it_did_not_write(tmp_path: Path, kept: Path) -> None:
    export = grow(tmp_path / "log", 3)
    for text in ("", "[]", '{"note": "", "checked": "x", "since": 0}'):
        kept.write_text(text)
        with pytest.raises(ProofError, match="state"):
            watch(export, LOG.vkey(), kept, NOW)


def test_monitor_of_an_empty_ledger_sees_what_comes(tmp_path: Path, kept: Path) -> None:
    assert watch(grow(tmp_path / "log", 0), LOG.vkey(), kept, NOW).checked == 0
    assert watch(grow(tmp_path / "log", 3), LOG.vkey(), kept, NOW).checked == 3


def test_monitor_reads_the_database_of_a_hub_too(tmp_path: Path, kept: Path) -> None:
    grow(tmp_path / "log", SIZE)
    assert watch(tmp_path / "log", LOG.vkey(), kept, NOW).checked == SIZE
    engine = open_database(f"sqlite:///{tmp_path / 'log/hub.db'}")
    with engine.begin() as connection:
        connection.execute(sa.update(ledger_entry).where(ledger_entry.c.idx == 7).values(entry=b"{}"))
    engine.dispose()
    kept.unlink()
    assert "entry 7" in shouts("changed", tmp_path / "log", kept)


@pytest.mark.parametrize("size", [10**6, 2**40, 2**63 - 1])
def test_monitor_shouts_at_a_checkpoint_of_an_absurd_size(tmp_path: Path, kept: Path, size: int) -> None:
    export = grow(tmp_path / "log", SIZE)
    (export / "checkpoint").write_text(Checkpoint(ORIGIN, size, bytes(32)).signed_by(LOG).note)
    shouts("gap", export, kept)


def test_monitor_demands_the_quorum_of_a_policy(tmp_path: Path, kept: Path) -> None:
    export = grow(tmp_path / "log", 3)
    other = Signer("other.test", bytes(range(3, 35)), COSIGNATURE_V1)
    lines = [f"witness a {WITNESS.vkey()}", f"witness b {other.vkey()}", "group both all a b", "quorum both"]
    policy = Quorum.parse("\n".join(lines))
    checkpoint = Checkpoint.from_note((export / "checkpoint").read_text())
    for signer in (WITNESS, other):
        with pytest.raises(Alarm, match="too few"):
            watch(export, LOG.vkey(), kept, NOW, quorum=policy)
        with (export / "checkpoint").open("a") as file:
            file.write(signer.sign(checkpoint.text(), NOW))
    assert watch(export, LOG.vkey(), kept, NOW, quorum=policy).checked == 3
