"""How an outsider comes to a ledger: by a web address, with one proof, with a witness, by the command; and
what the verifier says of places and keys that are none.
"""

import http.server
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from consent import verify as verifier
from consent.copies import NothingToVerify
from consent.ledger import Ledger, Signer
from consent.merkle import ProofError
from consent.note import COSIGNATURE_V1, Checkpoint
from consent.verify import verify
from schemas.database import open_database
from tests.unit.small_ledger import KEY, ORIGIN, SIGNER, SIZE, UNSIGNED, entry, make, places, run


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound ledger that a test may damage."""
    shutil.copytree(sound, tmp_path / "copy")
    return tmp_path / "copy"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # the base class's name
        """Says nothing."""


@pytest.fixture
def served(copy: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(copy)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/out"
    server.shutdown()
    server.server_close()
    thread.join()


def test_web_address_verifies_and_names_what_is_changed_or_missing(served: str, copy: Path) -> None:
    report = verify(served, KEY, str(copy / "kept"))
    assert places(report) == set()
    assert report.size == SIZE
    bundle = copy / "out/tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b'"m7"', b'"m8"'))
    assert places(verify(f"{served}/", KEY)) >= {"entry 7"}
    bundle.unlink()
    assert "entries 0 to 255" in places(verify(served, KEY))
    with pytest.raises(NothingToVerify):
        verify(served.replace("/out", "/nowhere"), KEY)


def test_web_address_that_nobody_serves_is_a_finding() -> None:
    report = verify("http://127.0.0.1:9/log", KEY)
    assert places(report) == {"ledger"}


def proof_file(sound: Path, folder: Path, index: int, *, extra: bool = True) -> Path:
    engine = open_database(f"sqlite:///{sound / 'hub.db'}")
    ledger = Ledger(engine, SIGNER, ORIGIN, lambda: datetime(2026, 11, 22, tzinfo=UTC))
    text = ledger.tlog_proof(index)
    engine.dispose()
    if not extra:
        lines = text.split("\n")
        text = "\n".join([lines[0], *lines[2:]])
    path = folder / f"{index}.tlog-proof"
    path.write_text(text)
    return path


def test_tlog_proof_verifies_with_the_entry_it_carries_or_a_given_one(sound: Path, tmp_path: Path) -> None:
    report = verify(proof_file(sound, tmp_path, 5), KEY)
    assert places(report) == set()
    assert (report.size, report.kinds) == (1, {"disclosure": 1})
    bare = proof_file(sound, tmp_path, 6, extra=False)
    assert verify(bare, KEY, entry=entry(6).encode()).ok
    assert places(verify(bare, KEY, entry=entry(5).encode())) == {"proof"}
    with pytest.raises(NothingToVerify, match="entry"):
        verify(bare, KEY)


def test_tlog_proof_that_was_changed_is_refused(sound: Path, tmp_path: Path) -> None:
    path = proof_file(sound, tmp_path, 5)
    text = path.read_text()
    for changed in (
        text.replace("index 5", "index 6"),
        text[:-5],
        text.replace("ledger", "ledgex"),
        text + "x",
    ):
        path.write_text(changed)
        assert places(verify(path, KEY)) == {"proof"}
    path.write_bytes(text.encode() + b"\xff")
    assert places(verify(path, KEY)) == {"proof"}


def test_witness_must_have_cosigned_the_newest_checkpoint(copy: Path) -> None:
    witness = Signer("witness.test", bytes(range(3, 35)), COSIGNATURE_V1)
    checkpoint = copy / "out/checkpoint"
    note = checkpoint.read_text()
    assert places(verify(copy / "out", KEY, witnesses=[witness.vkey()])) == {"witness witness.test"}
    checkpoint.write_text(note + witness.sign(Checkpoint.from_note(note).text(), 1_790_000_000))
    report = verify(copy / "out", KEY, witnesses=[witness.vkey()])
    assert places(report) == set()
    assert report.witnesses == ["witness.test"]
    assert places(verify(copy / "out", KEY, witnesses=[KEY])) == {f"witness {ORIGIN}"}


@pytest.mark.parametrize("kind", ["missing", "empty folder", "text file", "another database", "empty file"])
def test_place_without_a_ledger_is_said_to_be_one(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "empty folder":
        target.mkdir()
    elif kind == "text file":
        target.write_text("hello")
    elif kind == "empty file":
        target.touch()
    elif kind == "another database":
        with sqlite3.connect(target) as connection:
            connection.execute("CREATE TABLE t (a)")
        connection.close()
    with pytest.raises(NothingToVerify):
        verify(target, KEY)


@pytest.mark.parametrize("key", ["", "nonsense", "a+b", "/no/such/file", KEY[:-2]])
def test_bad_key_is_refused(sound: Path, key: str) -> None:
    with pytest.raises(ProofError):
        verify(sound, key)


@pytest.mark.parametrize("old", ["garbage\n", f"{ORIGIN}\n1\n\n"])
def test_older_checkpoint_that_is_none_is_a_finding(sound: Path, old: str) -> None:
    assert places(verify(sound, KEY, old)) == {"older checkpoint"}


def test_report_holds_no_content_of_entries(copy: Path) -> None:
    run(copy, "UPDATE ledger_entry SET entry = ? WHERE idx = 3", b'{"kind":"Aroha Ngata"}')
    run(copy, "UPDATE ledger_entry SET party = 'Aroha Ngata' WHERE idx = 4")
    report = verify(copy, KEY)
    assert {"entry 3", "entry 4"} <= places(report)
    assert "Aroha" not in json.dumps(report.as_json()) + "\n".join(report.lines())


def test_command_exits_0_1_or_2(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verifier.main([str(copy), "--key", KEY]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"VERIFIED  {ORIGIN}\n")
    assert f"the last {UNSIGNED} entries are not signed yet" in out
    assert verifier.main([str(copy), "--key", KEY, "--since", str(copy / "kept"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    run(copy, "DELETE FROM ledger_entry WHERE idx = 40")
    assert verifier.main([str(copy), "--key", KEY]) == 1
    assert "entry 40: it is missing" in capsys.readouterr().out
    assert verifier.main([str(copy / "nowhere"), "--key", KEY, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert verifier.main([str(copy), "--key", "x"]) == 2


def test_command_says_when_the_key_lay_beside_the_ledger(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verifier.main([str(copy)]) == 2
    (copy / "ledger.vkey").write_text(KEY)
    assert verifier.main([str(copy)]) == 0
    assert "beside the ledger" in capsys.readouterr().out
    assert verifier.main([str(copy / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == "beside the ledger"


def test_verifier_stands_alone_and_shows_no_progress_in_a_pipe(sound: Path) -> None:
    program = (
        "import sys; from consent.verify import main; code = main(sys.argv[1:]);"
        "ours = {n.partition('.')[0] for n in sys.modules};"
        "print(sorted(ours & {'sqlalchemy', 'schemas', 'gateway', 'rich', 'broker', 'adapters'}));"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(sound), "--key", KEY], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("[]\n")


def test_database_on_read_only_media_is_read(copy: Path, tmp_path: Path) -> None:
    with sqlite3.connect(copy / "hub.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    media = tmp_path / "media"
    media.mkdir()
    shutil.copy(copy / "hub.db", media)
    media.chmod(0o555)
    assert verify(media, KEY).ok
    media.chmod(0o755)
    assert sa.__version__  # the hub's own driver was not needed above
