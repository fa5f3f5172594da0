"""The ledger in its database: what a transaction leaves, what a crash leaves, and that it never forks."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from consent.ledger import Entry, Ledger, Signer, ledger_checkpoint, ledger_entry, ledger_head, ledger_tile
from consent.merkle import EMPTY_ROOT, CompactRange, leaf_hash, verify_consistency, verify_inclusion
from consent.note import Checkpoint, TlogProof, open_checkpoint
from consent.tiles import bundle_path, hashes_of, read_bundle, shape, tile_path
from schemas.database import metadata, open_database
from schemas.errors import AlreadyDecided, BadProof, LedgerContradiction, NotFound, TooLarge
from tests.conftest import new_database

ORIGIN = "isr.test/ledger"
SIGNER = Signer(ORIGIN, bytes(range(32)))
TABLES = [ledger_entry, ledger_tile, ledger_head, ledger_checkpoint]


def clock() -> datetime:
    return datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def postgresql_engine(postgresql_url: str) -> Iterator[sa.Engine]:
    """A database of this module's own; making one for each test would take longer than the tests."""
    with new_database(postgresql_url) as url:
        engine = open_database(url)
        metadata.create_all(engine, tables=TABLES)
        yield engine
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path / 'hub.db'}")
        metadata.create_all(engine, tables=TABLES)
        yield engine
        engine.dispose()
    else:
        engine = request.getfixturevalue("postgresql_engine")
        with engine.begin() as connection:
            for table in TABLES:
                connection.execute(sa.delete(table))
        yield engine


@pytest.fixture
def ledger(engine: sa.Engine) -> Ledger:
    return opened(engine)


def opened(engine: sa.Engine) -> Ledger:
    ledger = Ledger(engine, SIGNER, ORIGIN, clock)
    ledger.start()
    return ledger


def entry(number: int, kind: str = "disclosure", **more: Any) -> Entry:
    body = {
        "kind": kind,
        "at": "2026-11-22T00:00:00.000Z",
        "source": "police",
        "message": f"m{number}",
        "party": "ngo.āwhina#ivs",
        **more,
    }
    return Entry(kind, body["source"], body["message"], body["party"], body)


def append(engine: sa.Engine, ledger: Ledger, *entries: Entry) -> range:
    with engine.begin() as connection:
        return ledger.append(connection, entries)


def fill(engine: sa.Engine, ledger: Ledger, count: int, batch: int = 100) -> None:
    start = ledger.head().size
    for at in range(start, start + count, batch):
        append(engine, ledger, *(entry(i) for i in range(at, min(at + batch, start + count))))


def assert_sound(engine: sa.Engine, ledger: Ledger) -> None:
    """Entries, leaves, tiles, head and every checkpoint agree, by a tree built anew."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(ledger_entry).order_by(ledger_entry.c.idx)).all()
        head = connection.execute(sa.select(ledger_head)).one()
        notes = connection.execute(sa.select(ledger_checkpoint.c.size, ledger_checkpoint.c.note)).all()
        tiles = connection.execute(sa.select(ledger_tile)).all()
    tree, roots = CompactRange(), {0: EMPTY_ROOT}
    for number, row in enumerate(rows):
        assert row.idx == number
        assert leaf_hash(bytes(row.entry)) == bytes(row.leaf)
        tree.extend([bytes(row.leaf)])
        roots[number + 1] = tree.root()
    assert (head.size, bytes(head.root), bytes(head.frontier)) == (
        len(rows),
        tree.root(),
        b"".join(tree.nodes),
    )
    for size, note in notes:
        checkpoint = open_checkpoint(note, [SIGNER.key], ORIGIN)
        assert (checkpoint.size, checkpoint.root) == (size, roots[size])
    stored = {(tile.level, tile.n): len(tile.hashes) // 32 for tile in tiles}
    wanted = {(level, n): width for level, n, width in shape(len(rows)) if level or width == 256}
    assert stored == wanted
    for (level, n), width in wanted.items():
        if level == 0:
            leaves = b"".join(bytes(row.leaf) for row in rows[n * 256 : n * 256 + width])
            assert next(bytes(t.hashes) for t in tiles if (t.level, t.n) == (0, n)) == leaves
    opened(engine)


def test_start_makes_an_empty_ledger_and_may_be_repeated(engine: sa.Engine) -> None:
    ledger = opened(engine)
    ledger.start()
    assert ledger.head() == Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    assert ledger.checkpoint() is None
    assert ledger.entries(0, 10) == []
    assert ledger.find("m1") == []
    assert_sound(engine, ledger)


def test_append_gives_consecutive_indices_and_canonical_bytes(engine: sa.Engine, ledger: Ledger) -> None:
    assert append(engine, ledger, entry(0), entry(1)) == range(2)
    assert append(engine, ledger, entry(2)) == range(2, 3)
    assert ledger.entries(0, 1) == [
        '{"at":"2026-11-22T00:00:00.000Z","kind":"disclosure","message":"m0",'
        '"party":"ngo.āwhina#ivs","source":"police"}'.encode()
    ]
    assert [idx for idx, _ in ledger.find("m2")] == [2]
    assert_sound(engine, ledger)


def test_append_of_nothing_changes_nothing(engine: sa.Engine, ledger: Ledger) -> None:
    assert append(engine, ledger) == range(0)
    assert ledger.head().size == 0


@pytest.mark.parametrize("batches", [[1] * 5, [255, 1, 1], [256, 256], [300, 212, 1], [600]])
def test_append_keeps_everything_in_agreement_in_batches_of_any_size(
    engine: sa.Engine, ledger: Ledger, batches: list[int]
) -> None:
    at = 0
    for batch in batches:
        append(engine, ledger, *(entry(i) for i in range(at, at + batch)))
        ledger.sign()
        at += batch
    assert_sound(engine, ledger)


def test_append_rolled_back_leaves_no_trace_and_the_next_one_is_right(
    engine: sa.Engine, ledger: Ledger
) -> None:
    fill(engine, ledger, 250)
    with engine.connect() as connection, connection.begin() as transaction:
        assert ledger.append(connection, [entry(i) for i in range(1000, 1010)]) == range(250, 260)
        transaction.rollback()  # as a crash before the commit does
    assert ledger.head().size == 250
    assert append(engine, ledger, *(entry(i) for i in range(250, 260))) == range(250, 260)
    ledger.sign()
    assert_sound(engine, ledger)


def test_append_twice_in_one_transaction_continues(engine: sa.Engine, ledger: Ledger) -> None:
    with engine.begin() as connection:
        assert ledger.append(connection, [entry(0)]) == range(1)
        assert ledger.append(connection, [entry(1)]) == range(1, 2)
    assert_sound(engine, ledger)


@pytest.mark.parametrize("second", ["disclosure", "refusal", "referral"])
def test_append_refuses_a_second_decision_on_a_message_and_party(
    engine: sa.Engine, ledger: Ledger, second: str
) -> None:
    append(engine, ledger, entry(0, "refusal"))
    with pytest.raises(AlreadyDecided) as caught:
        append(engine, ledger, entry(1), entry(0, second))
    assert "m0" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert ledger.head().size == 1
    append(engine, ledger, entry(1), entry(0, "delivery", disclosure=1), entry(0, "delivery", disclosure=1))
    assert_sound(engine, ledger)


def test_append_refuses_a_body_that_says_something_else_than_its_columns(
    engine: sa.Engine, ledger: Ledger
) -> None:
    good = entry(0)
    for name in ("kind", "at", "source", "message", "party"):
        body = {key: value for key, value in good.body.items() if key != name}
        with pytest.raises(ValueError, match="repeats"):
            append(engine, ledger, Entry(good.kind, good.source, good.message, good.party, body))
    assert ledger.head().size == 0


def test_append_takes_the_longest_entry_and_refuses_a_longer_one(engine: sa.Engine, ledger: Ledger) -> None:
    room = 65_535 - len(entry(0, digest="").encode())
    append(engine, ledger, entry(0, digest="0" * room))
    with pytest.raises(TooLarge):
        append(engine, ledger, entry(1, digest="0" * (room + 1)))
    assert_sound(engine, ledger)


def test_append_without_a_head_is_refused(engine: sa.Engine) -> None:
    ledger = Ledger(engine, SIGNER, ORIGIN, clock)
    with pytest.raises(LedgerContradiction, match=r"start\(\)"):
        append(engine, ledger, entry(0))
    with pytest.raises(LedgerContradiction, match=r"start\(\)"):
        ledger.sign()


def test_sign_signs_the_head_once(engine: sa.Engine, ledger: Ledger) -> None:
    fill(engine, ledger, 3)
    first = ledger.sign()
    assert (first.size, first.root) == (3, ledger.head().root)
    assert ledger.sign() == ledger.checkpoint() == opened(engine).sign() == first
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(ledger_checkpoint)).scalar() == 1


def test_sign_of_the_empty_ledger_signs_the_empty_root(engine: sa.Engine, ledger: Ledger) -> None:
    assert ledger.sign().root == EMPTY_ROOT
    fill(engine, ledger, 2)
    assert ledger.sign().size == 2
    assert_sound(engine, ledger)


def test_sign_repairs_a_crash_between_append_and_sign(engine: sa.Engine, ledger: Ledger) -> None:
    fill(engine, ledger, 300)
    ledger.sign()
    fill(engine, ledger, 300)  # and here the process dies
    again = opened(engine)
    assert again.checkpoint() == ledger.checkpoint()
    assert again.sign().size == 600
    assert_sound(engine, again)


def test_sign_refuses_a_head_that_does_not_continue_the_newest_checkpoint(
    engine: sa.Engine, ledger: Ledger
) -> None:
    fill(engine, ledger, 5)
    forked = Checkpoint(ORIGIN, 4, leaf_hash(b"fork")).signed_by(SIGNER)
    with engine.begin() as connection:
        connection.execute(sa.insert(ledger_checkpoint).values(size=4, note=forked.note))
    with pytest.raises(LedgerContradiction, match="continue"):
        ledger.sign()
    with pytest.raises(LedgerContradiction, match="continue"):
        opened(engine)


def test_sign_refuses_a_head_that_was_rolled_back(engine: sa.Engine, ledger: Ledger) -> None:
    fill(engine, ledger, 5)
    before = ledger.head()
    append(engine, ledger, entry(5))
    ledger.sign()
    with engine.begin() as connection:
        connection.execute(sa.delete(ledger_entry).where(ledger_entry.c.idx == 5))
        connection.execute(sa.update(ledger_head).values(size=5, root=before.root))
    with pytest.raises(LedgerContradiction, match="backup"):
        ledger.sign()


def test_sign_refuses_another_key_or_origin(engine: sa.Engine, ledger: Ledger) -> None:
    fill(engine, ledger, 1)
    ledger.sign()
    other = Signer(ORIGIN, bytes(32))
    for wrong in (Ledger(engine, other, ORIGIN, clock), Ledger(engine, SIGNER, "isr.test/else", clock)):
        with pytest.raises(LedgerContradiction, match="key"):
            wrong.sign()
        with pytest.raises(LedgerContradiction, match="key"):
            wrong.start()


def test_two_ledgers_on_one_database_never_fork(engine: sa.Engine) -> None:
    opened(engine)
    failures: list[BaseException] = []
    gate = threading.Barrier(3)

    def write(worker: int) -> None:
        try:
            ledger = Ledger(engine, SIGNER, ORIGIN, clock)
            gate.wait()
            for turn in range(12):
                append(
                    engine, ledger, *(entry(worker * 10_000 + turn * 100 + i) for i in range(1 + 7 * turn))
                )
                ledger.sign()
        except BaseException as error:  # shown by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    ledger = opened(engine)
    assert ledger.head().size == 3 * sum(1 + 7 * turn for turn in range(12))
    ledger.sign()
    assert_sound(engine, ledger)


def test_one_ledger_shared_by_threads_never_forks(engine: sa.Engine) -> None:
    ledger = opened(engine)
    failures: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            for turn in range(12):
                append(engine, ledger, *(entry(worker * 1000 + turn * 30 + i) for i in range(30)))
                ledger.sign()
        except BaseException as error:  # shown by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ledger.head().size == 3 * 12 * 30
    assert_sound(engine, ledger)


def test_proofs_verify_for_old_and_new_sizes(engine: sa.Engine, ledger: Ledger) -> None:
    roots = {0: EMPTY_ROOT}
    for _ in range(7):
        fill(engine, ledger, 97)
        roots[ledger.head().size] = ledger.head().root
    leaves = [leaf_hash(data) for data in ledger.entries(0, 1000)]
    for size in (97, 291, 679):
        for idx in (0, 96, size - 1):
            verify_inclusion(idx, size, leaves[idx], ledger.inclusion_proof(idx, size), roots[size])
    for old, old_root in roots.items():
        for new, new_root in roots.items():
            if old <= new:
                verify_consistency(old, new, old_root, new_root, ledger.consistency_proof(old, new))


@pytest.mark.parametrize(("idx", "size"), [(0, 0), (3, 3), (-1, 3), (0, 4), (0, 1000)])
def test_inclusion_proof_outside_the_tree_is_refused(
    engine: sa.Engine, ledger: Ledger, idx: int, size: int
) -> None:
    fill(engine, ledger, 3)
    with pytest.raises(BadProof):
        ledger.inclusion_proof(idx, size)


def test_consistency_proof_outside_the_tree_is_refused(engine: sa.Engine, ledger: Ledger) -> None:
    fill(engine, ledger, 3)
    for old, new in ((4, 3), (-1, 3), (2, 5), (3, 300)):
        with pytest.raises(BadProof):
            ledger.consistency_proof(old, new)


def test_tlog_proof_can_be_verified_offline(engine: sa.Engine, ledger: Ledger) -> None:
    fill(engine, ledger, 300)
    with pytest.raises(NotFound):
        ledger.tlog_proof(0)
    ledger.sign()
    append(engine, ledger, entry(300))
    for idx in (0, 255, 256, 299):
        proof = TlogProof.decode(ledger.tlog_proof(idx))
        assert proof.extra is not None
        assert json.loads(proof.extra)["message"] == f"m{idx}"
        proof.verify(proof.extra, [SIGNER.key])
    for outside in (-1, 300, 301):
        with pytest.raises(NotFound):
            ledger.tlog_proof(outside)


def test_ended_names_the_disclosures_whose_delivery_is_recorded(engine: sa.Engine, ledger: Ledger) -> None:
    append(engine, ledger, entry(0), entry(1), entry(0, "delivery", disclosure=0))
    with engine.connect() as connection:
        asked = [f"m{i}" for i in range(1000)]
        assert ledger.ended(connection, asked) == {"m0"}
        assert ledger.ended(connection, []) == set()


def damage(engine: sa.Engine, statement: sa.Executable) -> None:
    with engine.begin() as connection:
        assert connection.execute(statement).rowcount != 0


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(sa.update(ledger_head).values(size=299), id="head too small"),
        pytest.param(sa.update(ledger_head).values(size=301), id="head too large"),
        pytest.param(sa.update(ledger_head).values(root=bytes(32)), id="another root"),
        pytest.param(sa.update(ledger_head).values(frontier=b""), id="another frontier"),
        pytest.param(sa.delete(ledger_head), id="no head"),
        pytest.param(sa.delete(ledger_entry).where(ledger_entry.c.idx == 299), id="last entry dropped"),
        pytest.param(
            sa.update(ledger_entry).where(ledger_entry.c.idx == 299).values(entry=b"{}"),
            id="last entry changed",
        ),
        pytest.param(
            sa.update(ledger_entry).where(ledger_entry.c.idx == 280).values(leaf=bytes(32)), id="leaf changed"
        ),
        pytest.param(sa.delete(ledger_tile).where(ledger_tile.c.level == 1), id="tile dropped"),
        pytest.param(
            sa.update(ledger_tile).where(ledger_tile.c.level == 1).values(hashes=bytes(32)), id="tile changed"
        ),
        pytest.param(sa.update(ledger_checkpoint).values(note="x"), id="checkpoint changed"),
    ],
)
def test_start_refuses_a_ledger_that_contradicts_itself(
    engine: sa.Engine, ledger: Ledger, statement: sa.Executable
) -> None:
    fill(engine, ledger, 300)
    ledger.sign()
    opened(engine)
    damage(engine, statement)
    with pytest.raises(LedgerContradiction) as caught:
        opened(engine)
    assert "." in str(caught.value)


def test_append_refuses_tiles_that_do_not_lead_to_the_head(engine: sa.Engine, ledger: Ledger) -> None:
    fill(engine, ledger, 300)
    damage(engine, sa.update(ledger_tile).where(ledger_tile.c.level == 1).values(hashes=bytes(32)))
    with pytest.raises(LedgerContradiction, match="tiles"):
        append(engine, Ledger(engine, SIGNER, ORIGIN, clock), entry(300))
    assert ledger.head().size == 300


@pytest.mark.parametrize("values", [{"root": bytes(32)}, {"frontier": bytes(32)}])
def test_append_refuses_a_head_that_was_changed(
    engine: sa.Engine, ledger: Ledger, values: dict[str, bytes]
) -> None:
    fill(engine, ledger, 4)
    damage(engine, sa.update(ledger_head).values(**values))
    with pytest.raises(LedgerContradiction, match="head"):
        append(engine, Ledger(engine, SIGNER, ORIGIN, clock), entry(4))


def test_append_after_a_rollback_notices_that_another_took_the_same_indices(
    engine: sa.Engine, ledger: Ledger
) -> None:
    fill(engine, ledger, 3)
    with engine.connect() as connection, connection.begin() as transaction:
        ledger.append(connection, [entry(10)])
        transaction.rollback()
    append(engine, opened(engine), entry(20))
    append(engine, ledger, entry(30))
    ledger.sign()
    assert_sound(engine, ledger)


def test_append_refuses_when_an_entry_stands_beyond_the_head(engine: sa.Engine, ledger: Ledger) -> None:
    fill(engine, ledger, 3)
    damage(
        engine,
        sa.insert(ledger_entry).values(
            idx=3, leaf=bytes(32), entry=b"{}", source="s", message="m", party="p", kind="delivery"
        ),
    )
    with pytest.raises(LedgerContradiction, match="beyond"):
        append(engine, ledger, entry(3))


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_export_writes_the_tiled_layout(engine: sa.Engine, ledger: Ledger, tmp_path: Path) -> None:
    fill(engine, ledger, 600)
    told: list[tuple[int, int]] = []
    checkpoint = ledger.export(tmp_path / "out", lambda done, total: told.append((done, total)))
    files = files_under(tmp_path / "out")
    expected = {"checkpoint", "keys"} | {tile_path(*tile) for tile in shape(600)}
    expected |= {bundle_path(number, width) for level, number, width in shape(600) if level == 0}
    assert set(files) == expected
    assert files["checkpoint"].decode() == checkpoint.note
    entries = [item for n in ("000", "001", "002.p/88") for item in read_bundle(files[f"tile/entries/{n}"])]
    leaves = [item for n in ("000", "001", "002.p/88") for item in hashes_of(files[f"tile/0/{n}"])]
    assert entries == ledger.entries(0, 600)
    assert leaves == [leaf_hash(item) for item in entries]
    assert told == [(i, 4) for i in (1, 2, 3, 4)]


def test_export_again_writes_only_what_is_new(engine: sa.Engine, ledger: Ledger, tmp_path: Path) -> None:
    sizes = (0, 1, 256, 300, 513, 900)
    for size in sizes:
        fill(engine, ledger, size - ledger.head().size)
        told: list[int] = []
        ledger.export(tmp_path / "grown", lambda done, total: told.append(total))  # noqa: B023  # called at once
        if size == 900:
            assert told[0] == 3  # of five tiles: 002 became full, 003 and the one above are partial
    ledger.export(tmp_path / "fresh")
    grown, fresh = files_under(tmp_path / "grown"), files_under(tmp_path / "fresh")
    assert {name: grown[name] for name in fresh} == fresh
    unchanged: list[int] = []
    ledger.export(tmp_path / "grown", lambda done, total: unchanged.append(total))
    assert unchanged == []


def test_export_leaves_out_what_is_appended_while_it_runs(
    engine: sa.Engine, ledger: Ledger, tmp_path: Path
) -> None:
    fill(engine, ledger, 10)
    appended: list[range] = []

    def meanwhile(done: int, total: int) -> None:
        if not appended:
            appended.append(append(engine, ledger, entry(10)))

    ledger.export(tmp_path / "out", meanwhile)
    assert set(files_under(tmp_path / "out")) == {
        "checkpoint",
        "keys",
        "tile/0/000.p/10",
        "tile/entries/000.p/10",
    }


def test_export_refuses_a_folder_of_another_ledger(engine: sa.Engine, ledger: Ledger, tmp_path: Path) -> None:
    fill(engine, ledger, 3)
    for note in (
        Checkpoint(ORIGIN, 2, leaf_hash(b"fork")).signed_by(SIGNER).note,
        Checkpoint(ORIGIN, 9, leaf_hash(b"longer")).signed_by(SIGNER).note,
        Checkpoint(ORIGIN, 0, EMPTY_ROOT).signed_by(Signer(ORIGIN, bytes(32))).note,
        "garbage",
    ):
        (tmp_path / "checkpoint").write_text(note)
        with pytest.raises(LedgerContradiction, match="empty folder"):
            ledger.export(tmp_path)
        assert (tmp_path / "checkpoint").read_text() == note
