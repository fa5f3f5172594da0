"""The witness answers as its specification says, never signs a fork, and the monitor remembers."""

import contextlib
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent.ledger import Entry, Ledger, Signer, ledger_checkpoint, ledger_entry, ledger_head, ledger_tile
from consent.merkle import EMPTY_ROOT, CompactRange, consistency_proof, leaf_hash, node_hash
from consent.note import COSIGNATURE_V1, Checkpoint, open_note
from consent.tiles import Edge, node_reader
from consent.verify import verify
from consent.witness import Answer, Witness, request
from schemas.database import metadata, open_database
from schemas.errors import BadProof, NotFound

ORIGIN = "isr.test/ledger"
LOG = Signer(ORIGIN, bytes(range(32)))
OTHER = Signer("other.test/ledger", bytes(range(1, 33)))
NAME = Signer("witness.test", bytes(range(2, 34)), COSIGNATURE_V1)
MOMENT = 1_790_000_000
LEAVES = [leaf_hash(b"%d" % i) for i in range(300)]
TILES = Edge().extend(LEAVES)


def checkpoint(size: int, signer: Signer = LOG) -> Checkpoint:
    tree = CompactRange()
    tree.extend(LEAVES[:size])
    return Checkpoint(ORIGIN, size, tree.root()).signed_by(signer)


def body(old: int, new: int) -> bytes:
    read = node_reader(lambda level, number: TILES[level, number])
    return request(old, consistency_proof(old, new, read), checkpoint(new))


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "witness.db", NAME, {ORIGIN: [LOG.key]}, lambda: MOMENT)


def test_witness_cosigns_what_continues_and_remembers_it(witness: Witness) -> None:
    for old, new in ((0, 5), (5, 5), (5, 6), (6, 300)):
        answer = witness.add_checkpoint(body(old, new))
        assert (answer.status, answer.content_type) == (200, "text/plain; charset=utf-8")
        assert open_note(checkpoint(new).note + answer.body, [NAME.key])[1] == [(NAME.key, MOMENT)]
        assert witness.latest(ORIGIN) == checkpoint(new)
    assert witness.evidence() == []


def test_witness_cosigns_the_empty_tree_first(witness: Witness) -> None:
    assert witness.latest(ORIGIN) is None
    assert witness.add_checkpoint(body(0, 0)).status == 200
    assert witness.add_checkpoint(body(0, 3)).status == 200


def test_witness_tells_its_size_when_the_log_names_another(witness: Witness) -> None:
    assert witness.add_checkpoint(body(2, 5)) == Answer(409, "0\n", "text/x.tlog.size")
    witness.add_checkpoint(body(0, 5))
    for old in (0, 4, 6):
        assert witness.add_checkpoint(body(old, 8)) == Answer(409, "5\n", "text/x.tlog.size")
    assert witness.latest(ORIGIN) == checkpoint(5)


def test_witness_refuses_to_go_back(witness: Witness) -> None:
    witness.add_checkpoint(body(0, 9))
    assert witness.add_checkpoint(request(9, [], checkpoint(5))).status == 400
    assert witness.add_checkpoint(body(5, 5)).status == 409
    assert witness.latest(ORIGIN) == checkpoint(9)


def test_witness_refuses_a_fork_and_keeps_the_evidence(witness: Witness) -> None:
    witness.add_checkpoint(body(0, 5))
    same_size = Checkpoint(ORIGIN, 5, leaf_hash(b"fork")).signed_by(LOG)
    assert witness.add_checkpoint(request(5, [], same_size)) == Answer(409, "5\n", "text/x.tlog.size")
    larger = Checkpoint(ORIGIN, 6, node_hash(same_size.root, LEAVES[5])).signed_by(LOG)
    assert witness.add_checkpoint(request(5, [LEAVES[5]], larger)).status == 422
    assert witness.add_checkpoint(request(5, [LEAVES[5]], larger)).status == 422
    assert [(note, against) for note, against, _ in witness.evidence()] == [
        (same_size.note, checkpoint(5).note),
        (larger.note, checkpoint(5).note),
    ]
    assert witness.latest(ORIGIN) == checkpoint(5)


def test_witness_refuses_a_proof_where_none_is_due(witness: Witness) -> None:
    assert witness.add_checkpoint(request(0, [LEAVES[0]], checkpoint(5))).status == 422
    wrong = Checkpoint(ORIGIN, 0, LEAVES[0]).signed_by(LOG)
    assert witness.add_checkpoint(request(0, [], wrong)).status == 422
    assert wrong.root != EMPTY_ROOT
    assert witness.latest(ORIGIN) is None


def test_witness_knows_its_logs_and_their_keys(witness: Witness) -> None:
    elsewhere = Checkpoint("isr.test/unknown", 5, checkpoint(5).root).signed_by(LOG)
    assert witness.add_checkpoint(request(0, [], elsewhere)).status == 404
    assert witness.add_checkpoint(request(0, [], checkpoint(5, OTHER))).status == 403
    note = checkpoint(5).note
    forged = note[:-8] + ("AAAA" if note[-8:-4] != "AAAA" else "BBBB") + note[-4:]
    assert witness.add_checkpoint(request(0, [], Checkpoint(ORIGIN, 5, LEAVES[0], forged))).status == 403
    both = checkpoint(5).note + OTHER.sign(checkpoint(5).text())
    assert witness.add_checkpoint(request(0, [], Checkpoint(ORIGIN, 5, LEAVES[0], both))).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"old 0",
        b"old 0\n\n",
        b"old 0\n\nnonsense",
        b"\xff",
        body(0, 5).replace(b"old 0", b"old 00"),
        body(0, 5).replace(b"old 0", b"old -1"),
        body(0, 5).replace(b"old 0", b"new 0"),
        body(0, 5).replace(b"old 0\n", b"old 0\nAAAA\n"),
        body(0, 5).replace(b"old 0\n", b"old 0\n" + b"A" * 43 + b"=\n" * 64),
        request(5, [LEAVES[0]] * 64, checkpoint(6)),
        b"x" * 1_000_001,
    ],
)
def test_witness_refuses_what_is_no_request(witness: Witness, data: bytes) -> None:
    assert witness.add_checkpoint(data).status == 400


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_witness_answers_any_bytes_and_signs_only_what_it_should(
    witness: Witness, data: st.DataObject
) -> None:
    sound = bytearray(body(0, 7))
    at = data.draw(st.integers(0, len(sound) - 1))
    sound[at] = data.draw(st.integers(0, 255))
    answer = witness.add_checkpoint(bytes(sound))
    assert answer.status in (200, 400, 403, 404, 409, 422)
    if bytes(sound) != body(0, 7):
        assert answer.status != 200


def test_witness_signs_one_of_two_that_race_for_the_same_step(tmp_path: Path) -> None:
    answers: list[int] = []
    gate = threading.Barrier(4)

    def ask(worker: int) -> None:
        mine = Witness(tmp_path / "witness.db", NAME, {ORIGIN: [LOG.key]}, lambda: MOMENT)
        gate.wait()
        answers.append(mine.add_checkpoint(body(0, 10 + worker)).status)

    Witness(tmp_path / "witness.db", NAME, {ORIGIN: [LOG.key]}, lambda: MOMENT)
    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409, 409, 409]


def test_witness_needs_a_key_for_cosigning(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cosigning"):
        Witness(tmp_path / "witness.db", LOG, {}, lambda: MOMENT)


def entry(number: int) -> Entry:
    said = {"kind": "refusal", "source": "police", "message": f"m{number}", "party": "msd"}
    return Entry(**said, body={**said, "at": "2026-11-22T00:00:00.000Z"})


def grow(folder: Path, start: int, count: int) -> Ledger:
    engine = open_database(f"sqlite:///{folder / 'hub.db'}")
    metadata.create_all(engine, tables=[ledger_entry, ledger_tile, ledger_head, ledger_checkpoint])
    ledger = Ledger(engine, LOG, ORIGIN, lambda: datetime(2026, 11, 22, tzinfo=UTC))
    ledger.start()
    with engine.begin() as connection:
        ledger.append(connection, [entry(i) for i in range(start, start + count)])
    ledger.sign()
    engine.dispose()
    return ledger


def test_ledger_is_cosigned_and_exports_the_cosignature(witness: Witness, tmp_path: Path) -> None:
    for start, old in ((0, 0), (100, 100)):
        ledger = grow(tmp_path, start, 100)
        answer = witness.add_checkpoint(ledger.witness_request(old))
        assert answer.status == 200
        cosigned = ledger.add_cosignatures(start + 100, answer.body, [NAME.key])
        assert ledger.add_cosignatures(start + 100, answer.body, [NAME.key]) == cosigned
        assert ledger.checkpoint() == ledger.sign() == cosigned
        ledger.export(tmp_path / "out")
        for place in (tmp_path, tmp_path / "out"):
            report = verify(place, LOG.vkey(), witnesses=[NAME.vkey()])
            assert (report.findings, report.witnesses) == ([], [NAME.name])
    (tmp_path / "5.tlog-proof").write_text(ledger.tlog_proof(5))
    assert NAME.name in (tmp_path / "5.tlog-proof").read_text()
    assert verify(tmp_path / "5.tlog-proof", LOG.vkey()).ok


def test_ledger_takes_only_good_cosignatures_of_known_witnesses(tmp_path: Path) -> None:
    ledger = grow(tmp_path, 0, 10)
    plain = ledger.sign()
    stranger = Signer("stranger.test", bytes(32), COSIGNATURE_V1)
    assert ledger.add_cosignatures(10, stranger.sign(plain.text(), MOMENT), [NAME.key]) == plain
    for lines in (NAME.sign("another\n", MOMENT), "", "nonsense\n", "\n" + NAME.sign(plain.text(), MOMENT)):
        with pytest.raises(BadProof):
            ledger.add_cosignatures(10, lines, [NAME.key])
    with pytest.raises(NotFound):
        ledger.add_cosignatures(9, NAME.sign(plain.text(), MOMENT), [NAME.key])
    with pytest.raises(BadProof):
        ledger.witness_request(11)
    assert ledger.checkpoint() == plain


def test_cosignature_of_another_log_is_not_taken(witness: Witness, tmp_path: Path) -> None:
    """Of the same size and root, by the same witness: only the origin differs."""
    ledger = grow(tmp_path, 0, 10)
    plain = ledger.sign()
    other = Checkpoint("other.test/ledger", plain.size, plain.root)
    with pytest.raises(BadProof):
        ledger.add_cosignatures(10, NAME.sign(other.text(), MOMENT), [NAME.key])
    assert ledger.checkpoint() == plain


@pytest.mark.parametrize("size", [10**6, 2**63 - 1])
def test_witness_cosigns_no_absurd_size_without_a_proof_that_leads_there(witness: Witness, size: int) -> None:
    assert witness.add_checkpoint(body(0, 5)).status == 200
    absurd = Checkpoint(ORIGIN, size, bytes(32)).signed_by(LOG)
    path = [bytes(32)] * 63
    assert witness.add_checkpoint(request(5, path, absurd)).status == 422
    assert witness.add_checkpoint(request(5, [*path, bytes(32)], absurd)).status == 400
    assert witness.latest(ORIGIN) == checkpoint(5)


def test_witness_compares_and_stores_as_one_step(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have compared before either stores, if they can: they must not be able to."""
    assert witness.add_checkpoint(body(0, 5)).status == 200
    both, compared = threading.Barrier(2), Witness._compare

    def compare(self: Witness, *given: Any) -> Answer | None:
        refused = compared(self, *given)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        return refused

    monkeypatch.setattr(Witness, "_compare", compare)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda new=new: statuses.append(witness.add_checkpoint(body(5, new)).status))
        for new in (6, 7)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409]
