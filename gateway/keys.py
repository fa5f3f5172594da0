"""The ledger's signing keys in the data folder, the environment or behind a program of their own (a hardware
module), and their rotation.

`ledger.vkey` is public: the newest verifier key, and behind it every rotation. Private keys are
`ledger.key` and `ledger-<key id>.key` (mode 0600), or `ISR_HUB_SIGNING_KEY`; a key that is in neither is
asked for at `ISR_HUB_SIGNER`.
"""

import base64
import binascii
import os
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from consent.entry import KEY_CHANGE
from consent.key_history import KeyHistory, Rotation
from consent.ledger import Entry, Ledger
from consent.note import ED25519, Key, ProofError, Signer
from gateway.settings import Settings
from schemas.clock import Clock, rfc3339
from schemas.errors import BadSettings, NotSigned

__all__ = ["CommandSigner", "Keyring", "make_key", "rotate", "write_once"]

OVERLAP = 100_000  # entries: about a month of a region's, in which verifiers and witnesses learn the new key
_COMMAND_SECONDS = 10.0
_SIGNATURE_BYTES = 64


class CommandSigner(Signer):
    """Signs by running *command*: the bytes to sign on its standard input, the signature (64 bytes, or base64
    of them) on its standard output. `{key}` in it becomes the key's id in hex.
    """

    def __init__(self, key: Key, command: str) -> None:
        self.key, self.name = key, key.name
        self._command = [part.replace("{key}", key.id.hex()) for part in shlex.split(command)]

    def to_text(self) -> str:
        """Not possible: the private key is not here."""
        raise ProofError("the private key is kept elsewhere")

    def _signature(self, data: bytes) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603  # the operator's own setting
                self._command, input=data, capture_output=True, timeout=_COMMAND_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            # Not what it wrote: nobody knows what a stranger's program says about a secret.
            raise NotSigned(f"the signer's command failed: {type(error).__name__}") from None
        answer = done.stdout
        if len(answer) != _SIGNATURE_BYTES:
            try:
                answer = base64.b64decode(answer.strip(), validate=True)
            except (binascii.Error, ValueError):
                raise NotSigned("the signer's command did not answer with a signature") from None
        try:
            _verify(self.key, data, answer)
        except ProofError:
            # A note with a bad signature of the hub's own key would stop every hub and every verifier.
            raise NotSigned("the signature of the signer's command does not verify") from None
        return answer


class Keyring:
    """Who signs this ledger, as `ledger.vkey` says, read again whenever the file has changed: a rotation
    takes effect in processes that run. Threads may share it.

    Raises `BadSettings` when the newest key cannot be used here, unless it *may_lack_newest*.
    """

    def __init__(self, settings: Settings, *, may_lack_newest: bool = False) -> None:
        self._settings, self._path = settings, settings.data / "ledger.vkey"
        self._may_lack_newest = may_lack_newest
        self._lock = threading.Lock()
        self._read: tuple[int, int] | None = None
        self.keys_for(0)

    @property
    def history(self) -> KeyHistory:
        """The keys and rotations of this ledger."""
        with self._lock:
            self._refresh()
            return self._history

    def keys_for(self, size: int) -> Sequence[Key]:
        """See `consent.note.Signing`."""
        return self.history.keys_for(size)

    def signers_for(self, size: int) -> Sequence[Signer]:
        """See `consent.note.Signing`. During an overlap the old key signs too, while it is still here."""
        with self._lock:
            self._refresh()
            keys = self._history.keys_for(size)
            return [self._signers[key] for key in keys if key in self._signers]

    def public(self) -> str:
        """See `consent.note.Signing`."""
        return self.history.encode()

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp == self._read:
                return
            history = KeyHistory.parse(self._path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, ProofError) as error:
            said = error if isinstance(error, ProofError) else type(error).__name__
            raise BadSettings(f"ledger.vkey in the data folder cannot be used: {said}") from None
        signers = {signer.key: signer for signer in _private_keys(self._settings)}
        newest = history.newest
        if newest.name != self._settings.origin:
            raise BadSettings(
                "ledger.vkey is of another ledger: set ISR_HUB_ORIGIN to the name before its first plus "
                "sign, or choose another data folder"
            )
        if self._settings.signer:
            for key, _, _ in history.spans():
                signers.setdefault(key, CommandSigner(key, self._settings.signer))
        if newest not in signers and not self._may_lack_newest:
            raise BadSettings(
                f"the private key {newest.id.hex()} that ledger.vkey names is not here: put it into the data "
                "folder or ISR_HUB_SIGNING_KEY, or set ISR_HUB_SIGNER"
            )
        self._history, self._signers, self._read = history, signers, stamp


def make_key(settings: Settings, public: str = "") -> Keyring:
    """The keyring in the data folder, made when there is none: with a new `ledger.key`, with the key in
    `ISR_HUB_SIGNING_KEY`, or with the *public* key (base64) of one that `ISR_HUB_SIGNER` holds.
    """
    path = settings.data / "ledger.vkey"
    if not path.exists():
        if public:
            key = _public_key(settings.origin, public)
        else:
            if not settings.signing_key and not (settings.data / "ledger.key").exists():
                if settings.signer:
                    raise BadSettings(
                        "ISR_HUB_SIGNER is set and its public key is not known; run isr-hub keys init "
                        "--public KEY"
                    )
                write_once(
                    settings.data / "ledger.key", Signer.generate(settings.origin).to_text().encode("ascii")
                )
            key = _private_keys(settings)[0].key
        _publish(path, KeyHistory(key))
    return Keyring(settings)


def rotate(
    settings: Settings,
    engine: sa.Engine,
    clock: Clock,
    *,
    overlap: int = OVERLAP,
    without_old: bool = False,
    public: str = "",
) -> Rotation:
    """Replaces the ledger's signing key from the next entry on; the old one counts for *overlap* entries
    more. *without_old* is for a key that was lost or stolen: the new key alone signs the rotation, there is
    no overlap, and everybody has to be given the new key. *public* (base64) names a key at `ISR_HUB_SIGNER`.

    The rotation is an entry of the ledger; the old private key stays where it is until somebody destroys
    it. Safe to repeat after a crash: a rotation that is in `ledger.vkey`
    and not in the ledger is entered then, and no other is made.
    """
    ring = Keyring(settings, may_lack_newest=without_old)
    ledger = Ledger(engine, ring, settings.origin, clock)
    ledger.start()
    history = ring.history
    if history.rotations and not ledger.find(_name(history.rotations[-1])):
        with engine.begin() as connection:
            ledger.append(connection, [_entry(history.rotations[-1], clock)])
        return history.rotations[-1]
    if public:
        signer: Signer = CommandSigner(_public_key(settings.origin, public), settings.signer)
        if not settings.signer:
            raise BadSettings("ISR_HUB_SIGNER must say how to sign with that key")
    else:
        signer = Signer.generate(settings.origin)
        # ‖ A crash after this leaves a key that signs nothing.
        write_once(settings.data / f"ledger-{signer.key.id.hex()}.key", signer.to_text().encode("ascii"))
    old = history.newest
    vouching = [] if without_old else [s for s in ring.signers_for(ledger.head().size) if s.key == old]
    with engine.begin() as connection:
        # While the head is locked nobody can append, and so nobody sign a larger tree than this.
        size = ledger.lock(connection)
        until = size if without_old else size + overlap
        made = Rotation(settings.origin, size + 1, until, old, signer.key).signed_by([signer, *vouching])
        _publish(settings.data / "ledger.vkey", KeyHistory(signer.key, [*history.rotations, made]))
        # ‖ A crash here: the rotation counts, and its entry is missing until the command is repeated.
        ledger.append(connection, [_entry(made, clock)])
    ledger.sign()
    return made


def write_once(path: Path, content: bytes) -> None:
    """Writes a key whole or not at all, unless another process was faster: then that one's stands. A crash
    leaves a temporary file, which is not read.
    """
    name = _written(path, content)
    try:
        # Unlike a rename, a link never replaces: two processes that start at once must not use two keys.
        with suppress(FileExistsError):
            path.hardlink_to(name)
    finally:
        name.unlink()
    _sync(path.parent)  # ‖ a secret that somebody used must not vanish with its name


def _publish(path: Path, history: KeyHistory) -> None:
    name = _written(path, history.encode().encode())
    name.chmod(0o644)
    if history.rotations:
        name.replace(path)
    else:
        with suppress(FileExistsError):
            path.hardlink_to(name)
        name.unlink()
    _sync(path.parent)


def _written(path: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=path.name, suffix=".new", dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private_keys(settings: Settings) -> list[Signer]:
    """Every private key at hand: the environment's first, then the data folder's."""
    try:
        signers = [Signer.from_text(text) for text in settings.signing_key.split()]
        paths = [settings.data / "ledger.key", *sorted(settings.data.glob("ledger-*.key"))]
        signers += [Signer.from_file(path) for path in paths if path.exists()]
    except ProofError as error:
        raise BadSettings(f"a signing key cannot be used: {error}") from None
    return signers


def _public_key(origin: str, text: str) -> Key:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise BadSettings("a public key is 32 bytes in base64")
    return Key(origin, ED25519, raw)


def _verify(key: Key, data: bytes, signature: bytes) -> None:
    key.check(data.decode(), signature)


def _name(rotation: Rotation) -> str:
    return f"key-{rotation.new.id.hex()}"


def _entry(rotation: Rotation, clock: Clock) -> Entry:
    body = {
        "kind": KEY_CHANGE,
        "at": rfc3339(clock()),
        "source": "hub",
        "message": _name(rotation),
        "party": "hub",
        "from": rotation.start,
        "until": rotation.until,
        "rotation": rotation.note,
    }
    return Entry(KEY_CHANGE, "hub", _name(rotation), "hub", body)
