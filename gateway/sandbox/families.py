"""Turns circumstances into people: names, homes, children, and which agencies have met them before.

A family is a function of its own generator and of the register's next numbers; nothing depends on the clock.
"""

import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from gateway.sandbox.circumstances import Circumstances, Occurrence, benefit_share
from gateway.sandbox.figures import MENTAL_HEALTH_OR_ADDICTION
from gateway.sandbox.histories import (
    Settlement,
    Wish,
    draw_care,
    draw_claims,
    draw_orders,
    draw_phones,
    draw_presentations,
    draw_safe_contact,
)
from gateway.sandbox.names import draw_codes, draw_name, without_macrons
from gateway.sandbox.people import (
    Address,
    Family,
    Name,
    Order,
    Person,
    Relationship,
    SecondRecord,
)
from gateway.sandbox.register import Register, school

_OFFENCES = (
    "common-assault",
    "assault-family-relationship",
    "threatening-to-kill",
    "intentional-damage",
    "breach-protection-order",
    "driving-disqualified",
    "burglary",
    "impeding-breathing",
)
_ALIVE_IN_NHI = 0.97


def settle(
    rng: random.Random,
    register: Register,
    key: str,
    facts: Circumstances,
    occurrence: Occurrence,
    at: datetime,
    wish: Wish | None = None,
) -> Family:
    """The family *key* with these *facts*, whose *occurrence* is *at* an instant; *register* numbers it."""
    making = Settlement(rng, register, key, facts, occurrence, at, wish or Wish())
    perpetrator, victim = _principals(making)
    making.people += [perpetrator, victim]
    _state_relation(making, perpetrator, victim)
    _add_children(making, perpetrator, victim)
    if facts.adult_witness:
        _add_witness(making, victim)
    orders = draw_orders(making, perpetrator, victim)
    _give_court_numbers(making, orders)
    return Family(
        key=key,
        site=facts.site,
        people=tuple(making.people),
        perpetrator=perpetrator.key,
        victim=victim.key,
        relation=facts.relation,
        risk=facts.risk,
        shares_household=perpetrator.home == victim.home and victim.safe_address is None,
        children=facts.children,
        gang=facts.gang,
        alcohol_or_drugs=facts.alcohol_or_drugs,
        methamphetamine=facts.methamphetamine,
        housing_issue=facts.housing_issue,
        known_to_care=facts.known_to_care,
        relationships=tuple(making.relationships),
        orders=orders,
        conflict=making.wish.conflict or ("msd" if making.chance(0.01) else None),
    )


def _give_court_numbers(making: Settlement, orders: tuple[Order, ...]) -> None:
    """Whoever an order names is known to the court; a guest stays as the other family has them."""
    named = {key for order in orders for key in (order.restrained, *order.protected)}
    for n, person in enumerate(making.people):
        if person.key in named and person != making.wish.perpetrator and not person.known_to("justice"):
            numbers = {**person.identifiers, **making.identifiers({"justice"})}
            making.people[n] = replace(person, identifiers=numbers)


def _principals(making: Settlement) -> tuple[Person, Person]:
    facts, wish, rng = making.facts, making.wish, making.rng
    victims_home = making.register.address(rng, facts.site)
    together = facts.together or facts.whereabouts == "refuge"
    if wish.perpetrator is not None:
        perpetrator = wish.perpetrator
        if together:
            victims_home = perpetrator.home
    else:
        home = victims_home if together else making.register.address(rng, facts.site)
        perpetrator = _perpetrator(making, home)
    return perpetrator, _victim(making, victims_home, perpetrator)


def _perpetrator(making: Settlement, home: Address) -> Person:
    facts, occurrence, wish = making.facts, making.occurrence, making.wish
    name = wish.perpetrator_name or draw_name(
        making.rng, facts.perpetrator_ethnicity, facts.perpetrator_gender
    )
    history = occurrence.sentence != "none" or making.chance(0.3)
    agencies = {"police", *_known(making, facts.perpetrator_age)}
    if history:
        agencies |= {"corrections", "justice"}
    if occurrence.arrest is not None:
        agencies.add("justice")
    born = making.born(facts.perpetrator_age)
    gang = "none"
    if facts.gang:
        gang = "member" if making.chance(0.6) else "associate"
    person = _with_life(
        making,
        Person(
            key=f"{making.key}.p",
            name=name,
            birth_date=born,
            gender=facts.perpetrator_gender,
            ethnicities=draw_codes(making.rng, facts.perpetrator_ethnicity),
            home=home,
            phones=draw_phones(making, facts.perpetrator_age),
            spellings=making.spellings(name),
            gang=gang,
            methamphetamine=facts.methamphetamine,
            sentence=occurrence.sentence,
            offences=tuple(making.rng.sample(_OFFENCES, making.rng.randint(1, 3))) if history else (),
            prior_episodes=making.rng.choice((0, 0, 1, 1, 2, 3)) + (4 if facts.risk == "high" else 0),
            firearms_access=occurrence.firearms,
        ),
        agencies,
        facts.perpetrator_age,
        addicted=facts.alcohol_or_drugs,
        addicted_share=1.0,
    )
    if wish.recorded_twice:
        # Written down at another station: a day's slip in the birth date, the name without macrons.
        slipped = born.replace(day=born.day + 1 if born.day < 28 else 27)
        second = SecondRecord(
            "police", making.register.identifier("police-person"), without_macrons(name), slipped
        )
        person = replace(person, second_records=(second,))
    return person


def _victim(making: Settlement, home: Address, perpetrator: Person) -> Person:
    facts, wish, rng = making.facts, making.wish, making.rng
    name = wish.victim_name or draw_name(rng, facts.victim_ethnicity, facts.victim_gender)
    moved: dict[str, Any] = {}
    if facts.whereabouts == "refuge":
        refuge, address = making.register.refuge(rng, facts.site)
        moved = {"refuge": refuge, "safe_address": address}
    elif facts.whereabouts == "moved":
        told = ("police", *rng.sample(("health", "oranga-tamariki", "acc"), 1))
        moved = {
            "former_home": home,
            "home": making.register.address(rng, facts.site),
            "home_known_to": told,
        }
    born = making.born(facts.victim_age)
    if born == wish.victim_not_born_on:
        born += timedelta(days=1)
    phones = perpetrator.phones[:1] if wish.shared_phone else draw_phones(making, facts.victim_age)
    expecting = facts.unborn and facts.victim_gender == "female" and 16 <= facts.victim_age <= 45
    agencies = {"police", *_known(making, facts.victim_age)}
    if making.chance(0.2):
        agencies.add("justice")
    person = Person(
        key=f"{making.key}.v",
        name=name,
        birth_date=born,
        gender=facts.victim_gender,
        ethnicities=draw_codes(rng, facts.victim_ethnicity),
        phones=phones,
        safe_contact=draw_safe_contact(making, shared_phone=wish.shared_phone),
        spellings=making.spellings(name),
        gang="associate" if facts.gang and making.chance(0.2) else "none",
        pregnant=expecting,
        presentations=draw_presentations(making, pregnant=expecting),
        on_housing_register=facts.housing_issue and facts.victim_age >= 18,
        prior_episodes=rng.choice((0, 1, 1, 2)),
        school=school(rng, facts.victim_age) if facts.victim_age < 18 else None,
        **{"home": home, **moved},
    )
    if person.school is not None:
        agencies.add("education")
    return _with_life(
        making,
        person,
        agencies,
        facts.victim_age,
        addicted=facts.alcohol_or_drugs,
        addicted_share=0.5,
        injured=True,
    )


def _known(making: Settlement, age: int) -> set[str]:
    """The agencies that know a principal of *age* for the ordinary reasons."""
    known = {"health"} if making.chance(_ALIVE_IN_NHI) else set()
    if making.chance(0.25):
        known.add("acc")
    if age >= 18 and making.chance(0.3):
        known.add("msd")
    if making.facts.known_to_care and (age < 18 or making.chance(0.4) or making.facts.children == "none"):
        known.add("oranga-tamariki")
    return known


def _with_life(
    making: Settlement,
    person: Person,
    agencies: set[str],
    age: int,
    *,
    addicted: bool,
    addicted_share: float,
    injured: bool = False,
) -> Person:
    """*person* with health, income and claims, and the identifiers that those bring.

    *addicted_share* is how likely this person is the one in a family where alcohol or drugs are a factor:
    what the share of adults with either problem needs beyond it is mental health.
    """
    addiction = addicted and making.chance(addicted_share)
    either = 0.57 * addicted_share
    mental = age >= 12 and making.chance(
        0.25 if addiction else (MENTAL_HEALTH_OR_ADDICTION - either) / (1.0 - either)
    )
    benefit = "none"
    if age >= 18 and making.chance(benefit_share(making.facts.risk)):
        benefit = making.rng.choice(("jobseeker", "sole-parent", "supported-living", "other"))
        agencies.add("msd")
    claims = draw_claims(making, injured=injured)
    if claims:
        agencies.add("acc")
    if person.presentations:
        agencies.add("health")
    return replace(
        person,
        addiction=addiction,
        mental_health=mental,
        benefit=benefit,
        claims=claims,
        identifiers=making.identifiers(agencies),
    )


def _state_relation(making: Settlement, perpetrator: Person, victim: Person) -> None:
    kinds = {
        "parent-child": ("parent", "child") if making.facts.elder == "perpetrator" else ("child", "parent")
    }.get(making.facts.relation, (making.facts.relation,) * 2)
    differs = making.facts.relation in ("partner", "ex-partner") and making.chance(0.08)
    for of, to, kind in ((perpetrator, victim, kinds[0]), (victim, perpetrator, kinds[1])):
        said_by_perpetrator = "intermittent" if differs else kind
        making.relationships.append(Relationship(of.key, to.key, kind, stated_by=victim.key))
        making.relationships.append(
            Relationship(of.key, to.key, said_by_perpetrator, stated_by=perpetrator.key)
        )


def _add_children(making: Settlement, perpetrator: Person, victim: Person) -> None:
    facts, rng = making.facts, making.rng
    parent = _parent(making, perpetrator, victim)
    minors = sum(person.is_child(making.today) for person in (perpetrator, victim))
    twins = facts.twins and facts.children == "home"
    count = max(2 if twins else 0, facts.child_count - minors)
    if parent.is_child(making.today):  # brothers and sisters: the children of the home are themselves
        count, twins = 0, False
    home = victim.home if facts.children == "home" else making.register.address(rng, facts.site)
    oldest = max(0, min(17, (parent.age(making.today) or 18) - 16))
    ages = sorted((rng.randint(0, oldest) for _ in range(count)), reverse=True)
    if twins:
        ages[-1] = ages[-2]
    for n, age in enumerate(ages, start=1):
        child = _child(making, n, age, parent, home, victim)
        if any(child.name.given == sibling.name.given for sibling in making.people):
            child = replace(child, name=_unused_given(making, child))
        if twins and n == count:
            child = replace(
                child,
                birth_date=making.people[-1].birth_date,
                school=making.people[-1].school,
                name=Name(making.people[-1].name.family, child.name.given),
            )
        _add_child(making, child, parent, perpetrator, victim)
    if victim.pregnant:
        unborn = Person(
            key=f"{making.key}.u",
            name=Name(victim.name.family, "Unborn"),
            birth_date=None,
            gender="unknown",
            ethnicities=(),
            home=victim.home,
            former_home=victim.former_home,
            home_known_to=victim.home_known_to,
            safe_address=victim.safe_address,
            refuge=victim.refuge,
            unborn=True,
            identifiers=making.identifiers({"oranga-tamariki"} if facts.known_to_care else ()),
        )
        _add_child(making, unborn, victim, perpetrator, victim)


def _parent(making: Settlement, perpetrator: Person, victim: Person) -> Person:
    """Whose children they are: the victim's, unless the victim is the younger of a parent and a child."""
    if making.facts.relation == "parent-child" and making.facts.elder == "perpetrator":
        return perpetrator
    return victim


def _add_child(
    making: Settlement, child: Person, parent: Person, perpetrator: Person, victim: Person
) -> None:
    making.people.append(child)
    making.relationships.append(Relationship(child.key, parent.key, "child", stated_by=victim.key))
    if making.facts.relation in ("partner", "ex-partner"):
        making.relationships.append(Relationship(child.key, perpetrator.key, "child", stated_by=victim.key))


def _child(making: Settlement, n: int, age: int, parent: Person, home: Address, victim: Person) -> Person:
    facts, rng = making.facts, making.rng
    gender = rng.choice(("male", "female"))
    family = rng.choice([person.name.family for person in making.people[:2]])
    name = draw_name(rng, facts.victim_ethnicity, gender, family)
    care = None
    agencies = {"health"}
    if facts.known_to_care and (n == 1 or making.chance(0.8)):
        care = draw_care(making)
        agencies.add("oranga-tamariki")
    if making.chance(0.5):
        agencies.add("police")
    attends = age >= 5
    if attends:
        agencies.add("education")
    claims = draw_claims(making, injured=False, share=0.08)
    if claims:
        agencies.add("acc")
    by_perpetrator = making.wish.perpetrator_represents or (
        facts.relation in ("partner", "ex-partner") and making.chance(0.12)
    )
    resident = facts.children == "home"
    return Person(
        key=f"{making.key}.c{n}",
        name=name,
        birth_date=making.born(age),
        gender=gender,
        ethnicities=draw_codes(rng, facts.victim_ethnicity),
        home=home,
        former_home=victim.former_home if resident else None,
        home_known_to=victim.home_known_to if resident else None,
        safe_address=victim.safe_address if resident else None,
        refuge=victim.refuge if resident else None,
        phones=draw_phones(making, age) if age >= 10 else (),
        school=school(rng, age) if attends else None,
        attendance_percent=rng.choice((98, 95, 92, 88, 81, 67, 54)) if attends else None,
        representative=making.people[0].key if by_perpetrator else parent.key,
        identifiers=making.identifiers(agencies),
        spellings=making.spellings(name),
        claims=claims,
        care=care,
    )


def _unused_given(making: Settlement, child: Person) -> Name:
    """A name for *child* whose given name nobody else in the family has."""
    taken = {person.name.given for person in making.people}
    name = child.name
    while name.given in taken:
        name = draw_name(making.rng, making.facts.victim_ethnicity, child.gender, name.family)
    return name


def _add_witness(making: Settlement, victim: Person) -> None:
    rng, facts = making.rng, making.facts
    age = rng.randint(18, 74)
    gender = rng.choice(("male", "female"))
    name = draw_name(rng, facts.victim_ethnicity, gender)
    witness = Person(
        key=f"{making.key}.w",
        name=name,
        birth_date=making.born(age),
        gender=gender,
        ethnicities=draw_codes(rng, facts.victim_ethnicity),
        home=making.register.address(rng, facts.site),
        phones=draw_phones(making, age),
        identifiers=making.identifiers({"police", "health"}),
        spellings=making.spellings(name),
    )
    making.people.append(witness)
    making.relationships.append(Relationship(witness.key, victim.key, "other", stated_by=victim.key))
