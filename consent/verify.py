"""Proves a ledger from outside: with nothing but a copy of it and the public key, without the hub's code
paths.

    python -m consent.verify DIR|FILE|URL --key VKEY_OR_FILE

Reads every entry once and rebuilds the tree. What is checked, and what no check can show, is in
docs/ledger.md. Needs Python's own library, nothing else (`cryptography`, where it is there, makes it faster).
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from consent.bundle import is_bundle, verify_bundle
from consent.copies import Block, Copy, NothingToVerify, keys_at, open_copy, read_start
from consent.entry import Rules
from consent.key_history import KeyHistory
from consent.merkle import EMPTY_ROOT, ProofError, leaf_hash
from consent.note import (
    MAX_NOTE_BYTES,
    Checkpoint,
    Key,
    open_note,
)
from consent.report import Report
from consent.reveal import MAX_CONTENT_BYTES, MAX_REVEAL_BYTES, Reveal
from consent.spot import verify_between, verify_entry, verify_proof
from consent.tiles import FULL_TILE_BYTES, MAX_ENTRY_BYTES, WIDTH, Edge, hashes_of

Progress = Callable[[int, int], None]
_NO_SALTS = "a content is recognised by its salt: name the file of salts with --reveal"
_OLDER = "older checkpoint"
# Blocks of 256 entries: whoever signs an absurd size must not keep a verifier busy for ever.
_MAX_UNREAD = 1000
_PROOF_START = b"c2sp.org/tlog-proof@"
_MAX_PROOF_BYTES = 2 * MAX_NOTE_BYTES


def verify(
    target: str | Path,
    key: str,
    old_checkpoint: str | None = None,
    progress: Progress | None = None,
    *,
    witnesses: Sequence[str] = (),
    entry: bytes | None = None,
    index: int | None = None,
    between: tuple[str, str] | None = None,
    reveal: bytes | None = None,
    contents: Sequence[tuple[str, bytes]] = (),
) -> Report:
    """Proves the ledger, the evidence bundle or the tlog-proof at *target* against *key* (a vkey, or the path
    of a file with one).

    *old_checkpoint* (a signed note, or its path) is one that the caller kept: the ledger must continue it,
    which is the only way to see that its end was cut off. Each of *witnesses* (vkeys) must have cosigned the
    newest checkpoint. A tlog-proof file is verified for *entry*, or for the entry that it carries. With
    *index* only that entry is proved, with *between* only that the one checkpoint (signed note, or its path)
    continues the other, both in O(log n) reads. *reveal* (`consent.reveal`) opens commitments, and finds
    which of *contents* (name, bytes) left under them.

    Raises `NothingToVerify` when there is nothing of the kind, and `ProofError` for a bad key or salts that
    cannot be read; what is wrong with the ledger is in the report.
    """
    started = time.perf_counter()
    stated = _stated(key)
    witness_keys = [_read_key(item) for item in witnesses]
    opening = Reveal(reveal, contents) if reveal is not None else None
    report = Report(str(target))
    path = None if str(target).startswith(("http://", "https://")) else Path(target)
    if path and path.is_file() and read_start(path, len(_PROOF_START)) == _PROOF_START:
        _refuse_others("proof", old_checkpoint, index, between)
        try:
            history = _history(stated, keys_at(path.with_name("ledger.vkey")), report)
            verify_proof(_decode(read_start(path, _MAX_PROOF_BYTES)), entry, history, report, opening)
        except LookupError:
            raise NothingToVerify("the proof does not carry its entry; name the entry's file") from None
        except ProofError as error:
            report.add("proof", str(error))
    elif path and is_bundle(path):
        _refuse_others("bundle", old_checkpoint, index, between)
        followed = partial(_history, stated, report=report)
        opening = verify_bundle(path, followed, report, witness_keys, opening, contents)
    else:
        with closing(open_copy(target)) as copy:
            history = _history(stated, copy.keys(), report)
            if between is not None:
                verify_between(copy, history, _read_text(between[0]), _read_text(between[1]), report)
            elif index is not None:
                verify_entry(copy, history, index, report, opening)
            else:
                walk = _Walk(copy, history, report, progress, opening)
                walk.run(_read_text(old_checkpoint) if old_checkpoint else None, witness_keys)
    if opening is not None:
        opening.end(report.add)
        report.opened = opening.opened
    report.seconds = time.perf_counter() - started
    return report


def _refuse_others(what: str, *asked: object) -> None:
    if any(item is not None for item in asked):
        raise NothingToVerify(
            f"a {what} is proved as a whole and holds no other entries; ask that of the ledger or its export"
        )


class _Walk:
    """One pass over a copy: rebuilds the tree from the entries, and compares at every place that states
    a hash.
    """

    def __init__(
        self,
        copy: Copy,
        history: KeyHistory,
        report: Report,
        progress: Progress | None,
        opening: Reveal | None = None,
    ) -> None:
        self._copy, self._history, self._report = copy, history, report
        self._progress = progress
        self._edge = Edge()
        see = partial(_seen, opening, report) if opening is not None else None
        self._rules = Rules(report.kinds, report.add, see)
        # The largest tree that a checkpoint confirmed.
        self._good = Checkpoint(history.anchor.name, 0, EMPTY_ROOT)
        self._unread = 0  # blocks
        self._bad: list[int] = []  # sizes of checkpoints that state another root

    def run(self, old_note: str | None, witness_keys: Sequence[Key]) -> None:
        report, copy = self._report, self._copy
        report.origin = self._history.anchor.name
        try:
            newest = self._newest(witness_keys)
            head, held = copy.head(), copy.held()
        except ProofError as error:
            report.add("ledger", str(error))
            return
        size = head[0] if head else newest.size if newest else 0
        if newest and newest.size > size:
            report.add("head", f"the newest checkpoint signs {newest.size} entries, the head states {size}")
        if held is not None and held < size:
            report.add("head", f"it states {size} entries, but the last one is missing: the end was cut off")
            size = held
        if extra := copy.beyond(size):
            report.add("head", f"{extra} entries stand outside the {size} that it states")
        self._entries(size, self._marks(self._old(old_note, size)))
        report.size, report.signed = size, self._good.size
        report.root, report.note = self._good.root, self._good.note
        if head and self._edge.root() != head[1]:
            report.add("head", "its root is not that of the entries")
        if size and not report.checkpoints:
            report.add("ledger", "there are entries, but no checkpoint that this key signed")
        self._explain_bad()

    def _newest(self, witness_keys: Sequence[Key]) -> Checkpoint | None:
        """The newest checkpoint, if this key signed it; whatever is wrong with its signature is said
        later.
        """
        note = ""
        for _, note in self._copy.checkpoints():  # noqa: B007  # the last is wanted
            pass
        for key in witness_keys:
            try:
                if not key.cosigns:
                    raise ProofError("this is not the key of a witness")  # noqa: TRY301  # one way out
                open_note(note, [key])
                self._report.witnesses.append(key.name)
            except ProofError as error:
                self._report.add(f"witness {key.name}", str(error))
        try:
            return self._open(note)
        except ProofError:
            return None

    def _open(self, note: str) -> Checkpoint:
        # The name of the key is the origin: a key that signs two logs must not let one pass for the other.
        return self._history.open(note)

    def _old(self, note: str | None, size: int) -> Checkpoint | None:
        if note is None:
            return None
        try:
            old = self._open(note)
        except ProofError as error:
            self._report.add(_OLDER, str(error))
            return None
        if old.size > size:
            self._report.add(
                _OLDER, f"it signs {old.size} entries, this copy has {size}: the end was cut off"
            )
        return old

    def _marks(self, old: Checkpoint | None) -> Iterator[tuple[str, Checkpoint]]:
        """Every checkpoint with a good signature, by size, the caller's own in its place."""
        report = self._report
        try:
            for filed, note in self._copy.checkpoints():
                try:
                    checkpoint = self._open(note)
                except ProofError as error:
                    report.add(f"checkpoint {filed}", str(error))
                    continue
                report.checkpoints += 1
                if checkpoint.size != filed:
                    report.add(f"checkpoint {filed}", f"the note signs {checkpoint.size} entries")
                    continue
                if old and old.size <= filed:
                    yield _OLDER, old
                    old = None
                yield f"checkpoint {filed}", checkpoint
        except ProofError as error:
            report.add("checkpoint", str(error))
        if old:
            yield _OLDER, old

    def _entries(self, size: int, marks: Iterator[tuple[str, Checkpoint]]) -> None:
        mark = self._confirm(next(marks, None), marks)
        for number in range(-(-size // WIDTH)):
            leaves = self._block(number, min(WIDTH, size - number * WIDTH))
            if self._unread == _MAX_UNREAD:
                self._report.add("ledger", "too much of it cannot be read; the rest was not looked for")
                return
            while mark and mark[1].size <= self._edge.size + len(leaves):
                cut = mark[1].size - self._edge.size
                self._extend(leaves[:cut])
                leaves = leaves[cut:]
                mark = self._confirm(mark, marks)
            self._extend(leaves)
            if self._progress:
                self._progress(self._edge.size, size)
        for level, number, stated in self._edge.partial_tiles():
            if level and self._tile(level, number, len(stated)) != stated:
                self._report.add(f"tile {level}/{number}", "it is not made of the tiles below it")
        for _ in marks:  # larger than the copy, which has been said; their signatures are still verified
            pass

    def _confirm(
        self, mark: tuple[str, Checkpoint] | None, marks: Iterator[tuple[str, Checkpoint]]
    ) -> tuple[str, Checkpoint] | None:
        """Compares every mark of the present size with the tree, and returns the next one."""
        while mark and mark[1].size == self._edge.size:
            place, checkpoint = mark
            if checkpoint.root == self._edge.root():
                if place != _OLDER:
                    self._good = checkpoint
            elif place == _OLDER:
                self._report.add(place, "this ledger does not continue it: it was changed or forked")
            else:
                self._bad.append(checkpoint.size)
            mark = next(marks, None)
        return mark

    def _explain_bad(self) -> None:
        for size in (size for size in self._bad if size <= self._good.size):
            self._report.add(f"checkpoint {size}", "it signs another tree than this: the ledger was forked")
        after = [size for size in self._bad if size > self._good.size]
        if after:
            rest = f"; nor do {len(after) - 1} later ones" if len(after) > 1 else ""
            self._report.add(
                f"checkpoint {after[0]}",
                "it does not confirm these entries: one or more of the entries "
                f"{self._good.size} to {after[0] - 1} were changed, dropped, inserted or reordered{rest}",
            )

    def _extend(self, leaves: list[bytes]) -> None:
        for (level, number), tile in self._edge.extend(leaves).items():
            if level and len(tile) == FULL_TILE_BYTES and self._tile(level, number, len(tile)) != tile:
                self._report.add(f"tile {level}/{number}", "it is not made of the tiles below it")

    def _tile(self, level: int, number: int, length: int) -> bytes:
        try:
            return self._copy.tile(level, number, length // 32)
        except ProofError as error:
            self._report.add(f"tile {level}/{number}", str(error))
            return b""

    def _block(self, number: int, width: int) -> list[bytes]:
        """The leaves of a block, every entry of it checked; where copies of a leaf differ, the likeliest
        one.
        """
        first = number * WIDTH
        try:
            block = self._copy.block(number, width)
        except ProofError as error:
            self._report.add(f"entries {first} to {first + width - 1}", str(error))
            self._unread += 1
            return [bytes(32)] * width
        computed = [leaf_hash(entry) if entry is not None else None for entry in block.entries]
        if None not in computed:
            leaves = [leaf for leaf in computed if leaf is not None]
            same_leaves = not block.leaves or block.leaves == leaves
            if same_leaves and (block.tile is None or block.tile == b"".join(leaves)):
                self._rules.check(first, block.entries, block.columns)
                return leaves
        leaves = self._compare(first, computed, block)
        self._rules.check(first, block.entries, block.columns)
        return leaves

    def _compare(self, first: int, computed: Sequence[bytes | None], block: Block) -> list[bytes]:
        stored: list[bytes | None] = [*hashes_of(block.tile)] if isinstance(block.tile, bytes) else []
        stored += [None] * (len(computed) - len(stored))
        chosen = []
        for offset, own in enumerate(computed):
            place = f"entry {first + offset}"
            leaf = block.leaves[offset] if block.leaves else None
            tiled = stored[offset]
            if own is None:
                self._report.add(place, "it is missing")
            elif block.leaves and own != leaf:
                self._report.add(place, "its bytes do not hash to its leaf: the entry was changed")
            elif block.tile is not None and own != tiled:
                detail = "its bytes are not those in its tile: one of the two was changed"
                self._report.add(place, f"tile 0/{first // WIDTH}: {detail}" if block.leaves else detail)
            known = [hash_ for hash_ in (tiled, leaf, own) if isinstance(hash_, bytes)]
            chosen.append(Counter(known).most_common(1)[0][0] if known else bytes(32))
        return chosen


def _seen(opening: Reveal, report: Report, index: int, body: dict[str, object]) -> None:
    opening.see(index, body, report.add)


def _stated(key: str) -> str:
    """The vkey, or the text of the file of one, that *key* is: a verifier key, or one with its history."""
    path = Path(key)
    try:
        if "+" not in key or path.is_file():
            return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ProofError("the key is neither a verifier key nor a file that holds one") from error
    return key


def _read_key(key: str) -> Key:
    """The key of a vkey, or of a file whose first line is one."""
    return Key.from_vkey(_stated(key).strip().split("\n")[0])


def _history(stated: str, beside: str, report: Report) -> KeyHistory:
    """The keys that follow from the *stated* one, by the rotations stated with it and those *beside* the
    ledger: those are the ledger's word, and count only where a trusted key signed them.
    """
    try:
        return KeyHistory.followed(stated, beside)
    except ProofError as error:
        own = KeyHistory.followed(stated, "")  # raises when it is the stated key that is bad
        report.add("keys", str(error))
        return own


def _key_beside(target: str) -> str:
    """The path of `ledger.vkey` in the folder *target*, or beside the file."""
    for folder in (Path(target), Path(target).parent):
        if (folder / "ledger.vkey").is_file():
            return str(folder / "ledger.vkey")
    raise NothingToVerify("no key was given, and there is no ledger.vkey beside the ledger")


def _read_text(note: str) -> str:
    if "\n" in note:
        return note
    return _decode(read_start(Path(note), MAX_NOTE_BYTES))


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProofError("the text is not valid UTF-8") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: exit 0 when everything is proved, 1 when something is wrong, 2 when used wrongly."""
    parser = argparse.ArgumentParser(
        prog="verify", description="Prove a disclosure ledger with its public key alone."
    )
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write the report as JSON")
    return run(parser.parse_args(arguments))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `run` takes, but for `--json`, to *parser*."""
    option = parser.add_argument
    option(
        "target",
        help="data folder, exported folder, SQLite file, evidence bundle, tlog-proof file or web address",
    )
    option(
        "--key", help="the ledger's verifier key, or a file that holds it (default: ledger.vkey beside it)"
    )
    option("--since", metavar="FILE", help="an older checkpoint that you kept: the ledger must continue it")
    option("--witness", action="append", default=[], metavar="VKEY", help="must have cosigned the newest one")
    option("--entry", type=Path, metavar="FILE", help="the entry that a tlog-proof is about")
    option("--index", type=_index, metavar="N", help="prove entry N only, in a few reads")
    option("--between", nargs=2, metavar="FILE", help="prove only that one checkpoint continues the other")
    option("--reveal", type=Path, metavar="FILE", help="salts that open commitments (isr-hub evidence)")
    option(
        "--content",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a released message or its data, to be recognised by the salts",
    )


def _index(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise argparse.ArgumentTypeError("is not a whole number from 0")
    return int(text)


def run(chosen: argparse.Namespace) -> int:
    """Verifies as *chosen* on the command line, prints the report, and returns the exit status."""
    try:
        entry = read_start(chosen.entry, MAX_ENTRY_BYTES + 1) if chosen.entry else None
        reveal = read_start(chosen.reveal, MAX_REVEAL_BYTES) if chosen.reveal else None
        contents = [(path.name, read_start(path, MAX_CONTENT_BYTES)) for path in chosen.content]
        if contents and reveal is None and not is_bundle(Path(chosen.target)):
            raise NothingToVerify(_NO_SALTS)  # noqa: TRY301  # one way out
        key, own = (chosen.key, True) if chosen.key else (_key_beside(chosen.target), False)
        report = verify(
            chosen.target,
            key,
            chosen.since,
            _bar if sys.stderr.isatty() else None,
            witnesses=chosen.witness,
            entry=entry,
            index=chosen.index,
            between=tuple(chosen.between) if chosen.between else None,
            reveal=reveal,
            contents=contents,
        )
    except (NothingToVerify, ProofError) as error:
        print(json.dumps({"ok": False, "error": str(error)}) if chosen.json else f"cannot verify: {error}")
        return 2
    if chosen.json:
        print(json.dumps({**report.as_json(), "key": "given" if own else "beside the ledger"}, indent=2))
    else:
        print("\n".join(report.lines()))
        if not own:
            print("  with the key found beside the ledger: whoever replaced both would not be noticed")
    return 0 if report.ok else 1


def _bar(done: int, total: int) -> None:
    """A progress bar on the terminal, drawn anew about a hundred times."""
    if done == total or done % max(WIDTH, total // 100 // WIDTH * WIDTH) == 0:
        filled = 40 * done // max(total, 1)
        end = "\n" if done == total else ""
        print(
            f"\r[{'#' * filled}{'.' * (40 - filled)}] {done:,} of {total:,} entries{end}",
            end="",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
