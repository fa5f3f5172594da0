"""Counts what was built and puts each share beside the review's, so that the likeness can be tested."""

from collections.abc import Iterable, Iterator
from datetime import date
from typing import NamedTuple

from gateway.sandbox import figures as f
from gateway.sandbox.people import Episode, Family, Person
from gateway.sandbox.population import Population

_FIRST_DIGIT = {"maori": "2", "european": "1"}  # level 1 of the ethnicity classification


class Rate(NamedTuple):
    """One line: the review's value and ours. Shares are fractions of one; mean ages are in years."""

    name: str
    expected: float
    observed: float


def rates(population: Population) -> list[Rate]:
    """Every figure of the review that *population* is held to; a share of nothing is zero.

    Families count once however many episodes they have; families of prison releases are not counted. `under
    18` carries the review's upper bound, everything else its value.
    """
    first: dict[str, Episode] = {}
    for episode in population.episodes:
        first.setdefault(episode.family, episode)
    families = [population.family(key) for key in first]
    referrals = len(population.releases) + len(population.episodes)
    return [
        *_of_sites(families, list(first.values())),
        *_of_principals(families, population.day),
        *_of_families(families),
        *_of_adults(families, population.day),
        *_of_episodes(population),
        Rate(
            "releases among referrals",
            f.RELEASES_OF_REFERRALS,
            len(population.releases) / referrals if referrals else 0.0,
        ),
    ]


def _share(facts: Iterable[object]) -> float:
    values = [bool(fact) for fact in facts]
    return sum(values) / len(values) if values else 0.0


def _perpetrators(families: Iterable[Family]) -> list[Person]:
    return [family.person(family.perpetrator) for family in families]


def _victims(families: Iterable[Family]) -> list[Person]:
    return [family.person(family.victim) for family in families]


def _of_sites(families: list[Family], episodes: list[Episode]) -> Iterator[Rate]:
    cases = sum(f.SITES.values())
    for site, weight in f.SITES.items():
        here = [family for family in families if family.site == site]
        yield Rate(f"site {site}", weight / cases, _share(family.site == site for family in families))
        listed = sum(f.RISK[site].values())  # the review's rounding makes 99 or 101 % of it
        for level, share in f.RISK[site].items():
            found = _share(episode.risk == level for episode in episodes if episode.site == site)
            yield Rate(f"{level} risk in {site}", share / listed, found)
        people = _perpetrators(here) + _victims(here)
        for ethnicity, share in f.ETHNICITY[site].items():
            digit = _FIRST_DIGIT[ethnicity]
            found = _share(person.ethnicities[0].startswith(digit) for person in people)
            yield Rate(f"{ethnicity} in {site}", share, found)
        yield Rate(f"gang in {site}", f.GANG[site], _share(family.gang for family in here))


def _of_principals(families: list[Family], day: date) -> Iterator[Rate]:
    perpetrators, victims = _perpetrators(families), _victims(families)
    yield Rate("male perpetrators", f.MALE_PERPETRATORS, _share(p.gender == "male" for p in perpetrators))
    for gender, share in f.VICTIM_GENDER.items():
        yield Rate(f"{gender} victims", share, _share(v.gender == gender for v in victims))
    for role, people in (("perpetrators", perpetrators), ("victims", victims)):
        ages = [person.age(day) or 0 for person in people]
        yield Rate(f"mean age of {role}", f.MEAN_AGE, sum(ages) / len(ages) if ages else 0.0)
        yield Rate(f"{role} aged 20 to 39", f.AGED_20_TO_39, _share(20 <= age < 40 for age in ages))
        yield Rate(f"{role} under 18", f.UNDER_18_BELOW, _share(age < 18 for age in ages))
    yield Rate("on a sentence", f.SENTENCED, _share(p.sentence != "none" for p in perpetrators))
    yield Rate(
        "in prison or on remand",
        f.IN_CUSTODY,
        _share(p.sentence in ("prison", "remand") for p in perpetrators),
    )


def _of_families(families: list[Family]) -> Iterator[Rate]:
    for relation, share in f.RELATION.items():
        listed = share / sum(f.RELATION.values())
        yield Rate(f"relation {relation}", listed, _share(x.relation == relation for x in families))
    for children, share in f.CHILDREN.items():
        listed = share / sum(f.CHILDREN.values())
        yield Rate(f"children {children}", listed, _share(x.children == children for x in families))
    yield Rate("gang", f.GANG_OVERALL, _share(x.gang for x in families))
    yield Rate("alcohol or drugs", f.ALCOHOL_OR_DRUGS, _share(x.alcohol_or_drugs for x in families))
    yield Rate("methamphetamine", f.METHAMPHETAMINE, _share(x.methamphetamine for x in families))
    yield Rate("housing an issue", f.HOUSING_ISSUE, _share(x.housing_issue for x in families))
    yield Rate("known to Oranga Tamariki", f.KNOWN_TO_CARE, _share(x.known_to_care for x in families))


def _of_adults(families: list[Family], day: date) -> Iterator[Rate]:
    adults = [
        (person, family.risk)
        for family in families
        for person in (family.person(family.perpetrator), family.person(family.victim))
        if not person.is_child(day)
    ]
    yield Rate(
        "adults with mental health or addiction",
        f.MENTAL_HEALTH_OR_ADDICTION,
        _share(person.mental_health or person.addiction for person, _ in adults),
    )
    yield Rate("adults on a benefit", f.BENEFIT, _share(person.benefit != "none" for person, _ in adults))
    yield Rate(
        "high-risk adults on a benefit",
        f.BENEFIT_AT_HIGH_RISK,
        _share(person.benefit != "none" for person, risk in adults if risk == "high"),
    )


def _of_episodes(population: Population) -> Iterator[Rate]:
    episodes = population.episodes
    for harm, share in f.HARMS.items():
        yield Rate(f"harm {harm}", share, _share(harm in e.harms for e in episodes))
    yield Rate("harm sexual", f.SEXUAL_HARM, _share(e.sexual_harm for e in episodes))
    yield Rate("children present", f.CHILDREN_PRESENT, _share(e.children_present for e in episodes))
    yield Rate("safety order", f.SAFETY_ORDERS, _share(e.safety_order for e in episodes))
    yield Rate("firearms", f.FIREARMS, _share(e.firearms for e in episodes))
    yield Rate("breach of order", f.BREACHES, _share(e.breach_of_order for e in episodes))
    yield Rate("arrest", f.ARRESTS, _share(e.arrest for e in episodes))
    outcomes = [e.arrest.outcome if e.arrest else "" for e in episodes]
    yield Rate("remanded in custody", f.REMANDED, _share(o == "remanded-in-custody" for o in outcomes))
    yield Rate("bailed", f.BAILED, _share(o == "bailed" for o in outcomes))
    yield Rate("school told", f.SCHOOL_TOLD, _share(e.school_told for e in episodes))
    exposed = sum(len(e.exposed) for e in episodes)
    witnesses = sum(role == "witness" for e in episodes for role in e.roles.values())
    yield Rate(
        "children among bystanders",
        f.CHILDREN_AMONG_BYSTANDERS,
        exposed / (exposed + witnesses) if exposed + witnesses else 0.0,
    )
