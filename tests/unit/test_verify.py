"""The outsider's verifier: a sound ledger passes, and whoever changes one says where by doing so.

The attacker here has the database and every file, and not the signing key, unless a test says so.
"""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent.copies import DatabaseCopy, NothingToVerify
from consent.ledger import Entry, Ledger, Signer
from consent.merkle import leaf_hash
from consent.note import Checkpoint
from consent.tiles import Edge, bundle_path, read_bundle, tile_path, write_bundle
from consent.verify import verify
from schemas.database import open_database
from tests.unit.small_ledger import (
    BATCH,
    KEY,
    ORIGIN,
    SIGNER,
    SIZE,
    UNSIGNED,
    delivery,
    entry,
    grow,
    make,
    places,
    run,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound ledger that a test may damage."""
    shutil.copytree(sound, tmp_path / "copy")
    return tmp_path / "copy"


def rewrite(folder: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """What an attacker with the whole database does: changes entries, then makes leaves, tiles and head
    fit.
    """
    with sqlite3.connect(folder / "hub.db") as connection:
        rows = connection.execute("SELECT * FROM ledger_entry ORDER BY idx").fetchall()
        columns = {row[2]: row[3:] for row in rows}
        entries = change([row[2] for row in rows])
        edge = Edge()
        tiles = edge.extend([leaf_hash(data) for data in entries])
        connection.execute("DELETE FROM ledger_entry")
        connection.execute("DROP INDEX uq_ledger_entry_decision")
        connection.executemany(
            "INSERT INTO ledger_entry VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(i, leaf_hash(data), data, *_filed(data, columns)) for i, data in enumerate(entries)],
        )
        connection.execute("DELETE FROM ledger_tile")
        connection.executemany(
            "INSERT INTO ledger_tile VALUES (?, ?, ?)",
            [(level, n, hashes) for (level, n), hashes in tiles.items() if level or len(hashes) == 8192],
        )
        connection.execute(
            "UPDATE ledger_head SET size = ?, frontier = ?, root = ?",
            (edge.size, b"".join(edge.frontier()), edge.root()),
        )
    connection.close()


def _filed(data: bytes, columns: dict[bytes, tuple[str, ...]]) -> tuple[str, ...]:
    if data in columns:
        return columns[data]
    body = json.loads(data)
    return body["source"], body["message"], body["party"], body["kind"]


def test_sound_database_verifies(sound: Path) -> None:
    told: list[tuple[int, int]] = []
    report = verify(sound, KEY, progress=lambda done, total: told.append((done, total)))
    assert places(report) == set()
    assert (report.size, report.signed, report.unsigned) == (SIZE + UNSIGNED, SIZE, UNSIGNED)
    assert report.origin == ORIGIN
    assert report.checkpoints == SIZE // BATCH
    assert report.kinds == {"disclosure": 300, "refusal": 100, "delivery": 200, "referral": UNSIGNED}
    assert told == [(256, 607), (512, 607), (607, 607)]
    assert places(verify(sound / "hub.db", KEY)) == set()


def test_sound_export_verifies_and_continues_an_older_checkpoint(sound: Path) -> None:
    report = verify(sound / "out", KEY, str(sound / "kept"))
    assert places(report) == set()
    assert (report.size, report.signed, report.checkpoints) == (SIZE, SIZE, 1)
    assert report.root == verify(sound, KEY, (sound / "kept").read_text()).root


def test_empty_ledger_verifies(tmp_path: Path) -> None:
    ledger = grow(tmp_path, [])
    assert places(verify(tmp_path, KEY)) == set()
    ledger.export(tmp_path / "out")
    report = verify(tmp_path / "out", KEY)
    assert places(report) == set()
    assert (report.size, report.checkpoints) == (0, 1)


def test_key_is_taken_from_a_file(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "ledger.vkey").write_text(f"{KEY}\n")
    assert verify(sound, str(tmp_path / "ledger.vkey")).ok


def test_another_key_verifies_nothing(sound: Path) -> None:
    other = Signer(ORIGIN, bytes(32)).vkey()
    report = verify(sound, other)
    assert not report.ok
    assert report.signed == 0
    assert "ledger" in places(report)
    assert not verify(sound / "out", other).ok


def test_database_that_a_hub_is_writing_to_is_read_as_one_snapshot(copy: Path) -> None:
    engine = open_database(f"sqlite:///{copy / 'hub.db'}")
    ledger = Ledger(engine, SIGNER, ORIGIN, lambda: datetime(2026, 11, 22, tzinfo=UTC))
    with engine.begin() as connection:
        ledger.append(connection, [entry(3000)])
        report = verify(copy, KEY)
    assert report.ok
    assert report.size == SIZE + UNSIGNED

    def append_more(done: int, total: int) -> None:
        with engine.begin() as connection:
            ledger.append(connection, [entry(4000 + done)])
        ledger.sign()

    report = verify(copy, KEY, progress=append_more)
    engine.dispose()
    assert report.ok
    assert report.size == SIZE + UNSIGNED + 1


def test_copy_of_a_database_does_not_see_what_is_appended_after_it_was_opened(copy: Path) -> None:
    with contextlib.closing(DatabaseCopy(copy / "hub.db")) as opened:
        grow(copy, [entry(3000 + i) for i in range(5)])
        assert opened.held() == SIZE + UNSIGNED
        assert opened.beyond(SIZE + UNSIGNED) == 0


def test_full_tile_of_a_higher_level_is_rebuilt_and_compared(tmp_path: Path) -> None:
    data = [entry(0, "note", row=i).encode() for i in range(256 * 256 + 1)]
    edge = Edge()
    tiles = edge.extend([leaf_hash(item) for item in data])
    for (level, number), hashes in tiles.items():
        width = len(hashes) // 32
        files = {tile_path(level, number, width): hashes}
        if level == 0:
            bundle = data[number * 256 : number * 256 + width]
            files[bundle_path(number, width)] = write_bundle(bundle)
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    (tmp_path / "checkpoint").write_text(Checkpoint(ORIGIN, len(data), edge.root()).signed_by(SIGNER).note)
    assert places(verify(tmp_path, KEY)) == set()
    (tmp_path / "tile/1/000").write_bytes(bytes(32) + tiles[1, 0][32:])
    assert places(verify(tmp_path, KEY)) == {"tile 1/0"}


@pytest.mark.parametrize("index", [0, 255, 256, 511, SIZE - 1, SIZE + UNSIGNED - 1])
def test_flipped_byte_in_a_database_names_the_entry(copy: Path, index: int) -> None:
    run(copy, "UPDATE ledger_entry SET entry = CAST(replace(entry, '2026', '2027') AS BLOB)"
        " || CAST('' AS BLOB) WHERE idx = ?", index)  # fmt: skip
    report = verify(copy, KEY)
    assert places(report) == {f"entry {index}"}


def test_entry_replaced_together_with_its_leaf_is_still_named(copy: Path) -> None:
    data = b'{"kind":"refusal"}'
    run(copy, "UPDATE ledger_entry SET entry = ?, leaf = ? WHERE idx = 17", data, leaf_hash(data))
    assert places(verify(copy, KEY)) >= {"entry 17"}


def test_changed_leaf_is_named(copy: Path) -> None:
    run(copy, "UPDATE ledger_entry SET leaf = ? WHERE idx = 300", bytes(32))
    assert places(verify(copy, KEY)) == {"entry 300"}


@pytest.mark.parametrize("number", [0, 1])
def test_changed_tile_names_the_entry_in_it(copy: Path, number: int) -> None:
    with sqlite3.connect(copy / "hub.db") as connection:
        (hashes,) = connection.execute(
            "SELECT hashes FROM ledger_tile WHERE level = 0 AND n = ?", (number,)
        ).fetchone()
    connection.close()
    changed = hashes[: 32 * 9] + bytes(32) + hashes[32 * 10 :]
    run(copy, "UPDATE ledger_tile SET hashes = ? WHERE level = 0 AND n = ?", changed, number)
    assert places(verify(copy, KEY)) == {f"entry {number * 256 + 9}"}


def test_changed_tile_of_a_higher_level_is_named(copy: Path) -> None:
    run(copy, "UPDATE ledger_tile SET hashes = ? WHERE level = 1", bytes(64))
    assert places(verify(copy, KEY)) == {"tile 1/0"}


def test_missing_tiles_are_named(copy: Path) -> None:
    run(copy, "DELETE FROM ledger_tile WHERE level = 1")
    assert places(verify(copy, KEY)) == {"tile 1/0"}
    run(copy, "DELETE FROM ledger_tile WHERE level = 0 AND n = 1")
    assert "entries 256 to 511" in places(verify(copy, KEY))


def test_dropped_entry_is_named(copy: Path) -> None:
    run(copy, "DELETE FROM ledger_entry WHERE idx = 40")
    assert places(verify(copy, KEY)) == {"entry 40"}


def test_dropped_end_is_noticed_against_the_head_and_the_checkpoint(copy: Path) -> None:
    run(copy, "DELETE FROM ledger_entry WHERE idx >= ?", SIZE - 10)
    report = verify(copy, KEY)
    assert "head" in places(report)
    assert report.signed == SIZE - BATCH


def test_swapped_entries_are_both_named(copy: Path) -> None:
    with sqlite3.connect(copy / "hub.db") as connection:
        rows = dict(connection.execute("SELECT idx, entry FROM ledger_entry WHERE idx IN (3, 4)").fetchall())
    connection.close()
    run(copy, "UPDATE ledger_entry SET entry = ? WHERE idx = 3", rows[4])
    run(copy, "UPDATE ledger_entry SET entry = ? WHERE idx = 4", rows[3])
    assert places(verify(copy, KEY)) == {"entry 3", "entry 4", "entry 403", "entry 404"}  # two deliveries


def test_entry_added_outside_the_head_is_noticed(copy: Path) -> None:
    run(copy, "INSERT INTO ledger_entry SELECT idx + 10000, leaf, entry, source, message, party, 'copy'"
        " FROM ledger_entry WHERE idx = 3")  # fmt: skip
    assert places(verify(copy, KEY)) == {"head"}
    run(copy, "UPDATE ledger_entry SET idx = -1 WHERE idx = 10003")
    assert places(verify(copy, KEY)) == {"head"}


@pytest.mark.parametrize(
    ("change", "first", "last"),
    [
        pytest.param(lambda e: [*e[:150], e[150].replace(b"2026", b"2027"), *e[151:]], 100, 199, id="flip"),
        pytest.param(lambda e: [*e[:150], *e[151:], e[0]], 100, 199, id="drop"),
        pytest.param(lambda e: [*e[:250], entry(9999).encode(), *e[250:-1]], 200, 299, id="insert"),
        pytest.param(lambda e: [*e[:2], e[3], e[2], *e[4:]], 0, 99, id="swap"),
        pytest.param(lambda e: e[::-1], 0, 99, id="reverse"),
    ],
)
def test_ledger_rewritten_without_the_key_is_noticed_by_its_checkpoints(
    copy: Path, change: Callable[[list[bytes]], list[bytes]], first: int, last: int
) -> None:
    rewrite(copy, change)
    report = verify(copy, KEY)
    found = {f.place: f.detail for f in report.findings}
    assert f"entries {first} to {last}" in found[f"checkpoint {last + 1}"]
    assert report.signed == first


def test_rewritten_and_no_checkpoint_left_is_noticed(copy: Path) -> None:
    rewrite(copy, lambda entries: entries[:-1])
    run(copy, "DELETE FROM ledger_checkpoint")
    assert places(verify(copy, KEY)) == {"ledger"}


def test_rolled_back_ledger_is_noticed_only_with_an_older_checkpoint(copy: Path) -> None:
    rewrite(copy, lambda entries: entries[:300])
    run(copy, "DELETE FROM ledger_checkpoint WHERE size > 300")
    assert "head" not in places(verify(copy, KEY))
    report = verify(copy, KEY, str(copy / "kept"))
    assert "older checkpoint" in places(report)
    assert any("cut off" in finding.detail for finding in report.findings)


def test_checkpoints_ahead_of_the_head_are_noticed(copy: Path) -> None:
    rewrite(copy, lambda entries: entries[:300])
    assert "head" in places(verify(copy, KEY))


def test_ledger_forked_with_the_key_is_noticed_with_an_older_checkpoint(tmp_path: Path, sound: Path) -> None:
    grow(tmp_path, [entry(i, "refusal") for i in range(SIZE + 50)])
    assert verify(tmp_path, KEY).ok
    report = verify(tmp_path, KEY, str(sound / "kept"))
    assert places(report) == {"older checkpoint"}
    assert "forked" in report.findings[0].detail


def test_forked_checkpoint_in_the_database_is_named(copy: Path) -> None:
    fork = Checkpoint(ORIGIN, 250, leaf_hash(b"fork")).signed_by(SIGNER)
    run(copy, "INSERT INTO ledger_checkpoint VALUES (250, ?)", fork.note)
    report = verify(copy, KEY)
    assert places(report) == {"checkpoint 250"}
    assert "forked" in report.findings[0].detail


@pytest.mark.parametrize("size", [100, SIZE])
def test_forged_checkpoint_is_named(copy: Path, size: int) -> None:
    run(copy, "UPDATE ledger_checkpoint SET note = replace(note, 'ledger', 'ledgex') WHERE size = ?", size)
    report = verify(copy, KEY)
    assert places(report) == {f"checkpoint {size}"}
    assert report.signed == (SIZE if size == 100 else SIZE - BATCH)


def test_checkpoint_filed_under_another_size_is_named(copy: Path) -> None:
    run(copy, "UPDATE ledger_checkpoint SET size = 123 WHERE size = 100")
    assert places(verify(copy, KEY)) == {"checkpoint 123"}


def test_checkpoint_of_another_log_of_the_same_key_is_refused(copy: Path) -> None:
    with sqlite3.connect(copy / "hub.db") as connection:
        (note,) = connection.execute("SELECT note FROM ledger_checkpoint WHERE size = 100").fetchone()
    connection.close()
    mine = Checkpoint.from_note(note)
    other = Checkpoint("isr.test/another", 100, mine.root).signed_by(SIGNER)
    run(copy, "UPDATE ledger_checkpoint SET note = ? WHERE size = 100", other.note)
    assert places(verify(copy, KEY)) == {"checkpoint 100"}


@pytest.mark.parametrize("column", ["source", "message", "party", "kind"])
def test_entry_filed_under_other_columns_is_named(copy: Path, column: str) -> None:
    run(copy, f"UPDATE ledger_entry SET {column} = 'elsewhere' WHERE idx = 5")
    assert places(verify(copy, KEY)) == {"entry 5"}


@pytest.mark.parametrize(
    "values",
    [
        {"size": SIZE - 1},
        {"size": 10**15},
        {"root": bytes(32)},
        {"size": "many"},
        {"root": "text"},
        {"size": -4},
    ],
)
def test_changed_head_is_noticed(copy: Path, values: dict[str, object]) -> None:
    (column, value), *_ = values.items()
    run(copy, f"UPDATE ledger_head SET {column} = ?", value)
    assert not verify(copy, KEY).ok


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        pytest.param([entry(1), entry(1, "refusal")], "entry 1", id="two decisions"),
        pytest.param([entry(1), delivery(1, 1)], "entry 1", id="delivery of itself"),
        pytest.param([entry(1), delivery(1, 7)], "entry 1", id="delivery of a later entry"),
        pytest.param([entry(1), delivery(1, -1)], "entry 1", id="delivery of a negative entry"),
        pytest.param([entry(1, "refusal"), delivery(1, 0)], "entry 1", id="delivery of a refusal"),
        pytest.param([entry(1), delivery(1, 0, party="ngo.other")], "entry 1", id="another party"),
        pytest.param([entry(1), delivery(1, 0, message="d9")], "entry 1", id="another id"),
        pytest.param([entry(1), delivery(1, True)], "entry 1", id="delivery of true"),
        pytest.param([entry(1), entry(1, "delivery")], "entry 1", id="delivery of nothing"),
    ],
)
def test_signed_entries_that_contradict_each_other_are_named(
    tmp_path: Path, wrong: list[Entry], place: str
) -> None:
    grow(tmp_path, [])
    with sqlite3.connect(tmp_path / "hub.db") as connection:
        connection.execute("DROP INDEX uq_ledger_entry_decision")
    connection.close()
    grow(tmp_path, wrong)
    assert places(verify(tmp_path, KEY)) == {place}


def test_delivery_need_not_repeat_the_id_where_the_disclosure_has_none(tmp_path: Path) -> None:
    for name in (None, 5, ["a"]):
        folder = tmp_path / str(name)
        folder.mkdir()
        grow(folder, [entry(1, disclosure=name), delivery(1, 0)])
        assert places(verify(folder, KEY)) == set()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"text"',
        b"{}",
        b"\xff",
        b"[" * 65_000,
        b'{"kind":"refusal","at":"x","source":"s","message":"m","party":1}',
        b'{"kind":[],"at":"x","source":"s","message":"m","party":"p"}',
        b'{"kind":"refusal","at":"x","source":"s","message":"m","party":"p"} ',
        b'{"kind":"refusal","at":"x","source":"s","message":"m","party":"p"}{}',
    ],
)
def test_signed_entry_that_is_not_readable_is_named(tmp_path: Path, data: bytes) -> None:
    edge = Edge()
    edge.extend([leaf_hash(data)])
    (tmp_path / "tile/0").mkdir(parents=True)
    (tmp_path / "tile/entries").mkdir()
    (tmp_path / "tile/0/000.p").mkdir()
    (tmp_path / "tile/entries/000.p").mkdir()
    (tmp_path / "tile/0/000.p/1").write_bytes(leaf_hash(data))
    (tmp_path / "tile/entries/000.p/1").write_bytes(write_bundle([data]))
    (tmp_path / "checkpoint").write_text(Checkpoint(ORIGIN, 1, edge.root()).signed_by(SIGNER).note)
    assert places(verify(tmp_path, KEY)) == {"entry 0"}


@pytest.mark.parametrize("index", [0, 255, 256, SIZE - 1])
def test_flipped_byte_in_an_export_names_the_entry(copy: Path, index: int) -> None:
    number, offset = divmod(index, 256)
    path = copy / "out/tile/entries" / (f"{number:03}" if number < 2 else f"{number:03}.p/{SIZE % 256}")
    entries = read_bundle(path.read_bytes())
    entries[offset] = entries[offset].replace(b"2026", b"2027")
    path.write_bytes(write_bundle(entries))
    assert places(verify(copy / "out", KEY)) == {f"entry {index}"}


def test_tile_replaced_in_an_export_is_noticed_with_and_without_its_entries(copy: Path) -> None:
    path = copy / "out/tile/0/001"
    entries = read_bundle((copy / "out/tile/entries/001").read_bytes())
    entries[3] = entries[3].replace(b"2026", b"2027")
    path.write_bytes(path.read_bytes()[: 32 * 3] + leaf_hash(entries[3]) + path.read_bytes()[32 * 4 :])
    assert places(verify(copy / "out", KEY)) >= {"entry 259", f"checkpoint {SIZE}"}
    (copy / "out/tile/entries/001").write_bytes(write_bundle(entries))
    assert {"tile 1/0", f"checkpoint {SIZE}"} == places(verify(copy / "out", KEY))


@pytest.mark.parametrize(
    "name", ["tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/001", "tile/entries/002.p/88"]
)
@pytest.mark.parametrize("how", ["missing", "cut", "folder", "too large", "empty"])
def test_damaged_file_in_an_export_is_noticed(copy: Path, name: str, how: str) -> None:
    path = copy / "out" / name
    data = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(data[:-1])
    elif how == "folder":
        path.mkdir()
    elif how == "too large":
        path.write_bytes(bytes(17_000_000))
    elif how == "empty":
        path.write_bytes(b"")
    assert not verify(copy / "out", KEY).ok


def test_partial_tile_may_have_been_replaced_by_the_full_one(sound: Path, tmp_path: Path) -> None:
    entries = [entry(i) for i in range(300)]
    ledger = grow(tmp_path, entries[:200])
    note = ledger.export(tmp_path / "out").note
    grow(tmp_path, entries[200:]).export(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/tile/0/000.p")
    shutil.rmtree(tmp_path / "out/tile/entries/000.p")
    (tmp_path / "out/checkpoint").write_text(note)
    report = verify(tmp_path / "out", KEY)
    assert places(report) == set()
    assert report.size == 200


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_an_export_is_noticed(sound: Path, data: st.DataObject) -> None:
    folder = sound / "out"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    was = content[at]
    content[at] = data.draw(st.integers(0, 255).filter(lambda value: value != was))
    original = path.read_bytes()
    try:
        path.write_bytes(content)
        assert not verify(folder, KEY).ok
    finally:
        path.write_bytes(original)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_database_file_never_breaks_the_verifier(
    sound: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray((sound / "hub.db").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(100, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "damaged.db"
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        report = verify(path, KEY)
    except NothingToVerify:
        return
    assert report.more_findings >= 0


def test_findings_are_capped_and_counted(copy: Path) -> None:
    run(copy, "UPDATE ledger_entry SET kind = 'x' WHERE idx < 250")
    report = verify(copy, KEY)
    assert (len(report.findings), report.more_findings) == (100, 150)
    assert report.lines()[-1].strip() == "and 150 more"


@pytest.mark.parametrize("size", [10**6, 2**40, 2**63 - 1])
def test_checkpoint_of_an_absurd_size_is_refused_in_bounded_time(copy: Path, size: int) -> None:
    """Signed with the true key, over entries that nobody can have."""
    absurd = Checkpoint(ORIGIN, size, bytes(32)).signed_by(SIGNER).note
    (copy / "out" / "checkpoint").write_text(absurd)
    report = verify(copy / "out", KEY)
    assert not report.ok
    assert len(report.findings) < 300
    run(copy, "INSERT INTO ledger_checkpoint VALUES (?, ?)", size, absurd)
    assert "head" in places(verify(copy, KEY))


@pytest.mark.parametrize("size", ["9223372036854775808", "1" + "0" * 400, "-1", "٣", "1e3", "0x10", "007"])
def test_size_that_is_no_number_of_entries_is_refused(copy: Path, size: str) -> None:
    text = Checkpoint(ORIGIN, 5, bytes(32)).text().replace("\n5\n", f"\n{size}\n")
    (copy / "out" / "checkpoint").write_text(f"{text}\n{SIGNER.sign(text)}")
    assert not verify(copy / "out", KEY).ok
