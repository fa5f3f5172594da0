"""Hands out addresses, phones and identifiers, each exactly once, from one seed.

Every series walks through all its numbers in a scattered order and refuses to begin again, so a value
found anywhere belongs to one person. No value is part of another: house numbers have two digits, phones
one length, identifiers a leading part of their own.
"""

import random
from collections.abc import Callable
from math import gcd

from gateway.sandbox.people import Address, Phone, School
from gateway.sandbox.places import (
    COURTS,
    HOUSE_NUMBERS,
    REFUGE_FIRST,
    REFUGE_SECOND,
    REFUGE_TYPES,
    SCHOOL_FIRST,
    SCHOOL_LAST,
    STREET_FIRST,
    STREET_SECOND,
    STREET_TYPES,
    TOWNS,
)
from schemas.identifiers import nhi_check

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # of an NHI: without I and O
_STRIDE = 7_368_787  # a prime larger than neighbouring people are apart; made coprime with each series' size
_MOBILE_PREFIXES = ("21", "22", "27", "20")


class _Series:
    """The numbers 0 to *size* - 1, each once, scattered."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self._size = size
        self._next = rng.randrange(size)
        self._given = 0
        self._stride = _STRIDE % size or 1
        while gcd(self._stride, size) != 1:
            self._stride += 1

    def take(self) -> int:
        if self._given >= self._size:
            raise ValueError("the population is larger than the numbers set aside for it")
        value = self._next
        self._next = (self._next + self._stride) % self._size
        self._given += 1
        return value


def _digits(prefix: str, width: int) -> Callable[[int], str]:
    return lambda n: f"{prefix}{n:0{width}d}"


def _letters_and_digits(n: int) -> str:
    # An ACC45 claim number: two letters and five digits.
    letters, digits = divmod(n, 100_000)
    return f"{chr(65 + letters // 26)}{chr(65 + letters % 26)}{digits:05d}"


# The first digits keep numbers of different systems, and of phones, from being part of one another.
_FORMATS: dict[str, tuple[int, Callable[[int], str]]] = {
    "police-person": (10**7, _digits("PN1", 7)),
    "police-event": (10**8, _digits("P0", 8)),
    "prn": (10**7, _digits("9", 7)),
    "cyras": (10**7 * 6 // 10, lambda n: str(43_000_000 + n)),
    "swn": (20_000_000, lambda n: str(300_000_000 + n)),
    "acc-claimant": (10**7, _digits("CL", 7)),
    "acc45": (676 * 100_000, _letters_and_digits),
    "justice-person": (10**7, _digits("J", 7)),
    "learner": (10**7, _digits("L", 7)),
}


class Register:
    """One population's numbers; the same *seed* and the same order of asking give the same values.

    Every method raises `ValueError` when its numbers are used up (addresses after 844,800).
    """

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"register/{seed}")
        self._streets = _Series(
            rng, len(STREET_FIRST) * len(STREET_SECOND) * len(STREET_TYPES) * len(HOUSE_NUMBERS)
        )
        self._refuges = _Series(rng, len(REFUGE_FIRST) * len(REFUGE_SECOND) * len(REFUGE_TYPES))
        self._phones = _Series(rng, len(_MOBILE_PREFIXES) * 100_000)
        self._code_words = _Series(rng, len(STREET_FIRST) * len(REFUGE_FIRST) * 100)
        self._old_nhi = _Series(rng, 24 * 24 * 1000)
        self._new_nhi = _Series(rng, 24 * 24 * 100 * 24)
        self._court_files = _Series(rng, 10**6)
        self._numbers = {system: _Series(rng, size) for system, (size, _) in _FORMATS.items()}

    def street(self) -> str:
        """A house number and street that nobody else has."""
        n, number = divmod(self._streets.take(), len(HOUSE_NUMBERS))
        n, kind = divmod(n, len(STREET_TYPES))
        first, second = divmod(n, len(STREET_SECOND))
        stem, ending = STREET_FIRST[first], STREET_SECOND[second]
        name = stem + ending if stem.isascii() else f"{stem} {ending.capitalize()}"
        return f"{HOUSE_NUMBERS[number]} {name} {STREET_TYPES[kind]}"

    def address(self, rng: random.Random, site: str) -> Address:
        """A new address in one of the towns of *site*."""
        towns = TOWNS[site]
        (city, postcode, _, suburbs) = rng.choices(towns, [town[2] for town in towns])[0]
        return Address(self.street(), rng.choice(suburbs), city, postcode)

    def refuge(self, rng: random.Random, site: str) -> tuple[str, Address]:
        """A refuge's name and its address, whose first line holds the name too."""
        n, kind = divmod(self._refuges.take(), len(REFUGE_TYPES))
        first, second = divmod(n, len(REFUGE_SECOND))
        name = f"{REFUGE_FIRST[first]}{REFUGE_SECOND[second]} {REFUGE_TYPES[kind]}"
        place = self.address(rng, site)
        return name, Address(f"{name}, {place.line1}", place.suburb, place.city, place.postcode)

    def phone(self) -> Phone:
        """A mobile number after 555, a block of numbers as in films."""
        prefix, subscriber = divmod(self._phones.take(), 100_000)
        return Phone(f"+64{_MOBILE_PREFIXES[prefix]}555{subscriber:05d}")

    def code_word(self) -> str:
        """Words and a number that a worker says so that the person knows who calls."""
        n, number = divmod(self._code_words.take(), 100)
        first, second = divmod(n, len(REFUGE_FIRST))
        return f"{STREET_FIRST[first]} {REFUGE_FIRST[second]} {number:02d}".lower()

    def nhi(self, rng: random.Random) -> str:
        """An NHI of the testing range, one in five in the format issued since July 2026."""
        if rng.random() < 0.2:
            return self._nhi_of(self._new_nhi, new=True)
        return self._nhi_of(self._old_nhi, new=False)

    def _nhi_of(self, series: _Series, *, new: bool) -> str:
        while True:
            prefix, rest = divmod(series.take(), 2400 if new else 1000)
            tail = f"{rest // 24:02d}{_LETTERS[rest % 24]}" if new else f"{rest:03d}"
            stem = f"Z{_LETTERS[prefix // 24]}{_LETTERS[prefix % 24]}{tail}"
            if (check := nhi_check(stem)) is not None:
                return stem + check

    def identifier(self, system: str) -> str:
        """A new identifier of *system* (an NHI has its own method, a court file too)."""
        return _FORMATS[system][1](self._numbers[system].take())

    def court_file(self, site: str, year: int, jurisdiction: str) -> str:
        """A file number of the site's court; *jurisdiction* is CRI or FAM."""
        return f"{jurisdiction}-{year}-{COURTS[site][1]}-{self._court_files.take():06d}"


def school(rng: random.Random, age: int) -> School:
    """A school for a child of *age*; several children may go there."""
    first = rng.randrange(len(SCHOOL_FIRST))
    last = 3 if age >= 13 else 2 if age >= 11 else rng.randrange(2)
    return School(f"{SCHOOL_FIRST[first]} {SCHOOL_LAST[last]}", str(9000 + 10 * first + last))
