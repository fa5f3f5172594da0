"""The closed list of data classes: what kinds of fact there are about a family, how sensitive, and which
reveal a place.

Every property of every message names one of these. Agreements grant classes, never properties, so a new
property is withheld until somebody has classified it and somebody has granted its class. Tier 1 (public) to 5
(a life depends on it).
"""

from dataclasses import dataclass
from typing import NamedTuple

ROLES = ("victim", "child", "perpetrator", "witness", "associate")
CASE = "case"  # what is about the occurrence as a whole and not about one person
SUBJECT_ROLES = (CASE, *ROLES)


@dataclass(frozen=True, slots=True)
class DataClass:
    """One kind of fact: *tier* 1–5; *locates* when any value of it reveals where a victim or child is."""

    name: str
    title: str
    tier: int
    locates: bool = False
    health: bool = False


_ALL = (
    DataClass(
        "FRAME",
        "structure of a message: references, roles, party names; leaves only beside something granted",
        1,
    ),
    DataClass("ID-CORE", "name, birth date, gender, ethnicity", 2),
    DataClass("ID-XREF", "an agency's own identifier for a person", 3),
    DataClass("ADDR-V", "where a victim, child or bystander lives", 4, locates=True),
    DataClass("ADDR-SAFE", "refuge or safe-house address", 5, locates=True),
    DataClass("EXCL-ZONE", "coarse exclusion zone for electronic monitoring", 4, locates=True),
    DataClass("CONTACT-V", "how to reach a victim or child", 4, locates=True),
    DataClass("SAFE-CONTACT", "whether and how contact is safe", 3),
    DataClass("LOC-P", "where the perpetrator is", 3),
    DataClass("EPISODE-SUM", "what happened, in codes", 2),
    DataClass("EPISODE-NARR", "what happened, in the officer's words", 4),
    DataClass("RISK", "assessed risk, with its rationale", 3),
    DataClass("OFFENCE-HIST", "offending history", 3),
    DataClass("CUSTODY", "custody, bail, release, sentence", 3),
    DataClass("ORDERS", "protection, safety, property and parenting orders", 3),
    DataClass("FIREARMS", "access to firearms", 3),
    DataClass("GANG", "gang association", 4),
    DataClass("CP-STATUS", "care-and-protection involvement", 4),
    DataClass("NOTIFIER-ID", "who reported a concern about a child", 5),
    DataClass("CHILD-HH", "a child's household and school", 3),
    DataClass("HEALTH-ALERT", "pointer that a family-harm alert exists", 3),
    DataClass("HEALTH-INJ", "injuries and presentations", 4, health=True),
    DataClass("MH-AOD", "mental health, alcohol and drug involvement", 5, health=True),
    DataClass("SEXUAL-SENS", "sexual violence and sensitive claims", 5, health=True),
    DataClass("ACC-CLAIM", "injury claims", 4, health=True),
    DataClass("BENEFIT", "income support", 3),
    DataClass("HOUSING", "housing and its place", 4, locates=True),
    DataClass("EDU-ENROL", "enrolment and attendance", 4, locates=True),
    DataClass("FSP-V", "safety plan and tasks about those at risk", 4, locates=True),
    DataClass("FSP-P", "plan and tasks about the perpetrator; no victim information inside", 3),
    DataClass("SERVICE", "which service works with whom, and how it goes", 3),
    DataClass("VIEWS", "what the victim or child wants shared", 4),
    DataClass("RESTRICT-META", "that a record is restricted; never leaves the hub", 5),
    DataClass("PRIV", "legally privileged matter or raw intelligence; never taken in", 5),
)
CLASSES: dict[str, DataClass] = {c.name: c for c in _ALL}
FRAME = "FRAME"


class Facet(NamedTuple):
    """A data class together with what the guards must know of a property: does it *locate* somebody, is it
    *free text*.

    One class can have several facets: a child's household is `CHILD-HH`, the child's school is `CHILD-HH`
    that locates.
    """

    name: str
    locates: bool = False
    free_text: bool = False
