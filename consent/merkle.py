"""The Merkle tree of RFC 6962 section 2.1 (the same in RFC 9162), as pure functions on bytes.

A node is named by (level, index): it hashes the leaves from `index << level` up to, not including,
`(index + 1) << level`. Only complete nodes are ever stored, so a stored node never changes. Proofs take a
function that reads such a node, and need O(log n) of them.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()
ReadNode = Callable[[int, int], bytes]

_LEAF, _NODE = b"\x00", b"\x01"  # RFC 6962 section 2.1: a leaf can never be passed off as a node


class ProofError(Exception):
    """A signature, checkpoint or proof does not verify, or could not be read as one."""


def leaf_hash(entry: bytes) -> bytes:
    """The leaf of *entry*, 32 bytes."""
    return sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The node above *left* and *right*, 32 bytes."""
    return sha256(_NODE + left + right).digest()


class CompactRange:
    """A tree of *size* leaves, kept as the roots of its perfect subtrees, largest first (its frontier).

    Appending needs nothing else: amortised one hash a leaf, and memory for log2(size) hashes.
    Raises `ProofError` when the number of *nodes* is not that of *size*.
    """

    __slots__ = ("nodes", "size")

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.nodes = list(nodes)
        if size < 0 or len(self.nodes) != size.bit_count():
            raise ProofError("the frontier does not have one hash for each perfect subtree")

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Puts *leaves* (leaf hashes, or roots of perfect subtrees that stand for one each) at the right
        end.
        """
        size, nodes = self.size, self.nodes
        for leaf in leaves:
            node, at = leaf, size
            while at & 1:  # a subtree as large as this one stands to its left: both become one
                node = sha256(b"\x01" + nodes.pop() + node).digest()
                at >>= 1
            nodes.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """The root hash of the tree, in at most log2(size) hashes."""
        return fold(self.nodes)


def fold(frontier: Sequence[bytes]) -> bytes:
    """The root above *frontier*, the roots of perfect subtrees from the largest to the smallest."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for left in reversed(frontier[:-1]):
        root = sha256(b"\x01" + left + root).digest()
    return root


def perfect_root(leaves: Sequence[bytes]) -> bytes:
    """The root over *leaves*, whose number is a power of two."""
    row = list(leaves)
    while len(row) > 1:
        row = [sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row), 2)]
    return row[0]


def frontier_nodes(start: int, stop: int) -> list[tuple[int, int]]:
    """The (level, index) of the perfect subtrees that cover the leaves from *start* up to *stop*, left
    to right.

    *start* must be a multiple of the largest power of two that fits between; every subtree of a tree is so.
    """
    nodes, at = [], start
    for level in range((stop - start).bit_length() - 1, -1, -1):
        if (stop - start) >> level & 1:
            nodes.append((level, at >> level))
            at += 1 << level
    return nodes


def root(size: int, read: ReadNode) -> bytes:
    """The root of the tree of *size* leaves."""
    return _subtree(0, size, read)


def inclusion_proof(index: int, size: int, read: ReadNode) -> list[bytes]:
    """The audit path of leaf *index* in the tree of *size* leaves, from the leaf upwards (RFC 6962
    section 2.1.1).

    Raises `ProofError` unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ProofError("the tree of that size has no such leaf")
    path: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(_subtree(middle, stop, read))
            stop = middle
        else:
            path.append(_subtree(start, middle, read))
            start = middle
    path.reverse()
    return path


def consistency_proof(old: int, new: int, read: ReadNode) -> list[bytes]:
    """The proof that the tree of *old* leaves is a prefix of the tree of *new* leaves (RFC 6962 section
    2.1.2).

    Empty when *old* is 0 or equals *new*. Raises `ProofError` unless 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise ProofError("the older tree must not be larger than the newer one")
    if old in (0, new):
        return []
    path: list[bytes] = []
    start, stop = 0, new
    while old != stop:
        middle = start + _split(stop - start)
        if old <= middle:
            path.append(_subtree(middle, stop, read))
            stop = middle
        else:
            path.append(_subtree(start, middle, read))
            start = middle
    if start:  # otherwise the subtree is the whole old tree, whose root the verifier has
        path.append(_subtree(start, stop, read))
    path.reverse()
    return path


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root_hash: bytes) -> None:
    """Returns when *proof* shows that *leaf* is number *index* in the tree of *size* leaves with *root_hash*.

    Raises `ProofError` otherwise (RFC 9162 section 2.1.3.2).
    """
    if not 0 <= index < size:
        raise ProofError("the tree of that size has no such leaf")
    position, last, result = index, size - 1, _hash(leaf)
    for sibling in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if position & 1 or position == last:
            result = node_hash(_hash(sibling), result)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            result = node_hash(result, _hash(sibling))
        position >>= 1
        last >>= 1
    if last:
        raise ProofError("the inclusion proof is too short")
    if result != root_hash:
        raise ProofError("the inclusion proof does not lead to the root hash")


def perfect_root_above(index: int, leaf: bytes, siblings: Iterable[bytes]) -> bytes:
    """The root of the perfect subtree that has *leaf*, number *index* of its tree, and *siblings* on the way
    up: what `verify_inclusion` has reached after them."""
    result = leaf
    for sibling in siblings:
        pair = sibling + result if index & 1 else result + sibling
        result = sha256(b"\x01" + pair).digest()
        index >>= 1
    return result


def verify_consistency(  # noqa: PLR0912  # one branch for each case of the RFC, in its order
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Returns when *proof* shows that the tree (*old*, *old_root*) is a prefix of the tree (*new*,
    *new_root*).

    Raises `ProofError` otherwise (RFC 9162 section 2.1.4.2). The empty tree is a prefix of every tree, and
    has one root only.
    """
    if not 0 <= old <= new:
        raise ProofError("the older tree must not be larger than the newer one")
    for size, root_hash in ((old, old_root), (new, new_root)):
        if size == 0 and root_hash != EMPTY_ROOT:
            raise ProofError("the root of the empty tree is wrong")
    if old in (0, new):
        if proof:
            raise ProofError("the consistency proof is too long")
        if old == new and old_root != new_root:
            raise ProofError("two roots for one tree size: the ledger was forked")
        return
    path = [_hash(item) for item in proof]
    if old & (old - 1) == 0:  # a power of two: the old tree is itself the first subtree
        path.insert(0, old_root)
    if not path:
        raise ProofError("the consistency proof is too short")
    position, last = old - 1, new - 1
    while position & 1:
        position >>= 1
        last >>= 1
    older = newer = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if position & 1 or position == last:
            older = node_hash(sibling, older)
            newer = node_hash(sibling, newer)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            newer = node_hash(newer, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise ProofError("the consistency proof is too short")
    if older != old_root:
        raise ProofError("the consistency proof does not lead to the older root hash")
    if newer != new_root:
        raise ProofError("the consistency proof does not lead to the newer root hash")


def _split(count: int) -> int:
    """The largest power of two smaller than *count* (RFC 6962 calls it k)."""
    return 1 << ((count - 1).bit_length() - 1)


def _subtree(start: int, stop: int, read: ReadNode) -> bytes:
    count = stop - start
    if count and count & (count - 1) == 0:  # perfect, as all are but those at the right edge
        level = count.bit_length() - 1
        return read(level, start >> level)
    return fold([read(level, index) for level, index in frontier_nodes(start, stop)])


def _hash(value: bytes) -> bytes:
    if len(value) != HASH_SIZE:
        raise ProofError("a hash in the proof is not 32 bytes")
    return value
