"""Walks a whole ledger from outside, again and again, and shouts.

The tiles above the leaves are held to the signed root, from the top down; every entry is then held to them
before the cursor moves over it. So the cursor, kept in a file, never stands beyond anything that was not
checked, a walk of a large ledger may be interrupted at any moment, and the next one goes on from there.

Like the verifier, this needs Python's own library and `cryptography`: run it anywhere but at the hub.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from consent.copies import Copy, open_copy
from consent.entry import read_entry
from consent.key_history import KeyHistory
from consent.merkle import ProofError, ReadNode, leaf_hash, perfect_root, root
from consent.note import Checkpoint, Key, open_note
from consent.quorum import Quorum
from consent.tiles import FULL_TILE_BYTES, WIDTH, Edge, hashes_of, node_reader

__all__ = ["Alarm", "Seen", "watch"]

STALE_SECONDS = 26 * 3600
_SAVE_EVERY = 64  # blocks of 256 entries


class Alarm(Exception):
    """What the monitor shouts: *kind* is `fork`, `shrink`, `gap`, `changed`, `stale`,
    `unsigned` or `keys`.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Seen:
    """How far the monitor is: every entry below *checked* was held to *note*, the newest checkpoint that it
    accepted; *since* is when it first saw a checkpoint of that size (POSIX seconds).
    """

    note: str = ""
    checked: int = 0
    since: int = 0


def watch(
    target: str | Path,
    key: str,
    kept: Path,
    now: int,
    *,
    witnesses: Sequence[Key] = (),
    quorum: Quorum | None = None,
    stale_seconds: int = STALE_SECONDS,
    token: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Seen:
    """Checks what is new in the ledger at *target* (folder, address, data folder) since the state in the file
    *kept*, and returns the new state. *key* is a verifier key of the ledger, or one with its history. Each
    of *witnesses* must have cosigned the newest checkpoint, and enough for the *quorum*; *token* is sent
    where entries are for auditors only. *progress* is told (entries checked, in all).

    Raises `Alarm`, and `NothingToVerify` when there is nothing of the kind. The state in *kept* stays then as
    far as it was good: it is evidence.
    """
    seen = _load(kept)
    copy = open_copy(target, token)
    try:
        history = KeyHistory.followed(key, copy.keys())
    except ProofError as error:
        copy.close()
        raise Alarm("keys", str(error)) from error
    try:
        return _Walk(copy, history, kept, seen, progress).run(now, witnesses, quorum, stale_seconds)
    finally:
        copy.close()


class _Walk:
    def __init__(
        self,
        copy: Copy,
        history: KeyHistory,
        kept: Path,
        seen: Seen,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._copy, self._history, self._kept, self._seen = copy, history, kept, seen
        self._progress = progress
        self._tiles: dict[tuple[int, int], bytes] = {}  # above the leaves, held to the root
        self._size = 0
        self._edge = Edge()

    def run(self, now: int, witnesses: Sequence[Key], quorum: Quorum | None, stale_seconds: int) -> Seen:
        newest = self._newest()
        moments = _cosigned(newest, witnesses, quorum)
        self._hold_to_root(newest)
        self._compare(newest)
        old = Checkpoint.from_note(self._seen.note).size if self._seen.note else -1
        since = self._seen.since if newest.size == old else now
        self._entries(newest, since)
        seen = Seen(newest.note, newest.size, since)
        _save(self._kept, seen)
        # A witness says when it saw that this is the newest; without one, only our own memory does.
        age = now - max(moments or [since])
        if age > stale_seconds:
            raise Alarm(
                "stale", f"the newest checkpoint, of {newest.size} entries, is {age // 60} minutes old"
            )
        return seen

    def _newest(self) -> Checkpoint:
        note = ""
        try:
            for _, note in self._copy.checkpoints():  # noqa: B007  # the last is wanted
                pass
            return self._history.open(note)
        except ProofError as error:
            raise Alarm("unsigned", f"the newest checkpoint cannot be accepted: {error}") from error

    def _hold_to_root(self, newest: Checkpoint) -> None:
        """Reads the right edge of every level; from here on its tiles are known to belong to the root."""
        self._size = newest.size
        try:
            self._edge = Edge(newest.size, self._edge_tile)
        except ProofError as error:
            raise Alarm("gap", str(error)) from error
        if self._edge.root() != newest.root:
            raise Alarm(
                "fork", f"the tiles do not lead to the root of the checkpoint of {newest.size} entries"
            )
        self._tiles = {(level, number): tile for level, number, tile in self._edge.partial_tiles() if level}

    def _edge_tile(self, level: int, number: int) -> bytes:
        width = self._size // WIDTH**level % WIDTH
        if level == 0:
            return b"".join(self._leaves(number, width))
        return self._copy.tile(level, number, width)

    def _compare(self, newest: Checkpoint) -> None:
        """Holds the checkpoint that was accepted before to the tree of the *newest*."""
        if not self._seen.note:
            return
        old = Checkpoint.from_note(self._seen.note)
        if newest.size < old.size:
            raise Alarm("shrink", f"the ledger had {old.size} entries and now shows {newest.size}")
        if root(old.size, self._nodes()) != old.root:
            raise Alarm(
                "fork", f"the ledger of {newest.size} entries does not continue the one of {old.size}"
            )

    def _nodes(self) -> ReadNode:
        partial = {(level, number): tile for level, number, tile in self._edge.partial_tiles()}

        def read(level: int, number: int) -> bytes:
            return partial.get((level, number)) or self._full(level, number)

        return node_reader(read)

    def _full(self, level: int, number: int) -> bytes:
        """The full tile *number* of *level*, held to the tile above it, that one to the next, up to the
        root.
        """
        if (level, number) in self._tiles:
            return self._tiles[level, number]
        wanted = hashes_of(self._above(level, number))[number % WIDTH]
        if level == 0:
            tile = b"".join(self._leaves(number, WIDTH))
        else:
            try:
                tile = self._copy.tile(level, number, WIDTH)
            except ProofError as error:
                raise Alarm("gap", str(error)) from error
        if len(tile) != FULL_TILE_BYTES:
            raise Alarm("gap", f"tile {level}/{number} is not whole")
        if perfect_root(hashes_of(tile)) != wanted:
            place = (
                f"tile {level}/{number}"
                if level
                else f"entries {number * WIDTH} to {(number + 1) * WIDTH - 1}"
            )
            raise Alarm("changed", f"{place}: not what the signed root covers")
        if level:
            self._tiles[level, number] = tile
        return tile

    def _above(self, level: int, number: int) -> bytes:
        above = (level + 1, number // WIDTH)
        return self._tiles[above] if above in self._tiles else self._full(*above)

    def _leaves(self, number: int, width: int) -> list[bytes]:
        """The leaves that the entries of block *number* make; the tile of level 0 must say the same."""
        first = number * WIDTH
        try:
            block = self._copy.block(number, width)
        except ProofError as error:
            raise Alarm("gap", f"entries from {first}: {error}") from error
        leaves = []
        for offset, entry in enumerate(block.entries):
            if entry is None:
                raise Alarm("gap", f"entry {first + offset} is missing")
            try:
                read_entry(entry)
            except ProofError as error:
                raise Alarm("changed", f"entry {first + offset}: {error}") from error
            leaves.append(leaf_hash(entry))
        if len(leaves) != width:
            raise Alarm("gap", f"entry {first + len(leaves)} is missing")
        if block.tile is not None and block.tile[: width * 32] != b"".join(leaves):
            raise Alarm("changed", f"tile 0/{number} is not made of its entries")
        return leaves

    def _entries(self, newest: Checkpoint, since: int) -> None:
        """Holds every entry that was not checked yet to the tiles, and moves the cursor over it."""
        first = min(self._seen.checked, newest.size) // WIDTH
        for number in range(first, newest.size // WIDTH):
            self._full(0, number)
            done = (number + 1) * WIDTH
            if number % _SAVE_EVERY == _SAVE_EVERY - 1:
                # ‖ A crash after this goes on from here: what stands below was held to this very root.
                _save(self._kept, Seen(newest.note, done, since))
            if self._progress:
                self._progress(done, newest.size)
        # The partial block at the end was held to the root when its edge was read.


def _cosigned(newest: Checkpoint, witnesses: Sequence[Key], quorum: Quorum | None) -> list[int]:
    """When each of *witnesses*, and of those of the *quorum*, cosigned *newest*, POSIX seconds."""
    cosigners = quorum.cosigners(newest.note) if quorum else {}
    if quorum and not quorum.met(cosigners):
        raise Alarm("unsigned", f"too few witnesses have cosigned it: {', '.join(cosigners) or 'none'}")
    moments = list(cosigners.values())
    for key in witnesses:
        try:
            if not key.cosigns:
                raise ProofError("this is not the key of a witness")  # noqa: TRY301  # one way out
            ((_, moment),) = open_note(newest.note, [key])[1]
        except ProofError as error:
            raise Alarm("unsigned", f"witness {key.name} has not cosigned it: {error}") from error
        moments.append(moment or 0)
    return moments


def _load(kept: Path) -> Seen:
    if not kept.exists():
        return Seen()
    try:
        stored = json.loads(kept.read_text("utf-8"))
        return Seen(str(stored["note"]), int(stored["checked"]), int(stored["since"]))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ProofError("the monitor's state cannot be read; keep the file, and ask who wrote it") from error


def _save(kept: Path, seen: Seen) -> None:
    part = kept.with_name(kept.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(asdict(seen), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(kept)  # ‖ a crash before this leaves the older state: some entries are checked again
