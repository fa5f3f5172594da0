"""What a delivery carries beside its message, so that whoever sends it on can see that the ledger has it: the
proof that its entry is under a signed checkpoint, and the salt that opens the entry's commitment to its
content.

Nothing without a valid proof is sent on. Everything read here may have been put into the queue by somebody
else: each error is `Unproved`, and repeats nothing.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from consent.merkle import leaf_hash, verify_inclusion
from consent.note import Key, ProofError, TlogProof, open_checkpoint
from schemas.canonical import canonical_trusted
from schemas.errors import Problem, Unproved
from schemas.message import Message

_FIX = "the hub sends nothing on without it: look for what put this message into the queue"
_SIGNED = 64  # checkpoints remembered as verified; those of a few batches


def enclosed(event: bytes, salt: bytes) -> bytes:
    """A release as it waits for its proof: the JSON of its *event*, and the *salt* of its content."""
    return b'{"salt":"%b","message":%b}' % (salt.hex().encode(), event)


def proved(body: bytes, proof: str) -> bytes:
    """*body*, as `enclosed` made it, with its *proof* (c2sp.org/tlog-proof@v1, the entry as extra data)."""
    return b'%b,"proof":%b}' % (body[:-1], orjson.dumps(proof))


def salt_of(body: bytes) -> bytes:
    """The salt in a delivery's *body* that a `Prover` has accepted."""
    return bytes.fromhex(orjson.loads(body)["salt"])


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
        self._signed: dict[str, bytes] = {}  # notes whose signature was verified, with their root

    def message(self, party: str, body: bytes, headers: Mapping[str, str]) -> Message:
        """The message of a delivery to *party*.

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
        return message

    def _entry(self, text: str) -> tuple[int, Mapping[str, Any]]:
        """The entry that the proof in *text* is of, and its index."""
        try:
            proof = TlogProof.decode(text)
            root, said = self._root(proof), proof.extra or b""
            verify_inclusion(proof.index, proof.checkpoint.size, leaf_hash(said), proof.path, root)
            entry = orjson.loads(said)
        except (ProofError, TypeError, AttributeError, orjson.JSONDecodeError):
            raise _unproved("/proof", "does not verify under the ledger's key") from None
        return proof.index, entry if isinstance(entry, dict) else {}

    def _root(self, proof: TlogProof) -> bytes:
        note = proof.checkpoint.note
        root = self._signed.get(note)
        if root is None:
            root = open_checkpoint(note, self._keys_for(proof.checkpoint.size), self._origin).root
            if not self._is_witnessed(note):
                raise ProofError("too few witnesses cosigned it")
            if len(self._signed) >= _SIGNED:
                self._signed.clear()
            self._signed[note] = root
        return root


def _unproved(pointer: str, detail: str) -> Unproved:
    return Unproved("the delivery is not proved to be in the ledger", Problem(pointer, detail, _FIX))


__all__ = ["Prover", "enclosed", "proved", "salt_of"]
