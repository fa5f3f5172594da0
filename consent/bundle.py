"""Evidence bundles: the entries on one message or one person, each with its proof, as a folder or a zip
archive that can be handed over.

    README.txt            what this is, in plain words
    checkpoint            the signed checkpoint that every proof leads to
    ledger.vkey           the ledger's public key, to be compared with one that came another way
    entries/17.json       the entry, byte for byte
    proofs/17.tlog-proof  its path to the checkpoint's root (c2sp.org/tlog-proof)
    reveal.json           salts that open commitments (`consent.reveal`), for whom they were given to alone

Whoever passes a bundle on without `reveal.json` shows that somebody was told something, not about whom.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from consent.copies import NothingToVerify, read_start
from consent.entry import read_entry
from consent.key_history import KeyHistory
from consent.merkle import ProofError
from consent.note import MAX_NOTE_BYTES, Checkpoint, Key, TlogProof, open_note
from consent.report import Report
from consent.reveal import MAX_REVEAL_BYTES, Reveal
from consent.tiles import MAX_ENTRY_BYTES

CHECKPOINT, KEY, REVEAL = "checkpoint", "ledger.vkey", "reveal.json"
_MAX_FILES = 1_000_000
_NUMBERED = re.compile(r"(entries|proofs)/(0|[1-9][0-9]{0,17})\.(json|tlog-proof)")
# What Python's reader of archives raises for damaged ones (RuntimeError: encrypted, or an unknown method).
_DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, ValueError, RuntimeError, EOFError)
_ZIP_MAGIC = b"PK\x03\x04"


# The keys to trust, given what the bundle states beside its checkpoint.
Followed = Callable[[str], KeyHistory]


class _Files(Protocol):
    """The files of a bundle. Reading raises `ProofError` when one is damaged or larger than *limit* bytes."""

    def names(self) -> Sequence[str]:
        """Every file's name, with `/` between folders."""
        ...

    def read(self, name: str, limit: int) -> bytes | None:
        """The bytes of a file; None when there is none."""
        ...


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> Sequence[str]:
        return [
            f"{part}/{path.name}"
            for part in ("entries", "proofs")
            for path in (self._folder / part).glob("*")
        ]

    def read(self, name: str, limit: int) -> bytes | None:
        path = self._folder / name
        if not path.is_file():
            return None
        try:
            return _limited(read_start(path, limit + 1), name, limit)
        except NothingToVerify as error:
            raise ProofError(f"{name} cannot be read") from error


class _Archive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = frozenset(archive.namelist())

    def names(self) -> Sequence[str]:
        return sorted(self._names)

    def read(self, name: str, limit: int) -> bytes | None:
        if name not in self._names:
            return None
        try:
            with self._archive.open(name) as file:  # unpacked no further than the limit
                return _limited(file.read(limit + 1), name, limit)
        except _DAMAGED_ARCHIVE as error:
            raise ProofError(f"{name} cannot be unpacked") from error


def is_bundle(path: Path) -> bool:
    """Whether a bundle is at *path*, sound or not."""
    if path.is_dir():
        return (path / "proofs").is_dir() and not (path / "tile").exists()
    return path.is_file() and read_start(path, len(_ZIP_MAGIC)) == _ZIP_MAGIC


def verify_bundle(
    path: Path,
    followed: Followed,
    report: Report,
    witnesses: Sequence[Key] = (),
    reveal: Reveal | None = None,
    contents: Sequence[tuple[str, bytes]] = (),
) -> Reveal | None:
    """Shows that every entry of the bundle at *path* stands under its checkpoint, that a key which *followed*
    names signed it, and each of *witnesses* cosigned it. The salts of *reveal*, else those that the bundle
    carries, are tried on its entries and on *contents*; returns them.

    Raises `NothingToVerify` when an archive cannot be opened.
    """
    if path.is_dir():
        return _verify(_Folder(path), followed, report, witnesses, reveal, contents)
    try:
        with zipfile.ZipFile(path) as archive:
            return _verify(_Archive(archive), followed, report, witnesses, reveal, contents)
    except _DAMAGED_ARCHIVE as error:
        raise NothingToVerify("the archive cannot be opened") from error


def _verify(
    files: _Files,
    followed: Followed,
    report: Report,
    witnesses: Sequence[Key],
    reveal: Reveal | None,
    contents: Sequence[tuple[str, bytes]],
) -> Reveal | None:
    history = followed("")
    report.origin = history.anchor.name
    try:
        history = followed((files.read(KEY, MAX_NOTE_BYTES) or b"").decode("utf-8", "replace"))
        note = _text(files, CHECKPOINT, MAX_NOTE_BYTES)
        checkpoint = history.open(note)
        salts = files.read(REVEAL, MAX_REVEAL_BYTES)
        if reveal is None and salts is not None:
            reveal = Reveal(salts, contents)
        numbers = _numbers(files.names())
    except ProofError as error:
        report.add("bundle", str(error))
        return reveal
    report.checkpoints, report.root, report.note = 1, checkpoint.root, note
    for witness in witnesses:
        try:
            open_note(note, [witness])
            report.witnesses.append(witness.name)
        except ProofError as error:
            report.add(f"witness {witness.name}", str(error))
    for index in numbers:
        try:
            _verify_one(files, index, checkpoint, history, report, reveal)
        except ProofError as error:
            report.add(f"entry {index}", str(error))
    if not numbers:
        report.add("bundle", "it holds no entry")
    report.signed = report.size
    report.proved = f"each stands in the ledger of {checkpoint.size:,} entries that the checkpoint signs"
    return reveal


def _verify_one(
    files: _Files,
    index: int,
    checkpoint: Checkpoint,
    history: KeyHistory,
    report: Report,
    reveal: Reveal | None,
) -> None:
    entry = files.read(f"entries/{index}.json", MAX_ENTRY_BYTES)
    if entry is None:
        raise ProofError("there is a proof, but no entry")
    proof = TlogProof.decode(_text(files, f"proofs/{index}.tlog-proof", 2 * MAX_NOTE_BYTES))
    if proof.index != index:
        raise ProofError(f"its proof is of entry {proof.index}")
    if (proof.checkpoint.size, proof.checkpoint.root) != (checkpoint.size, checkpoint.root):
        raise ProofError("its proof leads to another checkpoint than the bundle's")
    proof.verify(entry, history.keys_for(checkpoint.size))
    body, kind, *_ = read_entry(entry)
    report.kinds[kind] += 1
    report.size += 1
    if reveal is not None:
        reveal.see(index, body, report.add)


def _numbers(names: Sequence[str]) -> list[int]:
    found = {int(match[2]) for name in names if (match := _NUMBERED.fullmatch(name))}
    if len(found) > _MAX_FILES:
        raise ProofError("it holds more entries than anybody can mean")
    return sorted(found)


def _text(files: _Files, name: str, limit: int) -> str:
    data = files.read(name, limit)
    if data is None:
        raise ProofError(f"{name} is missing")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProofError(f"{name} is not valid UTF-8") from error


def _limited(data: bytes, name: str, limit: int) -> bytes:
    if len(data) > limit:
        raise ProofError(f"{name} is too large")
    return data
