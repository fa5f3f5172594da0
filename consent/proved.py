"""What a delivery carries beside its message, so that whoever sends it on can see that the ledger has it: the
proof that its entry is under a signed checkpoint, and the salt that opens the entry's commitment to its
content.

Nothing without a valid proof is sent on. Everything read here may have been put into the queue by somebody
else: each error is `Unproved`, and repeats nothing.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from consent.merkle import leaf_hash, perfect_root_above, verify_inclusion
from consent.note import Checkpoint, Key, ProofError, open_checkpoint, read_path, split_proof
from schemas.canonical import canonical_trusted
from schemas.errors import Problem, Unproved
from schemas.message import Message

_FIX = "the hub sends nothing on without it: look for what put this message into the queue"
_SIGNED = 64  # checkpoints remembered as verified; those of a few batches
_LOW = 6  # levels of a path that are climbed each time; above them many releases of a batch share theirs
_SHARED = 256  # upper parts of paths remembered as verified in each tree


def enclosed(event: bytes, salt: bytes) -> bytes:
    """A release as it waits for its proof: the JSON of its *event*, and the *salt* of its content."""
    return b'{"salt":"%b","message":%b}' % (salt.hex().encode(), event)


def proved(body: bytes, proof: str) -> bytes:
    """*body*, as `enclosed` made it, with its *proof* (c2sp.org/tlog-proof@v1, the entry as extra data)."""
    return b'%b,"proof":%b}' % (body[:-1], orjson.dumps(proof))


def salt_of(body: bytes) -> bytes:
    """The salt in a delivery's *body* that a `Prover` has accepted."""
    return bytes.fromhex(orjson.loads(body)["salt"])


class Opened(NamedTuple):
    """A delivery that is proved to be in the ledger: its *message*, and what its *entry* says."""

    message: Message
    entry: Mapping[str, Any]


class Prover:
    """Checks deliveries against the ledger's public keys (*keys_for* names those that count for a checkpoint
    of a size), and that its note *is_witnessed* as it must be. Safe for several threads.
    """

    def __init__(
        self,
        keys_for: Callable[[int], Sequence[Key]],
        origin: str,
        is_witnessed: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._keys_for, self._origin, self._is_witnessed = keys_for, origin, is_witnessed
        self._signed: dict[str, _Tree] = {}  # by the note whose signature was verified

    def opened(self, party: str, body: bytes, headers: Mapping[str, str]) -> Opened:
        """The message of a delivery to *party*, and the entry that released it.

        Raises `Unproved` unless a signed checkpoint covers an entry that released exactly this message, with
        exactly this content, to exactly this party, and the *headers* name that message and that entry.
        """
        try:
            carried = orjson.loads(body)
            event, salt, proof = carried["message"], bytes.fromhex(carried["salt"]), carried["proof"]
            message = Message.from_json(event)
        except (orjson.JSONDecodeError, TypeError, LookupError, ValueError, AttributeError):
            raise _unproved("", "is not a message with its proof and salt") from None
        index, entry = self._entry(proof)
        # Nothing seals the headers, and they say what was sent before and what is asked about again.
        if headers.get("id") != message.id or headers.get("entry") != str(index):
            raise _unproved("", "has the headers of another delivery")
        if entry.get("party") != party or entry.get("disclosure") != message.id:
            raise _unproved("/proof", "is of another release")
        if entry.get("content") != hashlib.sha256(salt + canonical_trusted(message.data)).hexdigest():
            raise _unproved("/message/data", "is not what the ledger's entry commits to")
        return Opened(message, entry)

    def _entry(self, text: str) -> tuple[int, Mapping[str, Any]]:
        """The entry that the proof in *text* is of, and its index."""
        try:
            index, path, extra, note = split_proof(text)
            said = extra or b""
            self._tree(note).check(index, leaf_hash(said), path)
            entry = orjson.loads(said)
        except (ProofError, TypeError, AttributeError, orjson.JSONDecodeError):
            raise _unproved("/proof", "does not verify under the ledger's key") from None
        return index, entry if isinstance(entry, dict) else {}

    def _tree(self, note: str) -> "_Tree":
        tree = self._signed.get(note)
        if tree is None:
            size = Checkpoint.from_note(note).size
            checkpoint = open_checkpoint(note, self._keys_for(size), self._origin)
            if not self._is_witnessed(note):
                raise ProofError("too few witnesses cosigned it")
            if len(self._signed) >= _SIGNED:
                self._signed.clear()
            tree = self._signed[note] = _Tree(size, checkpoint.root)
        return tree


class _Tree:
    """The tree of a checkpoint whose signature was verified.

    The releases of one batch lie close together: above the lowest levels most of their paths are the same.
    SAFETY: whether a path verifies from some level upwards depends on nothing but the place and the hash
    reached there and the lines that follow. Only where all three are those of a path that did verify is that
    answer given again; any other line, even one that changes nothing of what was reached, is verified whole.
    """

    __slots__ = ("_root", "_size", "_verified")

    def __init__(self, size: int, root: bytes) -> None:
        self._size, self._root = size, root
        self._verified: set[tuple[int, bytes, str]] = set()  # place above the low levels, hash, lines above

    def check(self, index: int, leaf: bytes, lines: Sequence[str]) -> None:
        """Returns when *lines* are the path of *leaf*, number *index*. Raises `ProofError`."""
        place, shared = index >> _LOW, None
        # At the right edge the lowest levels are not whole, and paths have another form.
        if len(lines) > _LOW and (place + 1) << _LOW <= self._size:
            reached = perfect_root_above(index, leaf, read_path(lines[:_LOW]))
            shared = (place, reached, "\n".join(lines[_LOW:]))
            if shared in self._verified:
                return
        verify_inclusion(index, self._size, leaf, read_path(lines), self._root)
        if shared is not None:
            if len(self._verified) >= _SHARED:
                self._verified.clear()
            self._verified.add(shared)


def _unproved(pointer: str, detail: str) -> Unproved:
    return Unproved("the delivery is not proved to be in the ledger", Problem(pointer, detail, _FIX))


__all__ = ["Opened", "Prover", "enclosed", "proved", "salt_of"]
