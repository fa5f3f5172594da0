"""A log of many entries from the hub's own ledger, read by Go's transparency-log packages.

    python -m tests.big_log [--entries 1000000] [--folder DIR] [--database URL]

Appends, signs, has it cosigned, exports; then our verifier, our monitor and Go (an implementation that
shares nothing with ours) check note, cosignature, tiles, inclusion, consistency and a proof; then one bit is
flipped in some files, and Go must fail. Prints the figures as JSON, and exits 1 when anything is not as it
must be.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consent.ledger import Entry, Ledger, Signer, ledger_checkpoint, ledger_entry, ledger_head, ledger_tile
from consent.monitor import watch
from consent.note import COSIGNATURE_V1
from consent.tiles import shape
from consent.verify import verify
from consent.witness import Witness
from schemas.database import metadata, open_database

SOURCE = Path(__file__).parent / "integration" / "go" / "verify.go"
PACKAGE = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog")  # Debian's golang-golang-x-mod-dev
ORIGIN = "isr.test/ledger"
SIGNER = Signer(ORIGIN, bytes(range(32)))
WITNESS = Signer("witness.test", bytes(range(2, 34)), COSIGNATURE_V1)
TABLES = [ledger_entry, ledger_tile, ledger_head, ledger_checkpoint]
BATCH = 2_000  # entries in a transaction: what 200 submissions bring


def has_go() -> bool:
    """Whether Go and its packages are installed."""
    return bool(shutil.which("go")) and PACKAGE.is_dir()


def build(folder: Path) -> Path:
    """The compiled Go verifier in *folder*; nothing is installed or fetched for it."""
    built = folder / "verify"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": ""}
    subprocess.run(["go", "build", "-o", str(built), str(SOURCE)], env=environment, check=True)
    return built


def entry(number: int) -> Entry:
    """Entry *number*, of the size that a refusal has."""
    said = {"kind": "refusal", "source": "police", "message": f"m{number}", "party": "ngo.āwhina"}
    rest = {"at": "2026-11-22T00:00:00.000Z", "content": f"{number:064x}", "reasons": ["no-clause"] * 20}
    return Entry(**said, body={**said, **rest})


def make(folder: Path, entries: int, url: str = "") -> dict[str, float]:
    """Writes a log of *entries* into *folder*: `out` (an export), `old` (the checkpoint at a third of it) and
    `proof`; returns how fast, and how much memory more the second half took (bytes).
    """
    engine = open_database(url or f"sqlite:///{folder / 'hub.db'}")
    metadata.create_all(engine, tables=TABLES)
    ledger = Ledger(engine, SIGNER, ORIGIN, lambda: datetime(2026, 11, 22, tzinfo=UTC))
    ledger.start()
    witness = Witness(folder / "witness.db", WITNESS, {ORIGIN: [SIGNER.key]}, lambda: 1_790_000_000)
    third, busy, half = max(1, entries // 3), 0.0, 0
    for start, stop, old in ((0, third, 0), (third, entries, third)):
        for at in range(start, stop, BATCH):
            batch = [entry(i) for i in range(at, min(at + BATCH, stop))]
            began = time.perf_counter()
            with engine.begin() as connection:
                ledger.append(connection, batch)
            ledger.sign()
            busy += time.perf_counter() - began
            if at < entries // 2:
                half = _memory()
        answer = witness.add_checkpoint(ledger.witness_request(old))
        if answer.status != 200:
            raise RuntimeError(f"the witness answered {answer.status}")
        ledger.add_cosignatures(stop, answer.body, [WITNESS.key])
        if stop == third:
            (folder / "old").write_text(ledger.sign().note)
    more = _memory() - half
    began = time.perf_counter()
    ledger.export(folder / "out")
    exported = time.perf_counter() - began
    began = time.perf_counter()
    (folder / "proof").write_text(ledger.tlog_proof(entries // 2))
    proved = time.perf_counter() - began
    engine.dispose()
    return {
        "append_and_sign_per_second": entries / busy,
        "memory_bytes": _memory(),
        "memory_of_second_half_bytes": more,
        "export_per_second": entries / exported,
        "proof_seconds": proved,
    }


def go(program: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """What the Go verifier says of the log in *folder*."""
    keys = ["-key", SIGNER.vkey(), "-witness", WITNESS.vkey()]
    return subprocess.run(
        [str(program), "-dir", "out", *keys, "-old", "old", "-proof", "proof"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def expected(entries: int) -> set[str]:
    """What the Go verifier says of a sound log."""
    probes = {0, 1, 255, 256, 65_535, 65_536, entries // 2, entries - 1}
    return {
        f"checkpoint {entries}",
        "cosignature witness.test",
        f"entries {entries}",
        f"tiles {len(list(shape(entries)))}",
        *(f"inclusion {index}" for index in probes if index < entries),
        f"consistency {max(1, entries // 3)} {entries}",
        "proof",
    }


def flip_one_bit(path: Path, seed: int) -> Callable[[], None]:
    """Flips one bit of the file at *path*, chosen by *seed*; returns what flips it back."""
    content = path.read_bytes()
    bit = random.Random(seed).randrange(8 * len(content))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    return lambda: path.write_bytes(content) and None


def run(folder: Path, entries: int, url: str = "") -> dict[str, Any]:
    """Makes the log, has everybody read it, and returns the figures; `wrong` names what is not as it must."""
    figures: dict[str, Any] = {"entries": entries, **make(folder, entries, url)}
    wrong: list[str] = []
    began, busy = time.perf_counter(), time.process_time()
    report = verify(folder / "out", SIGNER.vkey(), (folder / "old").read_text(), witnesses=[WITNESS.vkey()])
    figures["verify_per_second"] = entries / (time.perf_counter() - began)
    figures["verify_per_second_of_processor"] = entries / (time.process_time() - busy)
    wrong += [f"verify: {finding}" for finding in report.findings]
    began, busy = time.perf_counter(), time.process_time()
    watch(folder / "out", SIGNER.vkey(), folder / "state", 1_790_000_060, witnesses=[WITNESS.key])
    figures["monitor_per_second"] = entries / (time.perf_counter() - began)
    figures["monitor_per_second_of_processor"] = entries / (time.process_time() - busy)
    program = build(folder)
    began = time.perf_counter()
    done = go(program, folder)
    figures["go_seconds"] = time.perf_counter() - began
    if done.returncode or set(done.stdout.splitlines()) != expected(entries):
        wrong.append(f"go: {done.stdout}{done.stderr}")
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file() and path.name != "keys")
    chosen = [*random.Random(entries).sample(files, min(len(files), 5)), folder / "out" / "checkpoint"]
    figures["flipped"] = {}
    for seed, path in enumerate(chosen):
        mend = flip_one_bit(path, seed)
        said = go(program, folder)
        name = str(path.relative_to(folder))
        figures["flipped"][name] = said.stdout.splitlines()[-1] if said.stdout else ""
        if said.returncode == 0:
            wrong.append(f"go did not notice a flipped bit in {name}")
        mend()
    return {**figures, "wrong": wrong}


def _memory() -> int:
    """The most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keep the log here")
    parser.add_argument("--database", default="", help="an empty database (default: SQLite in the folder)")
    given = parser.parse_args()
    if not has_go():
        print("needs Go and its x/mod packages (apt-get install golang-go golang-golang-x-mod-dev)")
        return 2
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        figures = run(folder, given.entries, given.database)
    print(json.dumps(figures, indent=2))
    return 1 if figures["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
