"""The decision: what of one message may one party receive, under the agreements in force, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from consent.case import Case
from schemas.classes import Facet


class Outcome(StrEnum):
    """What a decision comes to."""

    PERMIT = "permit"
    REDUCED = "reduced"
    REFER = "refer"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Question:
    """One message, as far as deciding needs it: no content, only which facets it holds about whom.

    *roles* and *pseudonyms* are by the message's own refs; *holdings* has "" for the case. *cases* are all cases that the people of the message
    belong to: assigned in any, linked in any, highest risk of all.
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


@dataclass(frozen=True, slots=True)
class Decision:
    """What one party may receive of one message, and everything an auditor asks about it. Holds no content.

    *given* says for each ref ("" for the case) which facet in which view, `full` or `reduced`; FRAME is implicit.
    """

    outcome: Outcome
    given: Mapping[str, Mapping[Facet, str]]
    withheld: tuple[tuple[str, str, str], ...]
    referred: tuple[tuple[str, str], ...]
    clauses: tuple[str, ...]
    conditions: Mapping[str, bool]
    reasons: tuple[str, ...]
    guards: tuple[str, ...]
    obligations: tuple[str, ...]
    basis: tuple[str, ...]
    purpose: str
