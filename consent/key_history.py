"""The keys of a ledger over its life: which key signs from which size on, and up to which size the one before
still counts.

A rotation is one signed note that names both keys. Whoever trusts one of the two trusts the other when the
trusted one signed it; so a verifier that was given one key, once, by a way of its own, follows the history in
either direction. A key that was lost or stolen cannot vouch: such a rotation carries the new key's signature
only, and everybody has to be given the new key again.

Like the verifier, this needs Python's own library and `cryptography`, nothing else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from consent.merkle import ProofError
from consent.note import (
    MAX_NOTE_BYTES,
    MAX_SIZE,
    Checkpoint,
    Key,
    Signer,
    open_checkpoint,
    open_note,
    read_number,
    split_note,
)

__all__ = ["KeyHistory", "Rotation"]

_HEADER = "isr-hub key rotation v1"  # no checkpoint can begin so: its second line would be a number
_FIELDS = ("log", "from", "until", "old", "new")
_MAX_ROTATIONS = 100


@dataclass(frozen=True, slots=True)
class Rotation:
    """In the ledger *origin*, *new* signs checkpoints of the size *start* and above, and *old* counts up to
    the size *until*. *note* is the signed note that says so.
    """

    origin: str
    start: int
    until: int
    old: Key
    new: Key
    note: str = ""

    def text(self) -> str:
        """What is signed."""
        values = (self.origin, self.start, self.until, self.old.vkey(), self.new.vkey())
        return "\n".join([_HEADER, *(f"{n} {v}" for n, v in zip(_FIELDS, values, strict=True)), ""])

    def signed_by(self, signers: Iterable[Signer]) -> "Rotation":
        """The same rotation in a note with a signature of each of *signers*."""
        text = self.text()
        note = f"{text}\n" + "".join(signer.sign(text) for signer in signers)
        return Rotation(self.origin, self.start, self.until, self.old, self.new, note)

    @classmethod
    def from_note(cls, note: str) -> "Rotation":
        """The rotation that *note* states, its signatures NOT verified. Raises `ProofError`."""
        text, _ = split_note(note)
        header, *lines = text.split("\n")[:-1]
        said = dict(line.partition(" ")[::2] for line in lines)
        if header != _HEADER or tuple(said) != _FIELDS or len(lines) != len(_FIELDS):
            raise ProofError("this is not a key rotation")
        made = cls(
            said["log"],
            read_number(said["from"], "the first size of the new key"),
            read_number(said["until"], "the last size of the old key"),
            Key.from_vkey(said["old"]),
            Key.from_vkey(said["new"]),
            note,
        )
        if made.text() != text or made.old == made.new:
            raise ProofError("the key rotation is not written as it must be")
        if not made.old.name == made.new.name == made.origin or made.old.cosigns or made.new.cosigns:
            raise ProofError("the key rotation names a key that cannot sign this ledger")
        if made.start > made.until + 1:
            raise ProofError("the key rotation leaves sizes that no key signs")
        return made


class KeyHistory:
    """The keys of one ledger that follow from *anchor*, the key that somebody trusts, by *rotations* that a
    trusted key signed. What no trusted key signed is left out.

    Raises `ProofError` when one key was replaced twice: somebody else holds it too, and both notes are the
    evidence.
    """

    def __init__(self, anchor: Key, rotations: Sequence[Rotation] = ()) -> None:
        self.anchor = anchor
        trusted = [anchor]
        accepted: list[Rotation] = []
        waiting = [rotation for rotation in rotations if rotation.origin == anchor.name]
        found = True
        while found:
            found = False
            for rotation in list(waiting):
                if _vouched(rotation, trusted):
                    waiting.remove(rotation)
                    accepted.append(rotation)
                    trusted += [key for key in (rotation.old, rotation.new) if key not in trusted]
                    found = True
        for one in accepted:
            if any(o is not one and (o.old == one.old or o.new == one.new) for o in accepted):
                raise ProofError("the key history contradicts itself: a key was replaced twice")
        self.rotations = sorted(accepted, key=lambda rotation: rotation.start)
        follow = all(a.new == b.old for a, b in pairwise(self.rotations))
        if not follow or len(trusted) != len(accepted) + 1:
            raise ProofError("the key history contradicts itself: its keys do not follow each other")

    @classmethod
    def parse(cls, text: str, anchor: Key | None = None) -> "KeyHistory":
        """The history in *text* (the newest key, then each rotation after an empty line), as *anchor* sees
        it; by default the key in its first line. Raises `ProofError`.
        """
        if len(text) > MAX_NOTE_BYTES:
            raise ProofError("the key history is too large")
        first, *blocks = text.rstrip("\n").split("\n\n")
        if len(blocks) % 2 or len(blocks) > 2 * _MAX_ROTATIONS:
            raise ProofError("this is not a key history")
        own = Key.from_vkey(first.split("\n")[0])
        rotations = [
            Rotation.from_note(f"{said}\n\n{signatures}\n")
            for said, signatures in zip(blocks[::2], blocks[1::2], strict=True)
        ]
        return cls(anchor or own, rotations)

    @classmethod
    def followed(cls, stated: str, beside: str) -> "KeyHistory":
        """The keys that follow from the *stated* one (a vkey, or a history), by its own rotations and those
        *beside* the ledger: these are the ledger's word, and count only where a trusted key signed them.
        Raises `ProofError`.
        """
        own = cls.parse(stated.strip())
        told = cls.parse(beside, own.anchor).rotations if beside else []
        return cls(own.anchor, [*own.rotations, *(each for each in told if each not in own.rotations)])

    def encode(self) -> str:
        """The history as text: the newest key first, so that whoever reads one line has the key of today."""
        notes = "".join(f"\n{rotation.note}" for rotation in self.rotations)
        return f"{self.newest.vkey()}\n{notes}"

    @property
    def newest(self) -> Key:
        """The key that signs from now on."""
        return self.rotations[-1].new if self.rotations else self.anchor

    def spans(self) -> list[tuple[Key, int, int]]:
        """Every key with the first and the last size of a checkpoint that its signature counts for, oldest
        first.
        """
        keys = [self.rotations[0].old, *(r.new for r in self.rotations)] if self.rotations else [self.anchor]
        starts = [0, *(rotation.start for rotation in self.rotations)]
        ends = [*(rotation.until for rotation in self.rotations), MAX_SIZE]
        return list(zip(keys, starts, ends, strict=True))

    def keys_for(self, size: int) -> list[Key]:
        """The keys whose signature on a checkpoint of *size* counts."""
        return [key for key, start, end in self.spans() if start <= size <= end]

    def open(self, note: str) -> Checkpoint:
        """The checkpoint in *note* when a key that counts for its size signed it. Raises `ProofError`."""
        stated = Checkpoint.from_note(note)
        return open_checkpoint(note, self.keys_for(stated.size), self.anchor.name)


def _vouched(rotation: Rotation, trusted: Sequence[Key]) -> bool:
    keys = [key for key in (rotation.old, rotation.new) if key in trusted]
    try:
        return bool(keys) and open_note(rotation.note, keys)[0] == rotation.text()
    except ProofError:
        return False
