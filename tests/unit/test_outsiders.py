"""What outsiders prove without the whole ledger: one entry, two checkpoints, a bundle, a commitment; and the
verifier as one file without our packages.
"""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from consent import single_file as maker
from consent import verify as verifier
from consent.copies import NothingToVerify
from consent.ed25519 import is_signed, is_signed_plainly
from consent.ledger import Entry, Ledger, Signer, ledger_checkpoint, ledger_entry, ledger_head, ledger_tile
from consent.merkle import ProofError
from consent.note import COSIGNATURE_V1, Checkpoint
from consent.report import Report
from consent.reveal import Reveal, canonical_content
from consent.single_file import single_file
from consent.verify import verify
from schemas.database import metadata, open_database

ORIGIN = "isr.test/ledger"
SIGNER = Signer(ORIGIN, bytes(range(32)))
WITNESS = Signer("witness.test", bytes(32), COSIGNATURE_V1)
KEY = SIGNER.vkey()
SIZE = 600
PERSON, SALT, CONTENT_SALT = "5f" * 16, b"a salt of its own", b"another"
CONTENT = {"risk": "high", "people": [{"ref": "p1", "role": "victim"}], "note": "Kia ora\n\x1f"}
SUBJECT = hashlib.sha256(SALT + PERSON.encode()).hexdigest()
REVEAL = {
    "v": 1,
    "entries": [
        {
            "index": 17,
            "subjects": [{"person": PERSON, "salt": SALT.hex()}],
            "content": {"salt": CONTENT_SALT.hex()},
        }
    ],
}
# RFC 8032 section 7.1, TEST 1 to 3
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


def entry(number: int) -> Entry:
    body: dict[str, Any] = {
        "kind": "disclosure",
        "at": "2026-11-22T00:00:00.000Z",
        "source": "police",
        "message": f"m{number}",
        "party": "corrections",
        "disclosure": f"d{number}",
        "subjects": [["victim", SUBJECT]] if number == 17 else [],
        "content": hashlib.sha256(
            CONTENT_SALT + orjson.dumps(CONTENT, option=orjson.OPT_SORT_KEYS)
        ).hexdigest(),
    }
    return Entry("disclosure", "police", body["message"], "corrections", body)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger, its export, a checkpoint at each hundred, a bundle of three entries, salts and a content."""
    folder = tmp_path_factory.mktemp("sound")
    engine = open_database(f"sqlite:///{folder / 'hub.db'}")
    metadata.create_all(engine, tables=[ledger_entry, ledger_tile, ledger_head, ledger_checkpoint])
    ledger = Ledger(engine, SIGNER, ORIGIN, lambda: datetime(2026, 11, 22, tzinfo=UTC))
    ledger.start()
    for at in range(0, SIZE, 100):
        with engine.begin() as connection:
            ledger.append(connection, [entry(i) for i in range(at, at + 100)])
        (folder / f"kept-{at + 100}").write_text(ledger.sign().note)
    checkpoint = ledger.add_cosignatures(SIZE, WITNESS.sign(ledger.sign().text(), 1), [WITNESS.key])
    ledger.export(folder / "out")
    bundle = folder / "bundle"
    for index in (17, 256, 599):
        for part, name, data in (
            ("entries", f"{index}.json", ledger.entries(index, index + 1)[0]),
            ("proofs", f"{index}.tlog-proof", ledger.tlog_proof(index).encode()),
        ):
            (bundle / part).mkdir(parents=True, exist_ok=True)
            (bundle / part / name).write_bytes(data)
    (bundle / "checkpoint").write_text(checkpoint.note)
    (bundle / "reveal.json").write_text(json.dumps(REVEAL))
    (folder / "content.json").write_text(json.dumps(CONTENT, indent=3))
    (folder / "proof").write_text(ledger.tlog_proof(17))
    engine.dispose()
    return folder


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "copy")
    return tmp_path / "copy"


def found(report: Report) -> list[str]:
    assert report.ok == (not report.findings)
    return [f"{f.place}: {f.detail}" for f in report.findings]


# Ed25519 in plain Python


@pytest.mark.parametrize(("public", "text", "signature"), VECTORS)
def test_plain_ed25519_meets_the_rfc(public: str, text: str, signature: str) -> None:
    parts = [bytes.fromhex(part) for part in (public, signature, text)]
    assert is_signed_plainly(*parts)
    assert is_signed(*parts)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80), st.integers(0, 8 * 96 - 1))
@settings(max_examples=40, deadline=None)
def test_plain_ed25519_agrees_with_the_library_about_a_signature_and_any_changed_bit(
    seed: bytes, text: bytes, bit: int
) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), private.sign(text)
    assert is_signed_plainly(public, signature, text)
    both = bytearray(public + signature)
    both[bit // 8] ^= 1 << bit % 8
    changed = (bytes(both[:32]), bytes(both[32:]), text)
    assert not is_signed_plainly(*changed)
    assert not is_signed(*changed)


@pytest.mark.parametrize("public", [b"", bytes(31), b"\xff" * 32, (2).to_bytes(32, "little"), bytes(33)])
def test_plain_ed25519_takes_no_key_that_is_none(public: bytes) -> None:
    assert not is_signed_plainly(public, bytes(64), b"")


def test_plain_ed25519_takes_no_second_form_of_a_signature() -> None:
    public, text, signature = (bytes.fromhex(part) for part in VECTORS[0])
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    assert not is_signed_plainly(public, signature[:32] + scalar.to_bytes(32, "little"), text)


# one entry, two checkpoints


@pytest.mark.parametrize("index", [0, 17, 255, 256, 511, 512, SIZE - 1])
@pytest.mark.parametrize("where", ["", "out"])
def test_one_entry_is_proved_alone(sound: Path, where: str, index: int) -> None:
    report = verify(sound / where, KEY, index=index)
    assert found(report) == []
    assert (report.size, report.checkpoints > 0) == (1, True)
    assert f"entry {index} stands in the ledger of 600 entries" in "\n".join(report.lines())


def test_one_entry_that_was_changed_or_is_not_there_is_not_proved(copy: Path) -> None:
    assert found(verify(copy, KEY, index=SIZE)) == [
        f"entry {SIZE}: the newest checkpoint signs {SIZE} entries, and not this one"
    ]
    bundle = copy / "out/tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b'"m17"', b'"m71"'))
    assert found(verify(copy / "out", KEY, index=17)) == [
        "entry 17: the inclusion proof does not lead to the root hash"
    ]
    assert found(verify(copy / "out", KEY, index=300)) == []  # others are not its business
    assert not verify(copy, Signer(ORIGIN, bytes(32)).vkey(), index=1).ok


@pytest.mark.parametrize("where", ["", "out"])
@pytest.mark.parametrize(("older", "newer"), [(100, 200), (300, SIZE), (500, 400), (SIZE, SIZE)])
def test_any_two_checkpoints_are_compared(sound: Path, where: str, older: int, newer: int) -> None:
    pair = (str(sound / f"kept-{older}"), str(sound / f"kept-{newer}"))
    report = verify(sound / where, KEY, between=pair)
    assert found(report) == []
    assert f"of {max(older, newer):,} entries continues the one of {min(older, newer):,}" in report.proved


def test_checkpoints_that_do_not_continue_each_other_are_not_proved(sound: Path) -> None:
    forked = Checkpoint(ORIGIN, 300, bytes(32)).signed_by(SIGNER).note
    ahead = Checkpoint(ORIGIN, SIZE + 1, bytes(32)).signed_by(SIGNER).note
    other = Checkpoint("isr.test/other", 300, bytes(32)).signed_by(SIGNER).note
    kept = (sound / "kept-200").read_text()
    for note, detail in (
        (forked, "does not lead to the newer root"),
        (ahead, "too few"),
        (other, "another log"),
        (forked.replace("300", "301"), "does not verify"),
        ("nothing\n", "no signature block"),
    ):
        for pair in ((kept, note), (note, kept)):
            (said,) = found(verify(sound, KEY, between=pair))
            assert detail in said


# commitments


def test_commitments_open_with_their_salts(sound: Path) -> None:
    content = ("content.json", (sound / "content.json").read_bytes())
    salts = (sound / "bundle/reveal.json").read_bytes()
    for target, more in ((sound, {}), (sound / "out", {}), (sound, {"index": 17}), (sound / "proof", {})):
        report = verify(target, KEY, reveal=salts, contents=[content], **more)  # type: ignore[arg-type]
        assert found(report) == []
        assert report.opened == [
            (17, f"the person {PERSON} is in it as victim"),
            (17, "content.json is what was released to corrections"),
        ]
        assert f"the person {PERSON} is in it as victim: entry 17" in "\n".join(report.lines())


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        pytest.param(
            lambda e: e["subjects"][0].update(person="6f" * 16), "not about this person", id="person"
        ),
        pytest.param(lambda e: e["subjects"][0].update(salt="00"), "not about this person", id="salt"),
        pytest.param(lambda e: e.update(index=18), "not about this person", id="entry"),
        pytest.param(lambda e: e.update(index=SIZE + 5), "it is not here", id="no entry"),
        pytest.param(lambda e: e["content"].update(salt="00"), "is not what any", id="content"),
    ],
)
def test_commitments_do_not_open_otherwise(sound: Path, change: Callable[[Any], None], detail: str) -> None:
    salts = json.loads(json.dumps(REVEAL))
    change(salts["entries"][0])
    content = ("content.json", (sound / "content.json").read_bytes())
    assert detail in "\n".join(
        found(verify(sound, KEY, reveal=json.dumps(salts).encode(), contents=[content]))
    )


def test_another_content_is_not_recognised(sound: Path) -> None:
    report = verify(sound, KEY, reveal=json.dumps(REVEAL).encode(), contents=[("x", b'{"risk": "low"}')])
    assert found(report) == ["content: x is not what any of these entries recorded"]
    with pytest.raises(ProofError, match="not JSON"):
        verify(sound, KEY, reveal=json.dumps(REVEAL).encode(), contents=[("x", b"{")])


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ).map(lambda v: json.dumps({"v": 1, "entries": v}).encode())
    | st.sampled_from([b"[" * 100_000, b'{"v":1,"entries":[{"index":true}]}', b'{"v":2,"entries":[]}',
        b'{"v":1,"entries":[{"index":1,"content":{}}]}',
        b'{"v":1,"entries":[{"index":1,"subjects":[{"person":"\\ud800","salt":""}]}]}'])
)  # fmt: skip
def test_salts_that_cannot_be_read_are_one_error(file: bytes) -> None:
    with contextlib.suppress(ProofError):
        Reveal(file)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=9), inner, max_size=4)
        ),
    )
)
def test_content_has_the_bytes_that_the_hub_committed_to(value: Any) -> None:
    written = orjson.dumps({"data": value}, option=orjson.OPT_SORT_KEYS)
    assert canonical_content(json.dumps({"data": value}).encode()) == written
    assert canonical_content(json.dumps({"specversion": "1.0", "data": {"data": value}}).encode()) == written


# bundles


def zipped(bundle: Path) -> Path:
    path = bundle.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(bundle.rglob("*")):
            if file.is_file():
                archive.write(file, str(file.relative_to(bundle)))
    return path


@pytest.mark.parametrize("form", [lambda p: p, zipped])
def test_bundle_is_proved_and_opened(copy: Path, form: Callable[[Path], Path]) -> None:
    content = ("content.json", (copy / "content.json").read_bytes())
    report = verify(form(copy / "bundle"), KEY, witnesses=[WITNESS.vkey()], contents=[content])
    assert found(report) == []
    assert (report.size, report.witnesses, len(report.opened)) == (3, ["witness.test"], 2)
    assert report.kinds == {"disclosure": 3}


def test_bundle_without_its_salts_is_proved_and_says_nothing_of_anybody(copy: Path) -> None:
    (copy / "bundle/reveal.json").unlink()
    report = verify(copy / "bundle", KEY)
    assert (found(report), report.opened) == ([], [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda b: (b / "entries/17.json").unlink(), "entry 17: there is a proof", id="no entry"),
        pytest.param(
            lambda b: (b / "proofs/17.tlog-proof").unlink(), "17.tlog-proof is missing", id="no proof"
        ),
        pytest.param(
            lambda b: (b / "entries/17.json").write_bytes((b / "entries/256.json").read_bytes()),
            "entry 17: the inclusion proof",
            id="another entry",
        ),
        pytest.param(
            lambda b: (b / "proofs/17.tlog-proof").write_bytes((b / "proofs/256.tlog-proof").read_bytes()),
            "entry 17: its proof is of entry 256",
            id="another proof",
        ),
        pytest.param(lambda b: (b / "checkpoint").unlink(), "checkpoint is missing", id="no checkpoint"),
        pytest.param(
            lambda b: (b / "checkpoint").write_bytes((b.parent / "kept-300").read_bytes()),
            "leads to another checkpoint",
            id="another checkpoint",
        ),
        pytest.param(lambda b: (b / "checkpoint").write_bytes(b"\xff"), "not valid UTF-8", id="no text"),
        pytest.param(
            lambda b: (b / "entries/17.json").write_bytes(bytes(70_000)), "is too large", id="large"
        ),
        pytest.param(lambda b: (b / "reveal.json").write_bytes(b"{}"), "not a file of salts", id="salts"),
    ],
)
@pytest.mark.parametrize("form", [lambda p: p, zipped])
def test_changed_bundle_is_not_proved(
    copy: Path, change: Callable[[Path], object], says: str, form: Callable[[Path], Path]
) -> None:
    change(copy / "bundle")
    assert says in "\n".join(found(verify(form(copy / "bundle"), KEY)))


def test_archive_that_is_damaged_is_one_kind_of_answer(copy: Path) -> None:
    path = zipped(copy / "bundle")
    whole = path.read_bytes()
    answers = set()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            answers.add(verify(path, KEY).ok)
        except NothingToVerify:
            answers.add(None)
    assert answers >= {False, None}


def test_bundle_and_proof_do_not_pretend_to_more(sound: Path) -> None:
    kept = str(sound / "kept-300")
    for target in ("bundle", "proof"):
        for more in ({"old_checkpoint": kept}, {"index": 3}, {"between": (kept, kept)}):
            with pytest.raises(NothingToVerify, match="ledger"):
                verify(sound / target, KEY, **more)  # type: ignore[arg-type]


# the verifier as one file


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alone") / "verify_ledger.py"
    path.write_text(single_file(), "utf-8")
    return path


def both(alone: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What the file says on a machine with nothing but Python, after it was compared with what we say."""
    words = [*map(str, arguments), "--json"]
    status = verifier.main(words)
    ours = json.loads(capsys.readouterr().out)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(alone), *words], capture_output=True, text=True, check=False
    )
    theirs = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (status, "")
    for said in (ours, theirs):
        said.pop("seconds", None)
    assert theirs == ours
    return ours


def test_single_file_finds_the_same_without_any_package(
    alone: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert both(alone, capsys, copy, "--key", KEY, "--since", copy / "kept-300")["ok"]
    assert both(alone, capsys, copy / "out", "--key", KEY, "--witness", WITNESS.vkey())["ok"]
    assert both(alone, capsys, copy, "--key", KEY, "--index", 17)["ok"]
    assert both(alone, capsys, copy, "--key", KEY, "--between", copy / "kept-100", copy / "kept-300")["ok"]
    opened = both(alone, capsys, zipped(copy / "bundle"), "--key", KEY, "--content", copy / "content.json")
    assert (opened["ok"], len(opened["opened"])) == (True, 2)
    assert both(alone, capsys, copy / "proof", "--key", KEY)["ok"]
    bundle = copy / "out/tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b'"m17"', b'"m71"'))
    assert both(alone, capsys, copy / "out", "--key", KEY)["findings"][0]["place"] == "entry 17"
    forged = (copy / "out/checkpoint").read_text().replace("\n600\n", "\n601\n")
    (copy / "out/checkpoint").write_text(forged)
    assert not both(alone, capsys, copy / "out", "--key", KEY)["ok"]
    assert "error" in both(alone, capsys, copy / "nowhere", "--key", KEY)


def test_single_file_holds_no_private_key_and_names_none_of_our_packages(alone: Path) -> None:
    text = alone.read_text("utf-8")
    assert "PrivateKey" not in text
    assert "Signer" not in text
    imported = [line for line in text.split("\n") if line.startswith(("import ", "from "))]
    ours = ("consent", "schemas", "gateway", "broker", "adapters")
    assert imported
    assert not [line for line in imported if line.split()[1].startswith(ours)]


def test_single_file_is_refused_when_two_modules_give_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker, "_MODULES", (*maker._MODULES, "merkle"))
    with pytest.raises(ValueError, match="two modules of the verifier give the name HASH_SIZE"):
        single_file()
    monkeypatch.setattr(maker, "_MODULES", ("note", "merkle"))
    with pytest.raises(ValueError, match=r"consent.note uses consent.ed25519, which does not come before it"):
        single_file()
