"""Identifiers of people: who issued them, whether they are well formed, and whom they may be given back to.

Information Privacy Principle 13 keeps agencies from sharing one number for a person: the hub gives each
agency only the identifiers that agency issued. The NHI follows HISO 10046 in both formats; the modulus of the
new one is 23 (drafts up to 2022 said 24).
"""

import re

NHI = "nhi"
ISSUERS: dict[str, str] = {
    NHI: "health",  # National Health Index, HISO 10046
    "police-person": "police",  # Police person record
    "police-event": "police",  # Police event number
    "prn": "corrections",  # Corrections person record number
    "cyras": "oranga-tamariki",  # Oranga Tamariki case management
    "swn": "msd",  # social welfare number
    "acc-claimant": "acc",
    "acc45": "acc",  # ACC45 claim number
    "justice-person": "justice",
    "court-file": "justice",
    "learner": "education",  # the school's own enrolment number; the national student number is not carried
    "ngo-client": "ngo",
    "fss-person": "fss",
}

_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # without I and O
_OLD = re.compile(r"[A-HJ-NP-Z]{3}[0-9]{4}")
_NEW = re.compile(r"[A-HJ-NP-Z]{3}[0-9]{2}[A-HJ-NP-Z]{2}")
_WEIGHTS = (7, 6, 5, 4, 3, 2)


def _sum(stem: str) -> int:
    return sum(
        (int(c) if c.isdigit() else _ALPHABET.index(c) + 1) * w for c, w in zip(stem, _WEIGHTS, strict=True)
    )


def nhi_check(stem: str) -> str | None:
    """The check character for the first six characters of an NHI; None when no number has this stem."""
    if stem[3:6].isdigit():
        remainder = _sum(stem) % 11
        return None if remainder == 0 else str((11 - remainder) % 10)
    return _ALPHABET[23 - _sum(stem) % 23 - 1]


def is_nhi(text: str) -> bool:
    """Whether *text* is an NHI of either format with a correct check character; it is not stripped or
    upper-cased here.
    """
    if not (_OLD.fullmatch(text) or _NEW.fullmatch(text)):
        return False
    return nhi_check(text[:6]) == text[6]


def is_test_nhi(text: str) -> bool:
    """Whether *text* lies in the range reserved for testing (first letter Z)."""
    return text.startswith("Z")


def issuer(system: str) -> str | None:
    """The agency that issues identifiers of *system*; None when the system is not known."""
    return ISSUERS.get(system)
