"""The export, read by Go's transparency-log packages: an implementation that shares nothing with ours."""

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consent.ledger import Entry, Ledger, Signer, ledger_checkpoint, ledger_entry, ledger_head, ledger_tile
from consent.merkle import leaf_hash
from consent.note import COSIGNATURE_V1, Checkpoint
from consent.tiles import shape
from consent.witness import Witness
from gateway.sandbox.servers import install
from schemas.database import metadata, open_database
from tests import big_log

ORIGIN = "isr.test/ledger"
SIGNER = Signer(ORIGIN, bytes(range(32)))
WITNESS = Signer("witness.test", bytes(range(2, 34)), COSIGNATURE_V1)
OLD, SIZE = 23_333, 66_001  # the last is past a full tile of the second level


_PACKAGES = ("golang-go", "golang-golang-x-mod-dev")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled verifier. In CI what it is built with is installed where it is missing."""
    if not big_log.has_go():
        if not os.environ.get("CI"):
            pytest.skip(f"needs Go and its x/mod packages (apt-get install {' '.join(_PACKAGES)})")
        for package in _PACKAGES:
            install(package)
    return big_log.build(tmp_path_factory.mktemp("go"))


def entry(number: int) -> Entry:
    said = {"kind": "refusal", "source": "police", "message": f"m{number}", "party": "ngo.āwhina"}
    return Entry(**said, body={**said, "at": "2026-11-22T00:00:00.000Z"})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export in `out`, an older checkpoint in `old` and a proof in `proof`."""
    folder = tmp_path_factory.mktemp("ledger")
    engine = open_database(f"sqlite:///{folder / 'hub.db'}")
    metadata.create_all(engine, tables=[ledger_entry, ledger_tile, ledger_head, ledger_checkpoint])
    ledger = Ledger(engine, SIGNER, ORIGIN, lambda: datetime(2026, 11, 22, tzinfo=UTC))
    ledger.start()
    witness = Witness(folder / "witness.db", WITNESS, {ORIGIN: [SIGNER.key]}, lambda: 1_790_000_000)
    for start, stop, old in ((0, OLD, 0), (OLD, SIZE, OLD)):
        for at in range(start, stop, 4000):
            with engine.begin() as connection:
                ledger.append(connection, [entry(i) for i in range(at, min(at + 4000, stop))])
        answer = witness.add_checkpoint(ledger.witness_request(old))
        assert answer.status == 200
        ledger.add_cosignatures(stop, answer.body, [WITNESS.key])
        ledger.export(folder / "out")
        if stop == OLD:
            shutil.copy(folder / "out/checkpoint", folder / "old")
    (folder / "proof").write_text(ledger.tlog_proof(65_536))
    engine.dispose()
    return folder


def run(program: Path, folder: Path, old: str = "old") -> subprocess.CompletedProcess[str]:
    arguments = [
        "-dir",
        "out",
        "-key",
        SIGNER.vkey(),
        "-witness",
        WITNESS.vkey(),
        "-old",
        old,
        "-proof",
        "proof",
    ]
    return subprocess.run([str(program), *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_go_proves_signatures_entries_tiles_and_proofs(program: Path, exported: Path) -> None:
    done = run(program, exported)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        f"checkpoint {SIZE}",
        "cosignature witness.test",
        f"entries {SIZE}",
        f"tiles {len(list(shape(SIZE)))}",
        *(f"inclusion {index}" for index in (0, 1, 255, 256, 65_535, 65_536, SIZE // 2, SIZE - 1)),
        f"consistency {OLD} {SIZE}",
        "proof",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("out/checkpoint", "checkpoint"),
        ("out/tile/0/100", "tile/0/100"),
        ("out/tile/1/000", "tile/1/000"),
        ("out/tile/2/000.p/1", "tile/2/000.p/1"),
        ("out/tile/entries/200", "entries"),
        ("old", "consistency"),
        ("proof", "proof"),
    ],
)
def test_go_notices_one_changed_byte(
    program: Path, exported: Path, tmp_path: Path, name: str, says: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    done = run(program, folder)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("FAIL")
    assert says in done.stdout.splitlines()[-1]


def test_go_notices_a_fork(program: Path, exported: Path) -> None:
    fork = Checkpoint(ORIGIN, OLD, leaf_hash(b"fork")).signed_by(SIGNER)
    (exported / "fork").write_text(fork.note)
    done = run(program, exported, "fork")
    assert done.returncode == 1
    assert "FAIL consistency" in done.stdout


def test_go_reads_a_log_of_the_hub_and_notices_any_flipped_bit(program: Path, tmp_path: Path) -> None:
    """The same with a million entries: `python -m tests.big_log`."""
    assert program
    figures = big_log.run(tmp_path, 2_600)
    assert figures["wrong"] == []
    assert len(figures["flipped"]) == 6
