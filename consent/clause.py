"""What an agreement is made of: parties with their standing, clauses with their legal bases, and the closed
words they use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

KINDS = ("POL", "OT", "COR", "HNZ", "GP", "MSD", "ACC", "MOJ", "EDU", "NGOV", "NGOP", "FSS")
ANY = "any"
NEVER_GRANTED = frozenset({"FRAME", "RESTRICT-META", "PRIV"})
_FAMILY_VIOLENCE = frozenset({"FV-RISK", "FV-PLAN", "FV-PROTECT"})
_CHILD_WELFARE = frozenset({"CW-HARM", "CW-ASSESS", "CW-PLAN", "CW-PREVENT", "CW-SERVICE", "CW-CARE"})
CHILD_CARE = _CHILD_WELFARE | {"CW-ROC"}  # what may be done with what section 66 made somebody supply


class Power(NamedTuple):
    """A legal basis: which *purposes* it carries, and the entry of a party's status that shows the party
    may rely on it (None: the *kinds* say).
    """

    title: str
    purposes: frozenset[str]
    status: str | None
    kinds: frozenset[str] = frozenset(KINDS)


BASES: dict[str, Power] = {
    "FVA20": Power("Family Violence Act 2018", _FAMILY_VIOLENCE, "fva"),
    "OTA66C": Power("Oranga Tamariki Act 1989", _CHILD_WELFARE, "cwpa"),
    "OTA15": Power("Oranga Tamariki Act 1989", frozenset({"CW-ROC"}), None, frozenset({"OT", "POL"})),
    "HIPC11": Power("Health Information Privacy Code 2020", _FAMILY_VIOLENCE | _CHILD_WELFARE, None),
    "HA22C": Power(
        "Health Act 1956", _FAMILY_VIOLENCE | _CHILD_WELFARE, None, frozenset({"POL", "OT", "COR"})
    ),
}
PURPOSES = frozenset().union(*(power.purposes for power in BASES.values()))
OBLIGATIONS: dict[str, str] = {
    "no-onward": "do not pass on without asking the hub again",
    "use-limited": "use only for the purpose of the message",
    "acknowledge-recall": "confirm within 24 hours that recalled information was withdrawn",
    "clinical-staff-only": "show only to clinical staff",
    "no-portal-proxy-letter": "never show in a patient portal, to a proxy, or in a letter",
    "never-to-perpetrator": "never let the perpetrator learn of it, paper he may see included",
    "consult-child": "take the child's views into account where practicable (Oranga Tamariki Act 1989 s 66K)",
    "delete-when-closed": "delete when the case closes",
    "unsafe-unless-said": "treat a contact detail as unsafe where no safe way of contact stands beside it",
    "not-for-offences": "never use it to investigate an offence (Oranga Tamariki Act 1989 s 66(3))",
}
# Why somebody breaks the glass. Each is about somebody's life or body, now; convenience is none of them.
THREATS: dict[str, str] = {
    "life": "somebody is likely to be killed or seriously hurt before a person of the holder can decide",
    "child": "a child is likely to be seriously harmed before a person of the holder can decide",
    "weapon": "somebody who threatens others has a weapon at hand",
    "released": "somebody who threatened a victim is free and may be on the way",
    "missing": "somebody at risk cannot be found",
}
# What no override opens (safety rule V17), beside what no clause may grant at all.
LOCKED = frozenset({"ADDR-SAFE", "NOTIFIER-ID"}) | NEVER_GRANTED


@dataclass(frozen=True, slots=True)
class Party:
    """An agency in a capacity. *kind* is its column of the matrix; *status* what is on record about its
    legal standing and staff.
    """

    id: str
    agency: str
    capacity: str
    kind: str
    name: str
    sites: frozenset[str]
    table: bool
    active: bool
    status: Mapping[str, str] = field(default_factory=dict)
    place: str = field(default="", compare=False)  # `file:line` of its definition

    def __hash__(self) -> int:
        """By id: one party of an `Agreements` has one id."""
        return hash(self.id)

    def may_rely_on(self, basis: str) -> bool:
        """Whether the record shows that this party may receive on *basis*; nothing on record means no."""
        power = BASES[basis]
        if self.kind not in power.kinds:
            return False
        return power.status is None or self.status.get(power.status, "none") != "none"


@dataclass(frozen=True, slots=True)
class Basis:
    """A legal basis with its *section*."""

    code: str
    section: str

    def __str__(self) -> str:
        return f"{self.code}: {BASES[self.code].title} {self.section}"


@dataclass(frozen=True, slots=True)
class Belief:
    """Who believes, on reasonable grounds and until when, that disclosure will or may help (Family Violence
    Act 2018 s 20).
    """

    kind: str
    statement: str
    decided_by: str
    decided_on: date
    until: date


@dataclass(frozen=True, slots=True)
class Clause:
    """What *recipient* (a kind or a party) may be *grant*ed (role → class → view), and what is put to a
    person of the holder (*refer*).
    """

    id: str
    sources: frozenset[str]
    recipient: str
    grants: Mapping[str, Mapping[str, str]]
    refer: Mapping[str, frozenset[str]]
    purposes: frozenset[str]
    basis: tuple[Basis, ...]
    belief: Belief
    conditions: tuple[str, ...]
    obligations: tuple[str, ...]
    line: int

    def to(self, party: Party) -> bool:
        """Whether the clause is for *party*."""
        return self.recipient in (party.kind, party.id)

    def carried_by(self, party: Party, purpose: str) -> tuple[Basis, ...]:
        """The bases on which *party* may receive for *purpose* under this clause."""
        if purpose not in self.purposes:
            return ()
        return tuple(b for b in self.basis if purpose in BASES[b.code].purposes and party.may_rely_on(b.code))


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """A clause that counts only while an override runs: for one of *threats*, for at most *minutes*.
    *approval* is `before` when a second person must agree first, `after` when the review is enough.
    """

    clause: Clause
    threats: frozenset[str]
    minutes: int
    approval: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """One agreement. It is in force when it is active and the day lies within its term; `review_by` is a
    warning, not an end. *content* is the hash of what its file says; *parties* are the kinds and parties that
    it is between, empty when it does not say; *supersedes* is the `ID@version` that it takes the place of.
    """

    id: str
    version: int
    title: str
    status: str
    instrument: str
    lead: str
    purpose: str
    effective_from: date
    effective_to: date | None
    review_by: date
    clauses: tuple[Clause, ...]
    file: str
    break_glass: tuple[BreakGlass, ...] = ()
    content: str = ""
    parties: tuple[str, ...] = ()
    supersedes: str = ""
    line: int = 1

    @property
    def name(self) -> str:
        """How it is called where its version matters: `ID@version`."""
        return f"{self.id}@{self.version}"

    def in_force(self, day: date) -> bool:
        """Whether the agreement is in force on *day*."""
        return (
            self.status == "active"
            and self.effective_from <= day
            and (self.effective_to is None or day <= self.effective_to)
        )

    def name_of(self, clause: Clause) -> str:
        """How a decision cites *clause*."""
        return f"{self.name}/{clause.id}"
