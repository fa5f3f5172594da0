# ruff: noqa: ARG001  # every guard has the same signature
"""Guards: refusals that nothing overrides, evaluated before any clause may give something.

A guard sees the recipient's situation, the subject and one facet in one view, never content. It answers
with an `Effect` or not at all; the strongest answer wins and every guard that answered is recorded. The
numbers are those of the safety rules in docs/agreements.md.

All operands only ever restrict: a flag, link or conflict that is added can turn a release into a question
to a person or into nothing, never the other way round (a property test holds this).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from consent.conditions import CLINICAL_KINDS, risk_at_least
from schemas.classes import CASE, CLASSES, Facet

AT_RISK = frozenset({"victim", "child"})
PERPETRATOR_SIDE = frozenset({"COR", "NGOP"})
NGO = frozenset({"NGOV", "NGOP"})
# Kinds that may be given the identifiers they issued themselves (IPP 13, Privacy Act 2020; HIPC rule 13 for
# the NHI).
IDENTIFIER_KINDS = frozenset({"POL", "OT", "COR", "HNZ", "GP", "MSD", "ACC", "MOJ", "FSS"})
SAFE_ADDRESS_SERVICES = frozenset({"ivs", "refuge"})
# A question, or a seat at the table: not yet work with that very person.
ONLY_ASKED = frozenset({"asked", "table"})

_ABOUT_THOSE_AT_RISK = frozenset({"ADDR-V", "ADDR-SAFE", "EXCL-ZONE", "CONTACT-V", "FSP-V", "VIEWS", "LOC-P"})
# Somebody else's even beside the perpetrator: an order names him, and the address that it protects.
_OF_OTHERS = frozenset({"ADDR-V", "ADDR-SAFE", "CONTACT-V"})
_HEALTH = frozenset(name for name, c in CLASSES.items() if c.health)
_FOR_A_REPRESENTATIVE = _HEALTH | {"CHILD-HH", "EDU-ENROL", "HEALTH-ALERT"}
# Those who make the first contact, or coordinate it, and are bound to find out how it is safe.
_MAKES_CONTACT = frozenset({"POL", "OT", "FSS", "NGOV"})
# What an agency's records say of somebody: the wrong person's, when two share a name.
_ON_FILE = _HEALTH | {"OFFENCE-HIST", "GANG", "BENEFIT", "EDU-ENROL"}
_WHO = frozenset({"ID-CORE", "ID-XREF", "SAFE-CONTACT"})
_SCHOOL_MAY_KNOW = {
    "ID-CORE": "full",
    "SAFE-CONTACT": "full",
    "EPISODE-SUM": "reduced",
    "ORDERS": "reduced",
    "VIEWS": "reduced",
    "FSP-V": "reduced",
    "CP-STATUS": "reduced",
    "CHILD-HH": "reduced",
}


class Effect(IntEnum):
    """How far a guard holds something back; the larger, the further."""

    ASK = 1  # what a clause would give goes to a person of the holder agency instead
    NO_RELEASE = 2  # nothing is given; a clause may still refer to a person, who can scrub or telephone
    NOTHING = 3  # not given and not even referred


@dataclass(frozen=True, slots=True)
class Situation:
    """The recipient towards the whole message. *knows_places*: a clause gives this recipient the addresses
    of every victim of the case, and it is not linked to the perpetrator. *perpetrator_represents_pupil*:
    some own pupil's representative is or was the perpetrator. *safe_house*: somebody's whereabouts
    are protected. *supplied_under_66*: an agency had to supply this (Oranga Tamariki Act 1989 s 66);
    *for_care*: its purpose is a child's care and protection.
    """

    kind: str
    capacity: str
    audience: str
    risk: str | None
    linked: bool
    conflicted: bool
    knows_places: bool
    own_pupil: bool
    others_at_risk: bool
    perpetrator_represents_pupil: bool
    safe_house: bool = False
    supplied_under_66: bool = False
    for_care: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """One person of the message, or the case. *reveals_home*: where this person is tells where somebody at
    risk is (a shared household, a person who has been a victim or child in the case too, or nothing
    known). *perpetrator_represents*: the named representative is or was the perpetrator.
    *contact_said*: the message says whether contact is safe. *numbered*: it holds an agency's number for this
    person.
    """

    role: str
    services: frozenset[str] = frozenset()
    own_pupil: bool = False
    reveals_home: bool = False
    was_perpetrator: bool = False
    perpetrator_represents: bool = False
    contact_said: bool = False
    numbered: bool = False


def _safe_address(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    provider = who.kind == "NGOV" and not SAFE_ADDRESS_SERVICES.isdisjoint(subject.services)
    if facet.name == "ADDR-SAFE":
        return None if provider and who.audience == "addressee" else Effect.NO_RELEASE
    # Nobody can tell a refuge from other words of a text: where there is one, a person reads it first.
    return Effect.ASK if facet.free_text and who.safe_house and not provider else None


def _location(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    if who.knows_places:
        return None
    unscrubbed = facet.free_text and subject.role != "perpetrator"
    place_of_case = subject.role == CASE and facet.locates and view == "full"
    shared_home = facet.name == "LOC-P" and subject.reveals_home
    zone = facet.name == "EXCL-ZONE"  # its middle is somebody's home
    return Effect.NO_RELEASE if unscrubbed or place_of_case or shared_home or zone else None


def _linked(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    if not who.linked:
        return None
    if facet.name == "EXCL-ZONE":
        # The one exception: a coarse zone may reach the electronic monitoring unit, and only through a
        # person of the holder.
        return Effect.NO_RELEASE if who.kind == "COR" and who.capacity == "em" else Effect.NOTHING
    about_others = facet.locates or facet.name in _ABOUT_THOSE_AT_RISK
    hidden = facet.name in _OF_OTHERS if subject.role == "perpetrator" else about_others
    # The times and the code word by which she knows a caller; that nobody may call is the reduced view.
    of_person = subject.role not in (CASE, "perpetrator")
    how_to_call = of_person and facet.name == "SAFE-CONTACT" and view == "full"
    return Effect.NOTHING if hidden or how_to_call else None


def _health_alert(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    if facet.name != "HEALTH-ALERT":
        return None
    if (subject.role == "perpetrator" or subject.was_perpetrator) and who.others_at_risk:
        return Effect.NOTHING
    may_see = who.kind in CLINICAL_KINDS or (who.kind == "FSS" and view == "reduced")
    return None if may_see else Effect.NOTHING


def _representative(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    if who.kind == "EDU":
        concerned = subject.perpetrator_represents or (
            subject.role == CASE and who.perpetrator_represents_pupil
        )
        return Effect.ASK if concerned else None
    concerned = who.kind in CLINICAL_KINDS and subject.role == "child" and subject.perpetrator_represents
    return Effect.ASK if concerned and facet.name in _FOR_A_REPRESENTATIVE else None


def _unsafe_contact(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    unsafe = facet.name == "CONTACT-V" and not subject.contact_said and who.kind not in _MAKES_CONTACT
    return Effect.ASK if unsafe else None


def _conflict(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    return Effect.NOTHING if who.conflicted else None


def _restriction(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    return Effect.NOTHING if facet.name == "RESTRICT-META" else None


def _privilege(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    return Effect.NOTHING if facet.name == "PRIV" else None


def _doubtful_person(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    doubtful = subject.role != CASE and not subject.numbered and facet.name in _ON_FILE
    return Effect.ASK if doubtful else None


def _sibling(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    of_sibling = subject.role == "child" and not subject.services
    return Effect.NO_RELEASE if of_sibling and facet.name not in _WHO else None


def _turned_role(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    turned = subject.role in AT_RISK and subject.was_perpetrator and who.kind in NGO
    tells = facet.locates or facet.name in _ABOUT_THOSE_AT_RISK
    return Effect.ASK if turned and tells and subject.services <= ONLY_ASKED else None


def _school(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    if who.kind != "EDU":
        return None
    widest = _SCHOOL_MAY_KNOW.get(facet.name)
    about_pupil = (subject.role == "child" and subject.own_pupil) or (
        subject.role == CASE and facet.name == "EPISODE-SUM" and who.own_pupil
    )
    may_know = widest in ("full", view)
    return None if about_pupil and may_know and risk_at_least(who.risk, "medium") else Effect.NO_RELEASE


def _notifier(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    if facet.name != "NOTIFIER-ID" or who.kind == "OT":
        return None
    return Effect.NO_RELEASE if who.kind == "POL" else Effect.NOTHING


def _identifiers(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    return Effect.NOTHING if facet.name == "ID-XREF" and who.kind not in IDENTIFIER_KINDS else None


def _supplied_under_66(who: Situation, subject: Subject, facet: Facet, view: str) -> Effect | None:
    if not who.supplied_under_66:
        return None
    if not who.for_care:
        return Effect.NOTHING
    # Section 66B: what a health practitioner owes in confidence goes on only after somebody has inquired.
    return Effect.ASK if facet.name in _HEALTH and who.kind != "OT" else None


Guard = Callable[[Situation, Subject, Facet, str], Effect | None]

# code → (what it protects, the guard). V9 is the policy's own last step: names are not sent alone. V15, V16
# are duties after a release, V17 is what an emergency cannot open (`consent.clause.LOCKED`).
GUARDS: dict[str, tuple[str, Guard]] = {
    "V1": (
        "a safe-house address reaches only the provider that works with the person, in a message to it "
        "alone, and a person reads every text that may name it",
        _safe_address,
    ),
    "V2": (
        "what may reveal a place counts as the place: free text, the episode's place, a zone around a home, "
        "a home that is shared",
        _location,
    ),
    "V3": ("whoever is linked to the perpetrator never learns where or how to reach those at risk", _linked),
    "V4": (
        "an alert is seen by health care only, and never beside the victim on the perpetrator's record",
        _health_alert,
    ),
    "V5": (
        "what a perpetrator could ask for as a child's representative goes to a person first",
        _representative,
    ),
    "V6": (
        "a way to reach somebody is not given to whom it merely helps while nobody said that contact is safe",
        _unsafe_contact,
    ),
    "V7": ("a party with a conflict of interest receives nothing about the case", _conflict),
    "V8": ("that a record is restricted never leaves", _restriction),
    "V10": (
        "what is on file about a person whom the message does not number goes to a person first",
        _doubtful_person,
    ),
    "V11": (
        "a child is decided about by itself: who works with a sibling learns who the child is and no more",
        _sibling,
    ),
    "V12": (
        "a school learns of its own pupil only, from medium risk, and only that the child was exposed",
        _school,
    ),
    "V13": ("who reported a concern about a child stays with Oranga Tamariki and Police", _notifier),
    "V14": (
        "a provider that was only asked about a victim who was the perpetrator asks a person where they are",
        _turned_role,
    ),
    "S66": (
        "what had to be supplied about a child serves that child's care and protection and nothing else",
        _supplied_under_66,
    ),
    "IPP13": ("a person's number goes back only to the agency that issued it", _identifiers),
    "PRIV": ("privileged matter and raw intelligence never leave", _privilege),
}


_ORDER = tuple(GUARDS)


def guarded(
    who: Situation, subject: Subject, facet: Facet, view: str
) -> tuple[Effect | None, tuple[str, ...]]:
    """The strongest effect of all guards on giving *facet* of *subject* to *who* in *view*, and the codes
    of those that hold something back.
    """
    held = [
        (effect, code)
        for code in _ORDER  # the first that holds is the reason that is told
        if code in GUARDS and (effect := GUARDS[code][1](who, subject, facet, view)) is not None
    ]
    if not held:
        return None, ()
    return max(effect for effect, _ in held), tuple(code for _, code in held)
