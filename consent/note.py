"""Signed notes (c2sp.org/signed-note), checkpoints (tlog-checkpoint), cosignatures v1 (tlog-cosignature) and
proofs to hand over (tlog-proof).

Everything read here may come from an opponent: every reader raises `ProofError` and nothing else, and its
message never repeats what was read.
"""

import binascii
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent.ed25519 import is_signed
from consent.merkle import HASH_SIZE, ProofError, leaf_hash, verify_inclusion

__all__ = [
    "Checkpoint",
    "Key",
    "ProofError",
    "Signer",
    "Signing",
    "TlogProof",
    "add_signatures",
    "cosigned_text",
    "open_checkpoint",
    "open_note",
    "split_note",
]

ED25519 = 0x01
COSIGNATURE_V1 = 0x04
MLDSA44 = 0x06  # a cosignature that a quantum computer could not forge either (FIPS 204)
_KEY_BYTES = {ED25519: 32, COSIGNATURE_V1: 32, MLDSA44: 1312}
_SEED_BYTES = 32  # of every algorithm here
MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100  # readers must take at least 16; a bound keeps a hostile note cheap
MAX_PATH = 63  # hashes of a proof in any tree that a checkpoint can name
MAX_SIZE = 2**63 - 1
_DASH = "— "  # U+2014 and a space open each signature line
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_SKEY_PREFIX = "PRIVATE+KEY+"
_TIMESTAMP_BYTES = 8
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_PATH_TOO_LONG = "the proof is too long"


@dataclass(frozen=True, slots=True)
class Key:
    """A public key that verifies lines of one *name*; *algorithm* is `ED25519`, `COSIGNATURE_V1` or
    `MLDSA44`. Lines of any other algorithm are of unknown keys, and ignored.
    """

    name: str
    algorithm: int
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that say which key a line was made with."""
        return sha256(self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public).digest()[:4]

    @classmethod
    def from_vkey(cls, vkey: str) -> "Key":
        """The key of a *vkey*, `name+hex id+base64(algorithm, key)`. Raises `ProofError`."""
        name, _, rest = vkey.strip().partition("+")
        identifier, _, encoded = rest.partition("+")
        raw = _from_base64(encoded, "the public key")
        if not _is_key_name(name) or not raw or raw[0] not in _KEY_BYTES:
            raise ProofError("this is not an Ed25519, cosignature/v1 or ML-DSA-44 verifier key")
        key = cls(name, raw[0], raw[1:])
        if len(key.public) != _KEY_BYTES[key.algorithm] or identifier.lower() != key.id.hex():
            raise ProofError("the verifier key does not match its own key id")
        return key

    @property
    def cosigns(self) -> bool:
        """Whether it is a witness's key, whose lines state a time."""
        return self.algorithm != ED25519

    def vkey(self) -> str:
        """The key as text that people exchange."""
        return f"{self.name}+{self.id.hex()}+{_to_base64(bytes([self.algorithm]) + self.public)}"

    def check(self, text: str, signature: bytes) -> int | None:
        """Returns when *signature* is this key's over *text*: for a cosignature its time (POSIX
        seconds), else nothing. Raises `ProofError`.
        """
        moment, signed = None, text.encode()
        if self.cosigns:
            moment = int.from_bytes(signature[:_TIMESTAMP_BYTES], "big")
            if moment > MAX_SIZE:
                raise ProofError("a cosignature states an impossible time")
            signed = _cosigned(self, text, moment)
            signature = signature[_TIMESTAMP_BYTES:]
        if not _is_signed(self, signature, signed):
            raise ProofError("a signature of a known key does not verify")
        return moment


class Signer:
    """A private key that signs lines under its *name*; never shown, kept in a file that only its owner
    may read.
    """

    def __init__(self, name: str, seed: bytes, algorithm: int = ED25519) -> None:
        if not _is_key_name(name):
            raise ProofError("a key name holds no space, no plus sign and no control character")
        if algorithm not in _KEY_BYTES or len(seed) != _SEED_BYTES:
            raise ProofError("a private key is 32 bytes of Ed25519, cosignature/v1 or ML-DSA-44")
        self._seed = seed
        self._private = _private(algorithm, seed)
        self.key = Key(name, algorithm, self._private.public_key().public_bytes_raw())
        self.name = name

    def __repr__(self) -> str:
        return f"Signer({self.name})"

    @classmethod
    def generate(cls, name: str, algorithm: int = ED25519) -> "Signer":
        """A new random key."""
        return cls(name, os.urandom(32), algorithm)

    @classmethod
    def from_file(cls, path: str | Path) -> "Signer":
        """The key stored at *path* by `save`. Raises `ProofError` when it is damaged, or others may read
        it.
        """
        try:
            if os.name == "posix" and Path(path).stat().st_mode & 0o077:
                raise ProofError("others may read the private key file; run chmod 600 on it")
            stored = Path(path).read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ProofError("the private key file cannot be read") from error
        return cls.from_text(stored)

    @classmethod
    def from_text(cls, stored: str) -> "Signer":
        """The key that `to_text` wrote. Raises `ProofError`."""
        stored = stored.strip()
        name, _, rest = stored.removeprefix(_SKEY_PREFIX).partition("+")
        identifier, _, encoded = rest.partition("+")
        raw = _from_base64(encoded, "the private key")
        if not stored.startswith(_SKEY_PREFIX) or len(raw) != 1 + _SEED_BYTES:
            raise ProofError("this is not a private key file")
        signer = cls(name, raw[1:], raw[0])
        if identifier != signer.key.id.hex():
            raise ProofError("the private key does not match its own key id")
        return signer

    def to_text(self) -> str:
        """The private key as text, with a newline; keep it where only its owner can read."""
        raw = bytes([self.key.algorithm]) + self._seed
        return f"{_SKEY_PREFIX}{self.name}+{self.key.id.hex()}+{_to_base64(raw)}\n"

    def save(self, path: str | Path) -> None:
        """Writes the key to a new file at *path*, mode 0600, durable when it returns.

        Raises `FileExistsError` rather than replace a key: with another one the ledger could not be
        continued.
        """
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(self.to_text())
            file.flush()
            os.fsync(handle)

    def vkey(self) -> str:
        """The public key as text, to be given to everybody who should be able to verify."""
        return self.key.vkey()

    def sign(self, text: str, moment: int | None = None) -> str:
        """The signature line over *text*, with its newline; *moment* (POSIX seconds) is for cosignatures."""
        prefix, signed = b"", text.encode()
        if self.key.cosigns:
            if moment is None:
                raise ValueError("a cosignature states its time")
            prefix, signed = moment.to_bytes(_TIMESTAMP_BYTES, "big"), _cosigned(self.key, text, moment)
        return f"{_DASH}{self.name} {_to_base64(self.key.id + prefix + self._signature(signed))}\n"

    def signers_for(self, size: int) -> Sequence["Signer"]:  # noqa: ARG002  # one key signs every size
        """Who signs a checkpoint of *size*: a ledger without rotated keys has one key for all."""
        return [self]

    def keys_for(self, size: int) -> Sequence[Key]:  # noqa: ARG002  # see above
        """The keys of which one must have signed a checkpoint of *size*."""
        return [self.key]

    def public(self) -> str:
        """What outsiders are given: the verifier key, on a line."""
        return f"{self.vkey()}\n"

    def _signature(self, data: bytes) -> bytes:
        return self._private.sign(data)


class Signing(Protocol):
    """Who signs a ledger's checkpoints, and whose signature on them counts: one `Signer`, or several over
    the ledger's life (`gateway.keys.Keyring`).
    """

    def signers_for(self, size: int) -> Sequence[Signer]:
        """Those who sign a checkpoint of *size*; all of them do. Never empty."""
        ...

    def keys_for(self, size: int) -> Sequence[Key]:
        """The keys of which one must have signed a checkpoint of *size*."""
        ...

    def public(self) -> str:
        """What outsiders are given: the newest key, and the rotations that lead to it."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to: *size* entries under *root*. *note* is the signed note it came in, "" when
    unsigned.
    """

    origin: str
    size: int
    root: bytes
    note: str = ""

    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{_to_base64(self.root)}\n"

    def signed_by(self, *signers: Signer) -> "Checkpoint":
        """The same checkpoint in a note with one signature of each of *signers*."""
        text = self.text()
        lines = "".join(signer.sign(text) for signer in signers)
        return Checkpoint(self.origin, self.size, self.root, f"{text}\n{lines}")

    @classmethod
    def from_note(cls, note: str) -> "Checkpoint":
        """The checkpoint that *note* states, its signatures NOT verified. Raises `ProofError`."""
        text, _ = split_note(note)
        return cls.from_text(text, note)

    @classmethod
    def from_text(cls, text: str, note: str = "") -> "Checkpoint":
        """The checkpoint that the *text* of a *note* states. Raises `ProofError`."""
        lines = text.split("\n")
        if len(lines) < 4 or not all(lines[:-1]):
            raise ProofError("a checkpoint has an origin, a tree size and a root hash, each on its line")
        root = _from_base64(lines[2], "the root hash")
        if len(root) != HASH_SIZE:
            raise ProofError("the root hash is not 32 bytes")
        return cls(lines[0], read_number(lines[1], "the tree size"), root, note)


@dataclass(frozen=True, slots=True)
class TlogProof:
    """One entry's place in a checkpointed tree, to be verified offline; *extra* is carried and proves
    nothing.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: Checkpoint
    extra: bytes | None = None

    def encode(self) -> str:
        """The proof as text, for a file named `*.tlog-proof`."""
        lines = [PROOF_HEADER]
        if self.extra is not None:
            lines.append(f"extra {_to_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(_to_base64(item) for item in self.path)
        return "\n".join(lines) + "\n\n" + self.checkpoint.note

    @classmethod
    def decode(cls, text: str) -> "TlogProof":
        """The proof in *text*, nothing of it verified. Raises `ProofError`."""
        index, lines, extra, note = split_proof(text)
        return cls(index, tuple(read_path(lines)), Checkpoint.from_note(note), extra)

    def verify(self, entry: bytes, keys: Sequence[Key]) -> None:
        """Returns when one of *keys* signed the checkpoint and *entry* stands at *index* in it, else
        `ProofError`.
        """
        open_checkpoint(self.checkpoint.note, keys)
        verify_inclusion(self.index, self.checkpoint.size, leaf_hash(entry), self.path, self.checkpoint.root)


def split_proof(text: str) -> tuple[int, list[str], bytes | None, str]:
    """The index, the lines of the path, the extra data and the note of the proof in *text*; path and note are
    not read yet. Raises `ProofError`.
    """
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    if not separator or len(text) > 2 * MAX_NOTE_BYTES or lines.pop(0) != PROOF_HEADER:
        raise ProofError("this is not a tlog-proof")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = _from_base64(lines.pop(0).removeprefix("extra "), "the extra data")
    if not lines or not lines[0].startswith("index "):
        raise ProofError("the proof does not say its index")
    return read_number(lines.pop(0).removeprefix("index "), "the index"), lines, extra, note


def read_path(lines: Iterable[str]) -> list[bytes]:
    """The hashes of a proof, one base64 line each. Raises `ProofError` for more than 63, or another
    length.
    """
    path = [_from_base64(line, "a hash of the proof") for line in lines]
    if len(path) > MAX_PATH:
        raise ProofError(_PATH_TOO_LONG)
    if any(len(item) != HASH_SIZE for item in path):
        raise ProofError("a hash in the proof is not 32 bytes")
    return path


def write_path(path: Iterable[bytes]) -> str:
    """The hashes of a proof, one base64 line each."""
    return "".join(f"{_to_base64(item)}\n" for item in path)


def split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The text of *note*, and its signatures as (key name, key id and signature). Raises `ProofError`."""
    if len(note) > MAX_NOTE_BYTES:
        raise ProofError("the note is too large")
    try:
        note.encode()
    except UnicodeEncodeError as error:
        raise ProofError("the note is not valid UTF-8") from error
    if _CONTROL.search(note):
        raise ProofError("the note holds a control character")
    at = note.rfind("\n\n")
    if at < 0 or not note.endswith("\n"):
        raise ProofError("the note has no signature block")
    text, lines = note[: at + 1], note[at + 2 : -1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise ProofError("the note has too many signatures")
    signatures = []
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        raw = _from_base64(encoded, "a signature line")
        if not line.startswith(_DASH) or not _is_key_name(name) or len(raw) <= 4:
            raise ProofError("a signature line is not a dash, a key name and a signature")
        signatures.append((name, raw))
    return text, signatures


def open_note(note: str, keys: Sequence[Key]) -> tuple[str, list[tuple[Key, int | None]]]:
    """The text of *note*, and which of *keys* signed it (with the time, for a cosignature).

    Lines of unknown keys are ignored. Raises `ProofError` when a line of a known key does not verify, or no
    line is of a known key.
    """
    text, signatures = split_note(note)
    verified: list[tuple[Key, int | None]] = []
    for name, raw in signatures:
        for key in keys:
            if key.name == name and key.id == raw[:4] and all(key != done for done, _ in verified):
                verified.append((key, key.check(text, raw[4:])))
    if not verified:
        raise ProofError("no known key signed this note")
    return text, verified


def add_signatures(note: str, lines: str, keys: Sequence[Key]) -> str:
    """*note* with those of the signature *lines* that are of *keys*, each key once; others are left out. Of
    two cosignatures by one key the later one stays: it says that the log still stood so then.

    Raises `ProofError` when they cannot be read, or one of *keys* does not verify.
    """
    text, present = split_note(note)
    offered_text, offered = split_note(f"{text}\n{lines}")
    if offered_text != text:
        raise ProofError("the signature lines hold an empty line")
    kept = {(name, raw[:4]): raw[4:] for name, raw in present}
    for name, raw in offered:
        for key in keys:
            line = (name, raw[:4])
            if (key.name, key.id) == line:
                key.check(text, raw[4:])
                # The time stands first, so that the bytes sort as the times do.
                if line not in kept or (key.cosigns and kept[line][:8] < raw[4:12]):
                    kept[line] = raw[4:]
    return text + "\n" + "".join(f"{_DASH}{n} {_to_base64(i + rest)}\n" for (n, i), rest in kept.items())


def open_checkpoint(note: str, keys: Sequence[Key], origin: str | None = None) -> Checkpoint:
    """The checkpoint in *note* when one of *keys* signed it (and it is of *origin*, when given), else
    `ProofError`.
    """
    open_note(note, keys)
    checkpoint = Checkpoint.from_note(note)
    if origin is not None and checkpoint.origin != origin:
        raise ProofError("the checkpoint is of another log")
    return checkpoint


def cosigned_text(text: str, moment: int) -> bytes:
    """What a cosignature v1 of *text* at *moment* (POSIX seconds) signs."""
    return f"cosignature/v1\ntime {moment}\n{text}".encode()


def _cosigned(key: Key, text: str, moment: int) -> bytes:
    """What *key* signs when it cosigns the checkpoint *text* at *moment*."""
    if key.algorithm == COSIGNATURE_V1:
        return cosigned_text(text, moment)
    checkpoint = Checkpoint.from_text(text)
    name, origin = key.name.encode(), checkpoint.origin.encode()
    if max(len(name), len(origin)) > 255:  # each is preceded by its length in one byte
        raise ProofError("a name is too long to be cosigned")
    stamp, start, end = (number.to_bytes(8, "big") for number in (moment, 0, checkpoint.size))
    parts = (b"subtree/v1\n\x00", bytes([len(name)]), name, stamp, bytes([len(origin)]), origin, start, end)
    return b"".join(parts) + checkpoint.root


class _Signs(Protocol):
    def sign(self, data: bytes, /) -> bytes: ...
    def public_key(self) -> Any: ...


def _is_signed(key: Key, signature: bytes, data: bytes) -> bool:
    if key.algorithm != MLDSA44:
        return is_signed(key.public, signature, data)
    public = _post_quantum().MLDSA44PublicKey.from_public_bytes(key.public)
    try:
        public.verify(signature, data)
    except Exception:  # the library's own kinds cannot be named where it is not installed
        return False
    return True


def _private(algorithm: int, seed: bytes) -> _Signs:
    if algorithm == MLDSA44:
        return _post_quantum().MLDSA44PrivateKey.from_seed_bytes(seed)  # type: ignore[no-any-return]
    return Ed25519PrivateKey.from_private_bytes(seed)


def _post_quantum() -> Any:
    try:
        return import_module("cryptography.hazmat.primitives.asymmetric.mldsa")
    except ImportError as error:  # an older library; everything with Ed25519 alone still verifies
        raise ProofError("ML-DSA-44 needs a newer release of the cryptography package") from error


def _is_key_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name)


def read_number(text: str, what: str) -> int:
    """The decimal *text*, without sign and leading zeros, as the formats demand. Raises `ProofError` about
    *what*.
    """
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0") or len(text) > 19:
        raise ProofError(f"{what} is not a plain decimal number")
    number = int(text)
    if number > MAX_SIZE:
        raise ProofError(f"{what} is too large")
    return number


def _to_base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _from_base64(text: str, what: str) -> bytes:
    """Strict standard base64: one text for one value, so that nobody can vary a proof without changing it."""
    try:
        data = binascii.a2b_base64(text)
    except ValueError as error:  # binascii.Error is one, and so is a text that is not ASCII
        raise ProofError(f"{what} is not base64") from error
    if _to_base64(data) != text:  # other signs were skipped, or the last bits are not zero
        raise ProofError(f"{what} is not canonical base64")
    return data
