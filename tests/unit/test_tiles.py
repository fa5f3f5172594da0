"""Tiles and bundles: the paths and shapes of the specification, and the growing edge against the whole
tree.
"""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.merkle import CompactRange, ProofError, inclusion_proof, leaf_hash, root, verify_inclusion
from consent.tiles import (
    MAX_ENTRY_BYTES,
    WIDTH,
    Edge,
    bundle_path,
    hashes_of,
    node_reader,
    read_bundle,
    right_edge,
    shape,
    tile_path,
    write_bundle,
)

COUNT = 70_000
LEAVES = [leaf_hash(b"%d" % i) for i in range(COUNT)]


def tree(size: int) -> dict[tuple[int, int], bytes]:
    """Every tile of the tree of the first *size* leaves."""
    tiles: dict[tuple[int, int], bytes] = {}
    tiles.update(Edge().extend(LEAVES[:size]))
    return tiles


WHOLE = tree(COUNT)


def reader(tiles: dict[tuple[int, int], bytes]) -> Callable[[int, int], bytes]:
    return lambda level, number: tiles[level, number]


@pytest.mark.parametrize(
    ("level", "number", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (0, 999, 256, "tile/0/999"),
        (1, 1000, 256, "tile/1/x001/000"),
        (0, 1234067, 256, "tile/0/x001/x234/067"),
        (0, 273, 112, "tile/0/273.p/112"),
        (63, 1234067, 1, "tile/63/x001/x234/067.p/1"),
    ],
)
def test_tile_path_is_that_of_the_specification(level: int, number: int, width: int, path: str) -> None:
    assert tile_path(level, number, width) == path
    assert bundle_path(number, width) == path.replace(f"tile/{level}/", "tile/entries/")


def test_shape_of_70000_leaves_is_that_of_the_specification() -> None:
    tiles = list(shape(COUNT))
    assert sum(1 for level, _, width in tiles if level == 0 and width == WIDTH) == 273
    partial_and_above = [tile for tile in tiles if tile[0] or tile[2] != WIDTH]
    assert partial_and_above == [(0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)]
    assert list(shape(256)) == [(0, 0, 256), (1, 0, 1)]
    assert list(shape(0)) == []
    assert {(level, number): len(tile) // 32 for (level, number), tile in WHOLE.items()} == {
        (level, number): width for level, number, width in tiles
    }


def test_edge_of_70000_leaves_has_the_root_of_the_whole_tree() -> None:
    whole = CompactRange()
    whole.extend(LEAVES)
    edge = Edge()
    edge.extend(LEAVES)
    assert edge.frontier() == whole.nodes
    assert edge.root() == whole.root() == root(COUNT, node_reader(reader(WHOLE)))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=8))
def test_edge_and_its_tiles_do_not_depend_on_how_leaves_are_batched(batches: list[int]) -> None:
    edge, tiles = Edge(), {}
    for batch in batches:
        tiles.update(edge.extend(LEAVES[edge.size : edge.size + batch]))
    assert tiles == tree(edge.size)
    reopened = Edge(edge.size, reader(WHOLE))  # whose tiles are wider than this tree needs
    assert reopened.frontier() == edge.frontier()
    assert reopened.partial_tiles() == edge.partial_tiles()
    more = LEAVES[edge.size : edge.size + 300]
    assert reopened.extend(more) == edge.extend(more)
    assert reopened.root() == edge.root()


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_535, 65_536, 65_537, 70_000])
def test_edge_lists_its_partial_tiles_at_the_boundaries(size: int) -> None:
    edge = Edge(size, reader(WHOLE))
    expected = [(level, number, width) for level, number, width in right_edge(size) if width]
    assert [(level, number, len(tile) // 32) for level, number, tile in edge.partial_tiles()] == expected
    assert edge.root() == root(size, node_reader(reader(WHOLE)))


def test_edge_of_an_empty_tree_needs_no_tiles() -> None:
    assert Edge(0, reader({})).partial_tiles() == []
    assert Edge().extend([]) == {}


def test_edge_refuses_a_tile_that_is_too_short() -> None:
    with pytest.raises(ProofError, match="tile 0 of level 0"):
        Edge(3, lambda level, number: b"".join(LEAVES[:2]))


def test_node_reader_proves_from_few_tiles() -> None:
    fetched: list[tuple[int, int]] = []

    def read(level: int, number: int) -> bytes:
        fetched.append((level, number))
        return WHOLE[level, number]

    whole = root(COUNT, node_reader(reader(WHOLE)))
    for index in (0, 255, 256, 65_535, 65_536, 69_888, COUNT - 1):
        fetched.clear()
        proof = inclusion_proof(index, COUNT, node_reader(read))
        verify_inclusion(index, COUNT, LEAVES[index], proof, whole)
        assert len(fetched) == len(set(fetched)) <= 6


def test_node_reader_refuses_a_tile_that_is_too_short() -> None:
    with pytest.raises(ProofError, match="tile 0 of level 0"):
        node_reader(lambda level, number: b"".join(LEAVES[:3]))(2, 0)


def test_hashes_of_takes_a_tile_apart() -> None:
    assert hashes_of(b"".join(LEAVES[:3])) == LEAVES[:3]
    assert hashes_of(b"") == []


@given(st.lists(st.binary(max_size=70), max_size=WIDTH))
def test_bundle_survives_the_way_to_bytes_and_back(entries: list[bytes]) -> None:
    assert read_bundle(write_bundle(entries)) == entries


def test_bundle_holds_the_longest_entry_and_no_longer_one() -> None:
    assert read_bundle(write_bundle([bytes(MAX_ENTRY_BYTES)])) == [bytes(MAX_ENTRY_BYTES)]
    with pytest.raises(ProofError, match="65,535"):
        write_bundle([bytes(MAX_ENTRY_BYTES + 1)])


@pytest.mark.parametrize("bundle", [b"\x00", b"\x00\x01", b"\x00\x02a", b"\x00\x00\x01", b"\x00\x00" * 257])
def test_bundle_that_is_cut_or_too_wide_is_refused(bundle: bytes) -> None:
    with pytest.raises(ProofError):
        read_bundle(bundle)


@given(st.binary(max_size=300))
def test_bundle_reader_raises_only_its_own_error(data: bytes) -> None:
    with contextlib.suppress(ProofError):
        assert write_bundle(read_bundle(data)) == data
