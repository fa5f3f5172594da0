"""The tree and its entries cut into tiles (c2sp.org/tlog-tiles): what the ledger stores, and what
outsiders fetch.

A tile holds up to 256 hashes. Those at level 0 are leaves; each hash at the next level stands for one full
tile below. A full tile never changes, so a copy of it can be kept for ever.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from consent.merkle import HASH_SIZE, CompactRange, ProofError, ReadNode, fold, node_hash, perfect_root

WIDTH = 256
FULL_TILE_BYTES = WIDTH * HASH_SIZE
MAX_ENTRY_BYTES = 65_535  # a bundle states each length in two bytes
ReadTile = Callable[[int, int], bytes]
_HEIGHT = 8  # a tile spans eight levels of the tree


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """Where the tile *number* of *level* is served: `tile/0/x001/x234/067`, with `.p/112` when it is
    partial.
    """
    return f"tile/{level}/{_number_path(number, width)}"


def bundle_path(number: int, width: int = WIDTH) -> str:
    """Where the bundle of entries that belongs to tile *number* of level 0 is served."""
    return f"tile/entries/{_number_path(number, width)}"


def shape(size: int) -> Iterator[tuple[int, int, int]]:
    """Every tile of the tree of *size* leaves as (level, number, width), the last of a level perhaps
    partial.
    """
    level, hashes = 0, size
    while hashes:
        yield from ((level, number, WIDTH) for number in range(hashes // WIDTH))
        if hashes % WIDTH:
            yield level, hashes // WIDTH, hashes % WIDTH
        hashes //= WIDTH
        level += 1


def right_edge(size: int) -> list[tuple[int, int, int]]:
    """The partial tile of each level of the tree of *size* leaves, as (level, number, width); width may
    be 0.
    """
    edge, level, hashes = [], 0, size
    while hashes:
        edge.append((level, hashes // WIDTH, hashes % WIDTH))
        hashes //= WIDTH
        level += 1
    return edge


def hashes_of(tile: bytes) -> list[bytes]:
    """The hashes in *tile*."""
    return [tile[i : i + HASH_SIZE] for i in range(0, len(tile), HASH_SIZE)]


def node_reader(read: ReadTile) -> ReadNode:
    """A reader of single nodes for proofs, from a reader of tiles; it remembers what it has read and hashed,
    so that the proofs of many entries side by side cost little more than one.

    Raises `ProofError` when a tile is too short to hold the node.
    """
    tiles: dict[tuple[int, int], bytes] = {}
    known: dict[tuple[int, int], bytes] = {}

    def node(level: int, index: int) -> bytes:
        found = known.get((level, index))
        if found is None:
            found = known[level, index] = (
                node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))
                if level % _HEIGHT
                else stored(level, index)
            )
        return found

    def stored(level: int, index: int) -> bytes:
        tile_level = level // _HEIGHT
        number, offset = divmod(index, WIDTH)
        if (tile_level, number) not in tiles:
            tiles[tile_level, number] = read(tile_level, number)
        tile = tiles[tile_level, number]
        found = tile[offset * HASH_SIZE : (offset + 1) * HASH_SIZE]
        if len(found) != HASH_SIZE:
            raise ProofError(f"tile {number} of level {tile_level} is shorter than the tree needs")
        return found

    return node


class Edge:
    """The right edge of a growing tree: for each level its partial tile, and the subtrees in it."""

    def __init__(self, size: int = 0, read: ReadTile | None = None) -> None:
        """The edge of the tree of *size* leaves. *read* gives its partial tiles; they may be longer than
        needed.

        Raises `ProofError` when one is too short.
        """
        self.size = size
        self._levels: list[tuple[int, bytearray, CompactRange]] = []
        for level, number, width in right_edge(size):
            tile = read(level, number)[: width * HASH_SIZE] if width and read else b""
            if len(tile) != width * HASH_SIZE:
                raise ProofError(f"tile {number} of level {level} is shorter than the tree needs")
            within = CompactRange()
            within.extend(hashes_of(tile))
            self._levels.append((number, bytearray(tile), within))

    def frontier(self) -> list[bytes]:
        """The roots of the perfect subtrees of the whole tree, largest first."""
        return [node for _, _, within in reversed(self._levels) for node in within.nodes]

    def root(self) -> bytes:
        """The root hash of the whole tree."""
        return fold(self.frontier())

    def partial_tiles(self) -> list[tuple[int, int, bytes]]:
        """The partial tile of each level that has one, as (level, number, hashes)."""
        return [(i, number, bytes(tile)) for i, (number, tile, _) in enumerate(self._levels) if tile]

    def extend(self, leaves: Iterable[bytes]) -> dict[tuple[int, int], bytes]:
        """Appends *leaves* (hashes) and returns every tile that this changed, by (level, number)."""
        changed: dict[tuple[int, int], bytes] = {}
        rising, level = list(leaves), 0
        self.size += len(rising)
        while rising:
            rising = self._extend_level(level, rising, changed)
            level += 1
        return changed

    def _extend_level(
        self, level: int, hashes: Sequence[bytes], changed: dict[tuple[int, int], bytes]
    ) -> list[bytes]:
        """Appends *hashes* to *level*, notes what *changed*, and returns the roots of the tiles that
        became full.
        """
        if level == len(self._levels):
            self._levels.append((0, bytearray(), CompactRange()))
        number, tile, within = self._levels[level]
        complete, at = [], 0
        while at < len(hashes):
            part = hashes[at : at + WIDTH - within.size]
            at += len(part)
            tile += b"".join(part)
            changed[level, number] = bytes(tile)
            if len(part) == WIDTH:
                complete.append(perfect_root(part))
            else:
                within.extend(part)
                if within.size < WIDTH:
                    break
                complete.append(within.nodes[0])
            number, tile, within = number + 1, bytearray(), CompactRange()
        self._levels[level] = (number, tile, within)
        return complete


def write_bundle(entries: Iterable[bytes]) -> bytes:
    """The *entries*, each after its length in two bytes. Raises `ProofError` for an entry over 65,535
    bytes.
    """
    parts = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise ProofError("an entry is longer than 65,535 bytes")
        parts += [len(entry).to_bytes(2, "big"), entry]
    return b"".join(parts)


def read_bundle(bundle: bytes) -> list[bytes]:
    """The entries in *bundle*. Raises `ProofError` when it ends inside one, or holds more than 256."""
    entries, at = [], 0
    while at < len(bundle):
        length = int.from_bytes(bundle[at : at + 2], "big")
        entry = bundle[at + 2 : at + 2 + length]
        if at + 2 > len(bundle) or len(entry) != length:
            raise ProofError("the entry bundle ends inside an entry")
        entries.append(entry)
        at += 2 + length
    if len(entries) > WIDTH:
        raise ProofError("the entry bundle holds more than 256 entries")
    return entries


def _number_path(number: int, width: int) -> str:
    digits = str(number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return path if width == WIDTH else f"{path}.p/{width}"
