"""The tree of RFC 6962: published vectors, and every size and index against a naive tree."""

from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.merkle import (
    EMPTY_ROOT,
    CompactRange,
    ProofError,
    consistency_proof,
    fold,
    frontier_nodes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    perfect_root,
    root,
    verify_consistency,
    verify_inclusion,
)

LARGEST = 130

# The eight entries, and the roots of their first n, that Certificate Transparency's implementations share.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# Audit paths and consistency proofs over the same eight entries.
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}
CONSISTENCY = {
    (1, 1): [],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}

LEAVES = [leaf_hash(b"entry %d" % i) for i in range(LARGEST)]
NODES: dict[tuple[int, int], bytes] = {(0, i): leaf for i, leaf in enumerate(LEAVES)}
for _level in range(1, 8):
    for _index in range(LARGEST >> _level):
        NODES[_level, _index] = node_hash(NODES[_level - 1, 2 * _index], NODES[_level - 1, 2 * _index + 1])


def naive(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive(leaves[:k]) + naive(leaves[k:])).digest()


NAIVE_ROOTS = [naive(LEAVES[:size]) for size in range(LARGEST + 1)]


def read(level: int, index: int) -> bytes:
    """A node of the tree of `LEAVES`."""
    return NODES[level, index]


def counting(reads: list[tuple[int, int]]) -> Callable[[int, int], bytes]:
    def node(level: int, index: int) -> bytes:
        reads.append((level, index))
        return NODES[level, index]

    return node


def published(level: int, index: int) -> bytes:
    """A node of the tree of `ENTRIES`."""
    return naive([leaf_hash(entry) for entry in ENTRIES[index << level : (index + 1) << level]])


@pytest.mark.parametrize("size", range(9))
def test_root_equals_the_published_one(size: int) -> None:
    tree = CompactRange()
    tree.extend(leaf_hash(entry) for entry in ENTRIES[:size])
    assert tree.root().hex() == ROOTS[size]
    assert root(size, published).hex() == ROOTS[size]


@pytest.mark.parametrize("case", PATHS)
def test_inclusion_proof_equals_the_published_one(case: tuple[int, int]) -> None:
    index, size = case
    proof = inclusion_proof(index, size, published)
    assert [item.hex() for item in proof] == PATHS[case]
    verify_inclusion(index, size, leaf_hash(ENTRIES[index]), proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize("case", CONSISTENCY)
def test_consistency_proof_equals_the_published_one(case: tuple[int, int]) -> None:
    old, new = case
    proof = consistency_proof(old, new, published)
    assert [item.hex() for item in proof] == CONSISTENCY[case]
    verify_consistency(old, new, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]), proof)


def test_compact_range_agrees_with_the_naive_tree_at_every_size() -> None:
    tree = CompactRange()
    for size in range(LARGEST + 1):
        assert tree.root() == root(size, read) == NAIVE_ROOTS[size]
        assert tree.nodes == [read(*node) for node in frontier_nodes(0, size)]
        assert CompactRange(size, tree.nodes).root() == NAIVE_ROOTS[size]
        tree.extend(LEAVES[size : size + 1])


@given(st.lists(st.integers(0, 40), max_size=6))
def test_compact_range_does_not_depend_on_how_leaves_are_batched(batches: list[int]) -> None:
    tree, at = CompactRange(), 0
    for batch in batches:
        leaves = LEAVES[at : min(at + batch, LARGEST)]
        tree.extend(leaves)
        at += len(leaves)
    assert tree.root() == NAIVE_ROOTS[at]


def test_perfect_root_is_the_root_of_a_full_subtree() -> None:
    for level in range(8):
        assert perfect_root(LEAVES[: 1 << level]) == NODES[level, 0]


@pytest.mark.parametrize("size", [-1, 1, 3])
def test_compact_range_refuses_a_frontier_of_another_size(size: int) -> None:
    with pytest.raises(ProofError):
        CompactRange(size, [])


def test_every_inclusion_proof_verifies_and_is_short() -> None:
    for size in range(1, LARGEST + 1):
        for index in range(size):
            reads: list[tuple[int, int]] = []
            proof = inclusion_proof(index, size, counting(reads))
            verify_inclusion(index, size, LEAVES[index], proof, NAIVE_ROOTS[size])
            assert len(proof) <= (size - 1).bit_length()
            assert len(reads) <= 2 * size.bit_length()


def test_every_consistency_proof_verifies_and_is_short() -> None:
    for new in range(LARGEST + 1):
        for old in range(new + 1):
            reads: list[tuple[int, int]] = []
            proof = consistency_proof(old, new, counting(reads))
            verify_consistency(old, new, NAIVE_ROOTS[old], NAIVE_ROOTS[new], proof)
            assert len(proof) <= new.bit_length() + 1
            assert len(reads) <= 3 * new.bit_length()


@given(st.data())
def test_changed_inclusion_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, LARGEST))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, read)
    changed = data.draw(changes(proof))
    with pytest.raises(ProofError):
        verify_inclusion(index, size, LEAVES[index], changed, NAIVE_ROOTS[size])


@given(st.data())
def test_inclusion_proof_for_another_leaf_index_size_or_root_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, LARGEST))
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda i: i != index))
    proof = inclusion_proof(index, size, read)
    with pytest.raises(ProofError):
        verify_inclusion(index, size, LEAVES[other], proof, NAIVE_ROOTS[size])
    with pytest.raises(ProofError):
        verify_inclusion(other, size, LEAVES[index], proof, NAIVE_ROOTS[size])
    with pytest.raises(ProofError):
        verify_inclusion(index, size, LEAVES[index], proof, NAIVE_ROOTS[size - 1])
    for outside in (-1, size, size + 7):
        with pytest.raises(ProofError):
            verify_inclusion(outside, size, LEAVES[index], proof, NAIVE_ROOTS[size])


@given(st.data())
def test_changed_consistency_proof_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, LARGEST))
    old = data.draw(st.integers(1, new - 1))
    changed = data.draw(changes(consistency_proof(old, new, read)))
    with pytest.raises(ProofError):
        verify_consistency(old, new, NAIVE_ROOTS[old], NAIVE_ROOTS[new], changed)


@given(st.data())
def test_consistency_proof_for_a_forked_tree_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, LARGEST))
    old = data.draw(st.integers(1, new - 1))
    fork = naive([*LEAVES[: old - 1], leaf_hash(b"another")])
    proof = consistency_proof(old, new, read)
    with pytest.raises(ProofError):
        verify_consistency(old, new, fork, NAIVE_ROOTS[new], proof)
    with pytest.raises(ProofError):
        verify_consistency(old, new, NAIVE_ROOTS[old], fork, proof)


def test_empty_tree_is_consistent_with_every_tree_and_has_one_root() -> None:
    verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    verify_consistency(0, 5, EMPTY_ROOT, NAIVE_ROOTS[5], [])
    for old_root, new, new_root in ((LEAVES[0], 5, NAIVE_ROOTS[5]), (LEAVES[0], 0, LEAVES[0])):
        with pytest.raises(ProofError, match="empty tree"):
            verify_consistency(0, new, old_root, new_root, [])
    with pytest.raises(ProofError, match="too long"):
        verify_consistency(0, 5, EMPTY_ROOT, NAIVE_ROOTS[5], [LEAVES[0]])


def test_two_roots_for_one_size_are_a_fork() -> None:
    with pytest.raises(ProofError, match="forked"):
        verify_consistency(5, 5, NAIVE_ROOTS[5], NAIVE_ROOTS[6], [])


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0), (0, -1)])
def test_inclusion_proof_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(ProofError):
        inclusion_proof(index, size, read)


@pytest.mark.parametrize(("old", "new"), [(-1, 4), (5, 4)])
def test_consistency_proof_backwards_is_refused(old: int, new: int) -> None:
    with pytest.raises(ProofError):
        consistency_proof(old, new, read)
    with pytest.raises(ProofError):
        verify_consistency(old, new, EMPTY_ROOT, EMPTY_ROOT, [])


def test_fold_of_nothing_is_the_empty_root() -> None:
    assert fold([]) == EMPTY_ROOT


def changes(proof: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Proofs that differ from *proof*: one hash flipped, dropped, doubled or cut, two swapped, something
    added.
    """

    def flip(at: int, bit: int) -> list[bytes]:
        changed = bytearray(proof[at])
        changed[bit // 8] ^= 1 << bit % 8
        return [*proof[:at], bytes(changed), *proof[at + 1 :]]

    places = st.integers(0, len(proof) - 1)
    return st.one_of(
        st.builds(flip, places, st.integers(0, 255)),
        places.map(lambda at: [*proof[:at], *proof[at + 1 :]]),
        places.map(lambda at: [*proof[: at + 1], *proof[at:]]),
        places.map(lambda at: [*proof[:at], proof[at][:-1], *proof[at + 1 :]]),
        st.just([*proof, LEAVES[0]]),
        st.just([LEAVES[0], *proof]),
        st.just([]),
        st.just(proof[::-1]).filter(lambda turned: turned != proof),
    )
