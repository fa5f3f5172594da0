"""Sets of words held in integers, one bit a word.

A decision joins what its subjects come to, and it does so for every recipient of every message. The words
(clauses, classes with reasons, guards) are few and known, so a set of them is an integer, joining two sets is
one OR, and the sorted words or their JSON are looked up by that integer.
"""

import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import orjson

Word = TypeVar("Word", bound=Hashable)
_REMEMBERED = 20_000  # sets whose words are kept at hand; a few hundred bytes each


class Lexicon(Generic[Word]):
    """The words met so far. The bits are this process's own: never store them."""

    __slots__ = ("_bits", "_lock", "_shape", "_sorted", "_words", "_written")

    def __init__(self, shape: Callable[[tuple[Word, ...]], Any] = list) -> None:
        """*shape* gives the JSON value that stands for some sorted words."""
        self._bits: dict[Word, int] = {}
        self._words: list[Word] = []
        self._sorted: dict[int, tuple[Word, ...]] = {0: ()}
        self._written: dict[int, bytes] = {}
        self._shape = shape
        self._lock = threading.Lock()

    def of(self, words: Iterable[Word]) -> int:
        """The set of *words*."""
        found = 0
        for word in words:
            bit = self._bits.get(word)
            found |= self._new(word) if bit is None else bit
        return found

    def words(self, held: int) -> tuple[Word, ...]:
        """The words of the set *held*, sorted."""
        found = self._sorted.get(held)
        if found is None:
            found = tuple(sorted(self._split(held)))  # type: ignore[type-var]  # texts, or tuples of texts
            if len(self._sorted) >= _REMEMBERED:
                self._sorted.clear()
            self._sorted[held] = found
        return found

    def written(self, held: int) -> bytes:
        """The canonical JSON of the set *held*."""
        found = self._written.get(held)
        if found is None:
            found = orjson.dumps(self._shape(self.words(held)), option=orjson.OPT_SORT_KEYS)
            if len(self._written) >= _REMEMBERED:
                self._written.clear()
            self._written[held] = found
        return found

    def _new(self, word: Word) -> int:
        with self._lock:  # two threads must not give two words one bit
            bit = self._bits.get(word)
            if bit is None:
                self._words.append(word)
                bit = self._bits[word] = 1 << len(self._words) - 1
            return bit

    def _split(self, held: int) -> Iterable[Word]:
        while held:
            bit = held & -held
            yield self._words[bit.bit_length() - 1]
            held ^= bit
