"""The question and the answer of a decision: values without content, compared, remembered and written to the
ledger.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from consent.case import Case
from consent.lexicon import Lexicon
from schemas.classes import Facet


class Outcome(StrEnum):
    """What a decision comes to."""

    PERMIT = "permit"
    REDUCED = "reduced"
    REFER = "refer"
    REFUSE = "refuse"


class Leave(NamedTuple):
    """What people decided about one message and one recipient beyond the standing clauses. It opens what a
    clause only refers, or what a break-glass clause says, and never reaches past a guard.

    *approved*: (role, class) that a person of the holder approved. *scrubbed*: that person has read the text
    in it, and no place stands there. *opened*: the break-glass clauses of an override that runs.
    *mandatory*: the recipient asked under section 66 of the Oranga Tamariki Act 1989, so that what no clause
    gives is put to a person and not refused.
    """

    approved: frozenset[tuple[str, str]] = frozenset()
    scrubbed: bool = False
    opened: frozenset[str] = frozenset()
    mandatory: bool = False


NO_LEAVE = Leave()


@dataclass(frozen=True, slots=True)
class Question:
    """One message, as far as deciding needs it: no content, only which facets it holds about whom.

    *roles* and *pseudonyms* are by the message's own refs; *holdings* has "" for the case. *cases* are all
    cases that the people of the message belong to: assigned in any, linked in any, highest risk of all.
    *elsewhere* are other cases of its perpetrators: they give nobody anything, but the home that he shares
    with a victim of another case is hers there, and so everywhere. *leave* is what people decided. *tags*
    stick to the message wherever it goes (see `tags_of`).
    """

    type: str
    purpose: str
    audience: str
    source: str
    roles: Mapping[str, str]
    pseudonyms: Mapping[str, str]
    holdings: Mapping[str, frozenset[Facet]]
    cases: tuple[Case, ...]
    at: datetime
    elsewhere: tuple[Case, ...] = ()
    leave: Leave = NO_LEAVE
    tags: frozenset[str] = frozenset()


S66 = "S66"


def tags_of(data: Mapping[str, Any]) -> frozenset[str]:
    """The sticky tags of a message's *data*: `S66` for what an agency had to supply under the Oranga Tamariki
    Act 1989 s 66. The property that says so is structure, so whoever is given something is given it too.
    """
    return frozenset({S66}) if data.get("suppliedUnder") == "OTA66" else frozenset()


class Findings(NamedTuple):
    """What a decision found beside what it gives: sets of words of the lexicons below; those by role are
    sorted by role.
    """

    withheld: tuple[tuple[str, int], ...] = ()
    given: tuple[tuple[str, int], ...] = ()
    referred: int = 0
    clauses: int = 0
    basis: int = 0
    conditions: int = 0
    unmet: int = 0  # those of *conditions* that were not met
    guards: int = 0
    reasons: int = 0
    obligations: int = 0


def _by_reason(words: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, reason in words:
        found.setdefault(reason, []).append(name)
    return found


def _by_role(words: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for role, name in words:
        found.setdefault(role, []).append(name)
    return found


WITHHELD: Lexicon[tuple[str, str]] = Lexicon(_by_reason)  # (class, reason)
REFERRED: Lexicon[tuple[str, str]] = Lexicon(_by_role)  # (role, class)
NAMES: Lexicon[str] = Lexicon()  # classes as an entry names them: `ADDR-V`, `RISK:reduced`
WORDS: Lexicon[str] = Lexicon()  # clauses, bases, conditions, guards, reasons, obligations


_NOTHING_FOUND = Findings()


@dataclass(frozen=True, slots=True)
class Decision:
    """What one party may receive of one message, and everything an auditor asks about it. Holds no content.

    *given* says for each ref ("" for the case) which facet in which view, `full` or `reduced`; FRAME is
    implicit. *withheld* are (role, class, reason): a guard's code, `unmet-` and a condition, `no-clause`,
    `needs-person`, `reduced-view` or `names-alone`. Equal decisions may be one object; its mappings cannot
    be changed.
    """

    outcome: Outcome
    given: Mapping[str, Mapping[Facet, str]]
    purpose: str
    recipient: str = ""
    found: Findings = _NOTHING_FOUND

    @property
    def withheld(self) -> tuple[tuple[str, str, str], ...]:
        """(role, class, reason), sorted."""
        return tuple((role, *word) for role, held in self.found.withheld for word in WITHHELD.words(held))

    @property
    def referred(self) -> tuple[tuple[str, str], ...]:
        """(role, class) that a person of the holder decides, sorted."""
        return REFERRED.words(self.found.referred)

    @property
    def clauses(self) -> tuple[str, ...]:
        """The clauses that gave or referred something, sorted."""
        return WORDS.words(self.found.clauses)

    @property
    def conditions(self) -> Mapping[str, bool]:
        """Every condition that was looked at, and whether it was met, sorted."""
        unmet = set(WORDS.words(self.found.unmet))
        return FrozenDict((name, name not in unmet) for name in WORDS.words(self.found.conditions))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not everything was given, sorted."""
        return WORDS.words(self.found.reasons)

    @property
    def guards(self) -> tuple[str, ...]:
        """The guards that held something back, sorted."""
        return WORDS.words(self.found.guards)

    @property
    def obligations(self) -> tuple[str, ...]:
        """What the recipient must observe, sorted."""
        return WORDS.words(self.found.obligations)

    @property
    def basis(self) -> tuple[str, ...]:
        """The legal bases of *clauses*, sorted."""
        return WORDS.words(self.found.basis)


class FrozenDict(dict[Any, Any]):
    """A dict that cannot be changed; still a dict for JSON encoders. Remembered decisions share theirs."""

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("a decision cannot be changed")

    __setitem__ = __delitem__ = update = pop = popitem = _refuse
    clear = setdefault = __ior__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as what it is."""
        return type(self), (dict(self),)


class Grant(FrozenDict):
    """What is given of one subject: facet → view. *plans* is the minimiser's memory of what that means for
    the objects of a message.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.plans: dict[Any, Any] = {}
