"""Tells what happened: the episode as Police record it, the officer's words, the risk as FSS sees it.

The narrative names people and, in half of all episodes, the place, sometimes even where she has gone: free
text is where an address hides from every rule about fields.
"""

import random
from collections.abc import Mapping
from datetime import datetime, timedelta

from gateway.sandbox.circumstances import Occurrence
from gateway.sandbox.people import Address, Arrest, Episode, Family, Hearing, Person, SafetyOrder
from gateway.sandbox.places import COURTS
from gateway.sandbox.register import Register
from schemas.clock import NEW_ZEALAND

_SUBJECTS = (
    "money for the power bill",
    "messages on a phone",
    "who would pick up the children",
    "the car keys",
    "drinking the night before",
    "a new job",
    "contact on the weekend",
    "rent arrears",
)
_HARM_WORDS = {
    "verbal": "shouted at",
    "physical": "struck",
    "threats": "threatened to hurt",
    "property-damage": "broke a door while arguing with",
}
_OFFENCE_OF = {
    "physical": "assault-family-relationship",
    "threats": "threatening-to-kill",
    "property-damage": "intentional-damage",
    "verbal": "disorderly-behaviour",
}
_BAIL = (
    "Not to contact the victim",
    "Not to go within 100 metres of the victim's home",
    "Curfew 1900 to 0700",
)
_RISK_WORDS = {
    "high": "Serious harm is likely soon",
    "medium": "Likely to happen again, though not at once",
    "low": "Unlikely to happen again",
}
_FACTOR_WORDS = {
    "strangulation": "pressure to the neck",
    "firearms": "access to firearms",
    "breach-of-order": "an order was breached",
    "escalation": "episodes come closer together",
    "separation": "they have separated",
    "children-exposed": "children were there",
    "weapon": "a weapon was used",
    "threats": "threats were made",
    "methamphetamine": "methamphetamine",
    "alcohol-or-drugs": "alcohol or drugs",
    "gang": "gang association",
    "housing": "nowhere else to live",
    "mental-health": "mental health",
}


def recount(
    rng: random.Random,
    register: Register,
    key: str,
    family: Family,
    occurrence: Occurrence,
    at: datetime,
    *,
    swapped: bool = False,
    named_address: bool = False,
    bailed_near: bool = False,
) -> Episode:
    """The episode *key* of *family* at the instant *at* (UTC).

    With *swapped* the usual victim is the aggressor this time; with *named_address* the narrative says where
    the victim lives now; with *bailed_near* the court bails to an address a short walk from there.
    """
    perpetrator, victim = family.person(family.perpetrator), family.person(family.victim)
    if swapped:
        perpetrator, victim = victim, perpetrator
    day = at.astimezone(NEW_ZEALAND).date()
    children = [p for p in family.people if p.is_child(day) and p.key not in (perpetrator.key, victim.key)]
    present = [child for child in children if not child.unborn] if occurrence.children_present else []
    arrest = _arrest(rng, register, family, occurrence, at, perpetrator, victim, near=bailed_near)
    factors = _factors(occurrence, family, perpetrator, children_exposed=bool(present))
    place = _place(rng, register, family, victim, elsewhere=occurrence.elsewhere)
    tells_where = named_address or rng.random() < 0.5
    return Episode(
        key=key,
        event_number=register.identifier("police-event"),
        occurred_at=at,
        recorded_at=at + timedelta(minutes=rng.randint(60, 300)),
        family=family.key,
        site=family.site,
        roles=_roles(family, perpetrator, victim, children, present),
        exposed=tuple(child.key for child in present),
        place=place,
        harms=occurrence.harms,
        sexual_harm=occurrence.sexual_harm,
        strangulation=occurrence.strangulation,
        weapons=(occurrence.weapon,) if occurrence.weapon else (),
        alcohol=occurrence.alcohol,
        drugs=occurrence.drugs,
        firearms=occurrence.firearms,
        firearms_detail="A rifle in the hall cupboard, licence not sighted." if occurrence.firearms else "",
        safety_order=SafetyOrder(perpetrator.key, at + timedelta(minutes=55), occurrence.safety_order_days)
        if occurrence.safety_order_days
        else None,
        breach_of_order=occurrence.breach,
        arrest=arrest,
        dangers=_dangers(rng, family, occurrence),
        concern_reported=bool(present) and rng.random() < 0.11,
        school_told=occurrence.school_told and any(child.school is not None for child in children),
        narrative=_narrative(rng, occurrence, at, perpetrator, victim, present, place, tells_where),
        risk=occurrence.risk,
        risk_factors=factors,
        rationale=_rationale(occurrence.risk, factors),
    )


def _roles(
    family: Family, perpetrator: Person, victim: Person, children: list[Person], present: list[Person]
) -> Mapping[str, str]:
    # Police list the children of the household, there or not; children who live elsewhere only when they
    # were there.
    roles = {perpetrator.key: "perpetrator", victim.key: "victim"}
    for child in children:
        if family.children == "home" or child in present:
            roles[child.key] = "child"
    for person in family.people:
        if person.key.endswith(".w"):
            roles[person.key] = "witness"
    return roles


def _place(
    rng: random.Random, register: Register, family: Family, victim: Person, *, elsewhere: bool
) -> Address:
    if elsewhere:
        return register.address(rng, family.site)
    # It happened before she moved.
    return victim.former_home or victim.home


def _arrest(
    rng: random.Random,
    register: Register,
    family: Family,
    occurrence: Occurrence,
    at: datetime,
    perpetrator: Person,
    victim: Person,
    *,
    near: bool,
) -> Arrest | None:
    if occurrence.arrest is None:
        return None
    day = at.astimezone(NEW_ZEALAND).date()
    bailed = occurrence.arrest == "bailed"
    bail_address = None
    if bailed:
        bail_address = register.address(rng, family.site)
        if near:
            home = victim.home
            bail_address = Address(bail_address.line1, home.suburb, home.city, home.postcode)
    hearing = Hearing(
        court_file=register.court_file(family.site, day.year, "CRI"),
        court=COURTS[family.site][0],
        heard_on=day + timedelta(days=1),
        result="remanded-on-bail" if bailed else "remanded-in-custody",
        offences=tuple(_OFFENCE_OF[harm] for harm in occurrence.harms) or ("sexual-violation",),
        bail_conditions=_BAIL if bailed else (),
        bail_address=bail_address,
        near_victim=near and bailed,
    )
    return Arrest(perpetrator.key, at + timedelta(minutes=rng.randint(15, 90)), occurrence.arrest, hearing)


def _dangers(rng: random.Random, family: Family, occurrence: Occurrence) -> tuple[str, ...]:
    found = []
    if rng.random() < 0.08:
        found.append("dogs")
    if family.gang and rng.random() < 0.12:
        found.append("gang-pad")
    if occurrence.firearms:
        found.append("firearms")
    return tuple(found)


def _factors(
    occurrence: Occurrence, family: Family, perpetrator: Person, *, children_exposed: bool
) -> tuple[str, ...]:
    holds = {
        "strangulation": occurrence.strangulation,
        "firearms": occurrence.firearms,
        "breach-of-order": occurrence.breach,
        "escalation": perpetrator.prior_episodes >= 3,
        "separation": family.relation == "ex-partner",
        "children-exposed": children_exposed,
        "weapon": occurrence.weapon is not None,
        "threats": "threats" in occurrence.harms,
        "methamphetamine": family.methamphetamine,
        "alcohol-or-drugs": family.alcohol_or_drugs,
        "gang": family.gang,
        "housing": family.housing_issue,
        "mental-health": perpetrator.mental_health,
    }
    return tuple(factor for factor, present in holds.items() if present)


def _rationale(risk: str, factors: tuple[str, ...]) -> str:
    reasons = ", ".join(_FACTOR_WORDS[factor] for factor in factors) or "no factor beyond the argument itself"
    return f"{_RISK_WORDS[risk]}: {reasons}."


def _narrative(
    rng: random.Random,
    occurrence: Occurrence,
    at: datetime,
    perpetrator: Person,
    victim: Person,
    present: list[Person],
    place: Address,
    tells_where: bool,
) -> str:
    he, she = perpetrator.name.given, victim.name.given
    where = f"{place.line1}, {place.suburb}" if tells_where else "a private address"
    deeds = " and ".join(_HARM_WORDS[harm] for harm in occurrence.harms) or "forced sexual contact on"
    sentences = [
        f"Called to {where} at {at.astimezone(NEW_ZEALAND):%H%M} hours.",
        f"{he} and {she} {victim.name.family} had argued about {rng.choice(_SUBJECTS)}. {he} {deeds} {she}.",
    ]
    if occurrence.strangulation:
        sentences.append(f"{she} says that {he} pressed on her neck and that she could not breathe.")
    if present:
        sentences.append(
            f"{' and '.join(child.name.given for child in present)} heard it from the next room."
        )
    if occurrence.breach:
        sentences.append("A protection order was served earlier and has been breached.")
    if tells_where and victim.safe_address is not None:
        sentences.append(f"{she} has gone to {victim.safe_address.line1}.")
    elif tells_where and victim.former_home is not None:
        sentences.append(f"{she} now stays at {victim.home.line1} and asks that nobody is told.")
    if tells_where and victim.phones and rng.random() < 0.5:
        sentences.append(f"Reach her on {victim.phones[0].local}.")
    if occurrence.arrest is not None:
        sentences.append(f"{he} was arrested.")
    elif occurrence.safety_order_days:
        sentences.append(f"A Police Safety Order of {occurrence.safety_order_days} days was issued.")
    return " ".join(sentences)
