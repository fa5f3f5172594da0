"""Signed notes, checkpoints, cosignatures and proofs to hand over: published vectors, every malformed
shape.
"""

import base64
import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.merkle import EMPTY_ROOT, ProofError, leaf_hash, node_hash
from consent.note import (
    COSIGNATURE_V1,
    MAX_NOTE_BYTES,
    MAX_PATH,
    MAX_SIGNATURES,
    MLDSA44,
    Checkpoint,
    Key,
    Signer,
    TlogProof,
    add_signatures,
    open_checkpoint,
    open_note,
    read_path,
    split_note,
    write_path,
)

# From the signed-note specification, and from the tests of Go's golang.org/x/mod/sumdb/note.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
PETER_LINE = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

LOG = Signer("isr.test/ledger", bytes(range(32)))
OTHER = Signer("other.test/ledger", bytes(range(1, 33)))
WITNESS = Signer("witness.test", bytes(range(2, 34)), COSIGNATURE_V1)
ROOT = leaf_hash(b"entry")
CHECKPOINT = Checkpoint("isr.test/ledger", 1, ROOT).signed_by(LOG)


def test_note_of_the_specification_verifies() -> None:
    text, signers = open_note(EXAMPLE, [Key.from_vkey(EXAMPLE_KEY)])
    assert text == "This is an example message.\n"
    assert [key.name for key, _ in signers] == ["example.com/foo"]


def test_signer_makes_the_signature_that_go_publishes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(PETER_SECRET + "\n")
    signer = Signer.from_file(path)
    assert signer.sign(PETER_TEXT) == PETER_LINE
    assert signer.vkey() == PETER_KEY
    assert open_note(f"{PETER_TEXT}\n{PETER_LINE}", [Key.from_vkey(PETER_KEY)])[0] == PETER_TEXT


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "+",
        "++",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        pytest.param(PETER_KEY[1:], id="name cut"),
        pytest.param(PETER_KEY[:-4], id="key cut"),
        pytest.param(PETER_KEY.replace("c74f20a3", "c74f20a4"), id="another key id"),
        pytest.param(PETER_KEY.replace("PeterNeumann", "Peter Neumann"), id="space in the name"),
        pytest.param(PETER_KEY.replace("PeterNeumann", "Peter\u2003Neumann"), id="wide space in the name"),
        pytest.param("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", id="long"),
        pytest.param("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", id="algorithm"),
        pytest.param(PETER_KEY + "\u0101", id="not ASCII"),
    ],
)
def test_key_refuses_a_damaged_vkey(vkey: str) -> None:
    with pytest.raises(ProofError):
        Key.from_vkey(vkey)


def test_key_survives_the_way_to_text_and_back() -> None:
    for signer in (LOG, WITNESS):
        assert Key.from_vkey(signer.vkey()) == signer.key
        assert signer.key.vkey() == signer.vkey()


def test_signer_file_is_for_its_owner_only_and_never_replaced(tmp_path: Path) -> None:
    signer = Signer.generate("isr.test/ledger")
    path = tmp_path / "ledger.key"
    signer.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Signer.from_file(path).sign("text\n") == signer.sign("text\n")
    with pytest.raises(FileExistsError):
        signer.save(path)
    path.chmod(0o640)
    with pytest.raises(ProofError, match="chmod 600"):
        Signer.from_file(path)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"PRIVATE+KEY+",
        PETER_SECRET.removeprefix("PRIVATE+KEY+").encode(),
        PETER_SECRET[:-4].encode(),
        PETER_SECRET.replace("c74f20a3", "c74f20a4").encode(),
        b"\xff\xfe",
    ],
)
def test_signer_refuses_a_damaged_file(tmp_path: Path, stored: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(stored)
    path.chmod(0o600)
    with pytest.raises(ProofError):
        Signer.from_file(path)
    with pytest.raises(ProofError):
        Signer.from_file(tmp_path / "missing")


def test_signer_never_shows_its_key() -> None:
    assert base64.b64encode(bytes(range(32))).decode()[:12] not in repr(LOG)
    assert "isr.test/ledger" in repr(LOG)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "line\nbreak", "\u00a0"])
def test_signer_refuses_a_name_that_a_note_cannot_hold(name: str) -> None:
    with pytest.raises(ProofError):
        Signer(name, bytes(32))


def test_note_ignores_unknown_keys_and_refuses_when_only_those_signed() -> None:
    text = CHECKPOINT.text()
    note = f"{text}\n{OTHER.sign(text)}{LOG.sign(text)}"
    assert [key.name for key, _ in open_note(note, [LOG.key])[1]] == [LOG.name]
    with pytest.raises(ProofError, match="no known key"):
        open_note(f"{text}\n{OTHER.sign(text)}", [LOG.key])
    with pytest.raises(ProofError, match="no known key"):
        open_note(note, [])


def test_note_is_refused_when_one_of_two_known_signatures_is_bad() -> None:
    text, stray = CHECKPOINT.text(), OTHER.sign("another text\n")
    with pytest.raises(ProofError, match="does not verify"):
        open_note(f"{text}\n{LOG.sign(text)}{stray}", [LOG.key, OTHER.key])


def test_key_of_the_same_name_but_another_id_is_unknown() -> None:
    twin = Signer(LOG.name, bytes(32))
    with pytest.raises(ProofError, match="no known key"):
        open_note(CHECKPOINT.note, [twin.key])


def test_note_may_hold_empty_lines_in_its_text() -> None:
    text = "first\n\nsecond\n"
    assert split_note(f"{text}\n{LOG.sign(text)}")[0] == text


def test_note_takes_sixteen_signatures_and_more_up_to_a_bound() -> None:
    text = CHECKPOINT.text()
    filler = "".join(Signer(f"k{i}", bytes([i]) * 32).sign(text) for i in range(15))
    assert open_note(f"{text}\n{filler}{LOG.sign(text)}", [LOG.key])[0] == text
    with pytest.raises(ProofError, match="too many"):
        split_note(f"{text}\n{LOG.sign(text) * (MAX_SIGNATURES + 1)}")


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "\n\n",
        "text\n",
        "text\n\n",
        pytest.param(CHECKPOINT.note[:-1], id="no last newline"),
        pytest.param(CHECKPOINT.note.replace("— ", "- "), id="hyphen"),
        pytest.param(CHECKPOINT.note.replace("— ", "—"), id="no space"),
        pytest.param(CHECKPOINT.note.replace("\n\n", "\n"), id="no blank line"),
        pytest.param(CHECKPOINT.note + "\n", id="trailing blank line"),
        pytest.param(CHECKPOINT.note.replace("isr", "\x00isr"), id="control character"),
        pytest.param(CHECKPOINT.note.replace("isr", "\tisr"), id="tab"),
        pytest.param(CHECKPOINT.note.replace("\n", "\r\n"), id="CR LF"),
        pytest.param(CHECKPOINT.note.replace("isr", "\ud800isr"), id="surrogate"),
        pytest.param(CHECKPOINT.text() + "\n— isr.test/ledger AAAA\n", id="no signature after the key id"),
        pytest.param("x" * MAX_NOTE_BYTES + CHECKPOINT.note, id="too large"),
    ],
)
def test_note_refuses_malformed_text(note: str) -> None:
    with pytest.raises(ProofError):
        open_note(note, [LOG.key])


@given(st.integers(0, len(CHECKPOINT.note) - 1), st.characters(codec="utf-8"))
def test_note_with_one_character_changed_never_opens(at: int, character: str) -> None:
    changed = CHECKPOINT.note[:at] + character + CHECKPOINT.note[at + 1 :]
    if changed != CHECKPOINT.note:
        with pytest.raises(ProofError):
            open_checkpoint(changed, [LOG.key], LOG.name)


def test_signature_that_decodes_alike_but_is_written_otherwise_is_refused() -> None:
    end = CHECKPOINT.note.rstrip("\n")
    spare_bits = end[:-2] + chr(ord(end[-2]) + 1) + end[-1] + "\n"
    with pytest.raises(ProofError, match="canonical"):
        split_note(spare_bits)


@given(st.text())
def test_readers_raise_only_their_own_error_on_any_text(text: str) -> None:
    for read in (split_note, Checkpoint.from_note, TlogProof.decode, Key.from_vkey):
        with pytest.raises(ProofError):
            read(text)


PIECES = st.sampled_from(
    [
        "\n",
        "\n\n",
        "— ",
        " ",
        "isr.test/ledger",
        "AAAAAAAA",
        "=",
        "1",
        "index 0",
        "extra ",
        "c2sp.org/tlog-proof@v1",
    ]
)


@given(st.lists(PIECES, max_size=20))
def test_readers_raise_only_their_own_error_on_pieces_of_notes(pieces: list[str]) -> None:
    for read in (split_note, Checkpoint.from_note, TlogProof.decode):
        with contextlib.suppress(ProofError):
            read("".join(pieces))


def test_error_of_a_reader_never_repeats_what_was_read() -> None:
    note = CHECKPOINT.note.replace("isr.test", "\tsecret.test")
    with pytest.raises(ProofError) as caught:
        split_note(note)
    assert "secret" not in str(caught.value)


def test_checkpoint_survives_the_way_to_text_and_back() -> None:
    assert open_checkpoint(CHECKPOINT.note, [LOG.key], "isr.test/ledger") == CHECKPOINT
    empty = Checkpoint("isr.test/ledger", 0, EMPTY_ROOT).signed_by(LOG)
    assert open_checkpoint(empty.note, [LOG.key]) == empty


def test_checkpoint_of_another_origin_is_refused_even_when_signed() -> None:
    other = Checkpoint("isr.test/other", 1, ROOT).signed_by(LOG)
    with pytest.raises(ProofError, match="another log"):
        open_checkpoint(other.note, [LOG.key], "isr.test/ledger")


def test_checkpoint_with_extension_lines_is_read() -> None:
    text = CHECKPOINT.text() + "an extension\n"
    assert Checkpoint.from_note(f"{text}\n{LOG.sign(text)}").size == 1


ROOT64 = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    "text",
    [
        "isr.test/ledger\n",
        "isr.test/ledger\n1\n",
        f"\n1\n{ROOT64}\n",
        f"isr.test/ledger\n\n{ROOT64}\n",
        f"isr.test/ledger\n01\n{ROOT64}\n",
        f"isr.test/ledger\n-1\n{ROOT64}\n",
        f"isr.test/ledger\n+1\n{ROOT64}\n",
        f"isr.test/ledger\n1.0\n{ROOT64}\n",
        f"isr.test/ledger\n1 \n{ROOT64}\n",
        f"isr.test/ledger\n١\n{ROOT64}\n",
        f"isr.test/ledger\n9223372036854775808\n{ROOT64}\n",
        f"isr.test/ledger\n{'9' * 5000}\n{ROOT64}\n",
        f"isr.test/ledger\n1\n{ROOT64[:-4]}\n",
        f"isr.test/ledger\n1\n{ROOT64[:-1]}\n",
        f"isr.test/ledger\n1\n{ROOT64} \n",
        "isr.test/ledger\n1\n\n",
    ],
)
def test_checkpoint_refuses_malformed_text(text: str) -> None:
    with pytest.raises(ProofError):
        Checkpoint.from_note(f"{text}\n{LOG.sign(text)}")


def test_cosignature_states_its_time_and_signs_it() -> None:
    text = CHECKPOINT.text()
    line = WITNESS.sign(text, 1_790_000_000)
    assert open_note(CHECKPOINT.note + line, [WITNESS.key])[1] == [(WITNESS.key, 1_790_000_000)]
    name, raw = line[2:].rstrip("\n").split(" ")
    blob = bytearray(base64.b64decode(raw))
    blob[4 + 7] ^= 1  # one second earlier or later
    forged = f"— {name} {base64.b64encode(blob).decode()}\n"
    with pytest.raises(ProofError, match="does not verify"):
        open_note(CHECKPOINT.note + forged, [WITNESS.key])


def test_cosignature_is_refused_for_another_checkpoint_and_needs_a_time() -> None:
    line = WITNESS.sign(CHECKPOINT.text(), 1_790_000_000)
    larger = Checkpoint("isr.test/ledger", 2, node_hash(ROOT, ROOT)).signed_by(LOG)
    with pytest.raises(ProofError):
        open_note(larger.note + line, [WITNESS.key])
    with pytest.raises(ValueError, match="time"):
        WITNESS.sign(CHECKPOINT.text())


def test_cosignature_key_does_not_pass_for_a_log_key() -> None:
    as_log = Signer(WITNESS.name, bytes(range(2, 34)))
    assert as_log.key.id != WITNESS.key.id
    with pytest.raises(ProofError, match="no known key"):
        open_note(f"{CHECKPOINT.text()}\n{as_log.sign(CHECKPOINT.text())}", [WITNESS.key])


@pytest.mark.parametrize("length", [0, 1, 7, 8, 63, 65, 71, 73])
def test_signature_of_another_length_is_refused(length: int) -> None:
    for signer in (LOG, WITNESS):
        raw = base64.b64encode(signer.key.id + bytes(length)).decode()
        with pytest.raises(ProofError):
            open_note(f"{CHECKPOINT.text()}\n— {signer.name} {raw}\n", [signer.key])


TWO = Checkpoint("isr.test/ledger", 2, node_hash(ROOT, leaf_hash(b"second"))).signed_by(LOG)
PROOF = TlogProof(1, (ROOT,), TWO, b"second")


def test_tlog_proof_survives_the_way_to_text_and_back_and_verifies() -> None:
    for extra in (None, b"", b"second"):
        proof = TlogProof(1, (ROOT,), TWO, extra)
        again = TlogProof.decode(proof.encode())
        assert again == proof
        again.verify(b"second", [LOG.key])


def test_tlog_proof_has_the_published_layout() -> None:
    assert PROOF.encode() == (f"c2sp.org/tlog-proof@v1\nextra c2Vjb25k\nindex 1\n{ROOT64}\n\n{TWO.note}")
    alone = TlogProof(0, (), CHECKPOINT)
    assert alone.encode() == f"c2sp.org/tlog-proof@v1\nindex 0\n\n{CHECKPOINT.note}"
    TlogProof.decode(alone.encode()).verify(b"entry", [LOG.key])


def test_tlog_proof_of_another_entry_index_or_key_is_refused() -> None:
    with pytest.raises(ProofError):
        PROOF.verify(b"Second", [LOG.key])
    with pytest.raises(ProofError):
        TlogProof(0, (ROOT,), TWO).verify(b"second", [LOG.key])
    with pytest.raises(ProofError):
        PROOF.verify(b"second", [OTHER.key])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@v1", "@v2"),
        ("index 1", "index 01"),
        ("index 1", "index -1"),
        ("index 1\n", ""),
        ("extra c2Vjb25k", "extra c2Vjb25kk"),
        (f"index 1\n{ROOT64}", f"{ROOT64}\nindex 1"),
        (ROOT64, ROOT64[:-4]),
        (ROOT64, "\n".join([ROOT64] * (MAX_PATH + 1))),
        ("\n\nisr", "\nisr"),
    ],
)
def test_tlog_proof_refuses_malformed_text(old: str, new: str) -> None:
    text = PROOF.encode()
    assert old in text
    with pytest.raises(ProofError):
        TlogProof.decode(text.replace(old, new, 1))


def test_path_survives_the_way_to_text_and_back() -> None:
    path = [os.urandom(32) for _ in range(MAX_PATH)]
    assert read_path(write_path(path).splitlines()) == path


def test_cosignature_with_ml_dsa_is_verified_and_spoils_nothing_for_those_who_do_not_know_it() -> None:
    """c2sp.org/tlog-cosignature: type 6, over name, time, origin, size and root."""
    quantum = Signer("quantum.test", bytes(range(32)), MLDSA44)
    assert Key.from_vkey(quantum.vkey()) == quantum.key
    plain = Checkpoint(LOG.name, 7, bytes(32)).signed_by(LOG)
    line = quantum.sign(plain.text(), 1_790_000_000)
    assert open_note(plain.note + line, [quantum.key]) == (plain.text(), [(quantum.key, 1_790_000_000)])
    assert open_note(plain.note + line, [LOG.key]) == (plain.text(), [(LOG.key, None)])
    other = Checkpoint(LOG.name, 8, bytes(32)).signed_by(LOG)
    with pytest.raises(ProofError, match="does not verify"):
        open_note(other.note + line, [quantum.key])
    raw = base64.b64decode(line.split(" ")[2])
    later = raw[:11] + bytes([raw[11] ^ 1]) + raw[12:]
    changed = f"\u2014 quantum.test {base64.b64encode(later).decode()}\n"
    with pytest.raises(ProofError, match="does not verify"):
        open_note(plain.note + changed, [quantum.key])
    with pytest.raises(ProofError, match="impossible time"):
        quantum.key.check(plain.text(), b"\xff" * 2428)


@given(st.integers(7, 255), st.binary(min_size=1, max_size=3000))
def test_line_of_an_unknown_algorithm_is_ignored_and_its_key_refused(algorithm: int, rest: bytes) -> None:
    key = Key(LOG.name, algorithm, rest)
    plain = Checkpoint(LOG.name, 7, bytes(32)).signed_by(LOG)
    note = plain.note + f"\u2014 {LOG.name} {base64.b64encode(key.id + rest).decode()}\n"
    assert open_note(note, [LOG.key])[1] == [(LOG.key, None)]
    with pytest.raises(ProofError):
        Key.from_vkey(key.vkey())


def test_later_cosignature_of_a_witness_replaces_the_earlier_one() -> None:
    plain = Checkpoint(LOG.name, 7, bytes(32)).signed_by(LOG)
    early, late = (WITNESS.sign(plain.text(), moment) for moment in (5, 6))
    once = add_signatures(plain.note, early, [WITNESS.key])
    assert add_signatures(once, late, [WITNESS.key]) == plain.note + late
    assert add_signatures(plain.note + late, early, [WITNESS.key]) == plain.note + late
