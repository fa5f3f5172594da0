"""Proofs written many at a time: the same texts as one at a time, whatever was at hand."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from consent import merkle
from consent.ledger import Ledger
from consent.merkle import leaf_hash, verify_inclusion
from consent.note import Checkpoint, TlogProof
from consent.proving import Lately, Proving
from consent.tiles import WIDTH, Edge, node_reader
from schemas.database import metadata, open_database
from tests.unit.test_ledger import TABLES, entry, opened

SIZES = [1, 2, 3, 255, 256, 257, 511, 512, 513, 700, 1024, 1025, WIDTH * WIDTH + 300]


def tree(size: int) -> tuple[list[bytes], Checkpoint, Callable[[int, int], bytes]]:
    """Entries, a checkpoint of them, and a reader of their tiles."""
    entries = [b"entry %d" % n for n in range(size)]
    edge, tiles = Edge(), {}
    for at in range(0, size, 997):
        tiles.update(edge.extend([leaf_hash(e) for e in entries[at : at + 997]]))
    checkpoint = Checkpoint(
        "isr.test/ledger", size, edge.root(), f"isr.test/ledger\n{size}\n\n— isr.test x\n"
    )
    return entries, checkpoint, lambda level, number: tiles[level, number]


@pytest.mark.parametrize("size", SIZES)
def test_many_proofs_are_the_texts_of_single_ones(size: int) -> None:
    entries, checkpoint, read = tree(size)
    chosen = range(size) if size < 2000 else sorted(random.Random(1).sample(range(size), 400))
    proving, node = Proving(checkpoint, node_reader(read)), node_reader(read)
    for index in chosen:
        path = merkle.inclusion_proof(index, size, node)
        assert (
            proving.text(index, entries[index])
            == TlogProof(index, tuple(path), checkpoint, entries[index]).encode()
        )
        verify_inclusion(index, size, leaf_hash(entries[index]), path, checkpoint.root)


def test_index_outside_the_tree_is_refused() -> None:
    entries, checkpoint, read = tree(300)
    with pytest.raises(merkle.ProofError):
        Proving(checkpoint, node_reader(read)).text(300, entries[0])


def test_lately_gives_what_the_tree_needs_and_reads_the_rest() -> None:
    _, _, read = tree(600)
    lately, asked = Lately(), []
    lately.add({(0, 1): read(0, 1), (0, 2): read(0, 2)})

    def reads(level: int, number: int) -> bytes:
        asked.append((level, number))
        return read(level, number)

    tile = lately.reader(600, reads)
    assert [tile(0, n) for n in range(3)] == [read(0, n) for n in range(3)]
    assert asked == [(0, 0)]
    tile = lately.reader(WIDTH * 3, reads)  # a later tree needs more of the last tile than is here
    tile(0, 2)
    assert asked == [(0, 0), (0, 2)]


def test_lately_is_bounded() -> None:
    lately, read = Lately(), []
    for number in range(1000):
        lately.add({(0, number): bytes(WIDTH * 32)})
    tile = lately.reader(WIDTH * 1000, lambda level, number: read.append((level, number)) or b"")
    for number in range(1000):
        tile(0, number)
    assert len(read) == 1000 - 64


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    engine = open_database(f"sqlite:///{tmp_path / 'hub.db'}")
    metadata.create_all(engine, tables=TABLES)
    return engine


def proofs(ledger: Ledger, size: int) -> list[str]:
    return ledger.tlog_proofs(list(range(size)), size)


def test_what_was_just_appended_is_proved_without_reading_tiles(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(engine)
    with engine.begin() as connection:
        ledger.append(connection, [entry(n) for n in range(600)])
    ledger.sign()
    read_back = proofs(opened(engine), 600)
    said = dict(enumerate(ledger.entries(0, 600)))

    def no_reading(*_: object) -> bytes:
        raise AssertionError("a tile was read back")

    monkeypatch.setattr(ledger, "_read_tile", no_reading)
    monkeypatch.setattr(
        "consent.ledger._chosen", lambda _connection, missing: [no_reading() for _ in missing]
    )
    assert ledger.tlog_proofs(list(range(600)), 600, said) == read_back


def test_what_was_rolled_back_is_never_proved(engine: sa.Engine) -> None:
    """Between what this process took back and what it proves, another one appends at the same place."""
    ours, other = opened(engine), opened(engine)
    with engine.begin() as connection:
        ours.append(connection, [entry(n) for n in range(200)])
    ours.sign()

    with engine.connect() as connection:
        taken_back = connection.begin()
        ours.append(connection, [entry(1000 + n) for n in range(200)])
        taken_back.rollback()
    with engine.begin() as connection:
        other.append(connection, [entry(2000 + n) for n in range(200)])
    signed = other.sign()

    found = proofs(ours, 400)

    assert found == proofs(opened(engine), 400)
    for text in found:
        proof = TlogProof.decode(text)
        verify_inclusion(proof.index, 400, leaf_hash(proof.extra or b""), proof.path, signed.root)
    with engine.begin() as connection:
        ours.append(connection, [entry(3000 + n) for n in range(200)])
    ours.sign()
    assert proofs(ours, 600) == proofs(opened(engine), 600)
