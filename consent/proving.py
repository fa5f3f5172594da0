"""The proofs of many entries under one checkpoint, as the texts that releases carry.

Entries that were appended together stand in the same tiles, so their audit paths are the same but for the
lowest eight hashes: what is above a full tile is written once for all 256 of them, and the checkpoint once
for all.
"""

import pybase64

from consent import merkle
from consent.merkle import HASH_SIZE, ReadNode
from consent.note import PROOF_HEADER, Checkpoint
from consent.tiles import WIDTH, ReadTile

_LEVELS = WIDTH.bit_length() - 1  # of the tree, within one tile
_KEPT = 64  # tiles, of 8 KiB; a batch of 200 submissions fills about eleven


class Proving:
    """Writes proofs under *checkpoint* of the tree whose nodes *read* gives."""

    def __init__(self, checkpoint: Checkpoint, read: ReadNode) -> None:
        self._size, self._read = checkpoint.size, read
        self._note = "\n" + checkpoint.note
        self._lines: list[dict[int, str]] = [{} for _ in range(_LEVELS)]  # by level and index
        self._above: dict[int, str] = {}  # a full tile's number → its path to the root

    def text(self, index: int, entry: bytes) -> str:
        """The proof that *entry* is number *index* (c2sp.org/tlog-proof@v1, the entry as extra data): what
        `TlogProof.encode` writes. Raises `ProofError` outside the tree.
        """
        said = pybase64.b64encode_as_string(entry)
        return f"{PROOF_HEADER}\nextra {said}\nindex {index}\n{self._path(index)}{self._note}"

    def _path(self, index: int) -> str:
        tile = index // WIDTH
        if (tile + 1) * WIDTH > self._size:  # at the right edge the path may skip levels
            return "".join(_line(item) for item in merkle.inclusion_proof(index, self._size, self._read))
        above = self._above.get(tile)
        if above is None:
            path = merkle.inclusion_proof(index, self._size, self._read)
            above = self._above[tile] = "".join(_line(item) for item in path[_LEVELS:])
        within = []
        for level, known in enumerate(self._lines):
            sibling = index >> level ^ 1
            line = known.get(sibling)
            if line is None:
                line = known[sibling] = _line(self._read(level, sibling))
            within.append(line)
        return "".join(within) + above


def _line(item: bytes) -> str:
    return pybase64.b64encode_as_string(item) + "\n"


class Lately:
    """The tiles that one edge of the tree changed last, so that proofs of what was just appended need not be
    read back from the database.

    They are what the edge had, committed or not: whoever reads from here must know that the tree it proves
    is one that this edge went through, and forgets them when the edge is read anew.
    """

    def __init__(self) -> None:
        self._tiles: dict[tuple[int, int], bytes] = {}

    def add(self, changed: dict[tuple[int, int], bytes]) -> None:
        """Remembers the tiles *changed* (level, number), the newest 64 of all."""
        tiles = {place: hashes for place, hashes in self._tiles.items() if place not in changed} | changed
        for place in list(tiles)[:-_KEPT]:
            del tiles[place]
        self._tiles = tiles  # replaced as a whole: another thread may be reading

    def forget(self) -> None:
        """Forgets all of them."""
        self._tiles = {}

    def reader(self, size: int, read: ReadTile) -> ReadTile:
        """A reader of the tiles of the tree of *size* leaves, from here as far as they go, else by *read*."""
        tiles = self._tiles

        def tile(level: int, number: int) -> bytes:
            # At the right edge as long as this tree needs it; behind that there may be more of it by now.
            wanted = min(WIDTH, size // WIDTH**level - number * WIDTH) * HASH_SIZE
            known = tiles.get((level, number), b"")
            return known if len(known) >= wanted > 0 else read(level, number)

        return tile


__all__ = ["Lately", "Proving"]
