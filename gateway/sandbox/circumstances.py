"""Draws what kind of family and what kind of episode it is, before anybody has a name.

Everything that the review counts is decided here, so that the shares can be read in one place and a hard
case is these facts with a few of them fixed.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.sandbox import figures as f

_TOGETHER = {"partner": 0.85, "ex-partner": 0.08, "parent-child": 0.75, "sibling": 0.6, "other": 0.2}
# Ages of partners and others: the first and last year of each band, and its weight.
_BANDS = ((18, 19, 13), (20, 29, 40), (30, 39, 24), (40, 49, 13), (50, 59, 7), (60, 74, 3))
_HIGH = sum(f.SITES[s] * f.RISK[s]["high"] for s in f.SITES) / sum(f.SITES.values())


@dataclass(frozen=True, slots=True)
class Circumstances:
    """A family without names.

    *elder* says who of a parent and a child is the older one; *whereabouts* of the victim is `known`,
    `moved` (only some agencies know the new address) or `refuge`.
    """

    site: str
    risk: str
    relation: str
    elder: str
    perpetrator_gender: str
    victim_gender: str
    perpetrator_age: int
    victim_age: int
    perpetrator_ethnicity: str
    victim_ethnicity: str
    together: bool
    whereabouts: str
    children: str
    child_count: int
    unborn: bool
    twins: bool
    gang: bool
    alcohol_or_drugs: bool
    methamphetamine: bool
    housing_issue: bool
    known_to_care: bool
    adult_witness: bool


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An episode without names: what happened, what Police did."""

    risk: str
    harms: tuple[str, ...]
    sexual_harm: bool
    strangulation: bool
    weapon: str | None
    alcohol: bool
    drugs: bool
    children_present: bool
    arrest: str | None
    safety_order_days: int
    breach: bool
    firearms: bool
    elsewhere: bool
    school_told: bool
    sentence: str


def chosen(rng: random.Random, table: Mapping[str, float]) -> str:
    """A key of *table*, by its weights."""
    return rng.choices(tuple(table), tuple(table.values()))[0]


def draw_circumstances(rng: random.Random, site: str | None = None) -> Circumstances:
    """A family's circumstances; its *site* is drawn too unless given."""
    site = site or chosen(rng, f.SITES)
    relation = chosen(rng, f.RELATION)
    children = chosen(rng, f.CHILDREN)
    together = rng.random() < _TOGETHER[relation]
    # A perpetrator or victim under 18 lives at home and is one of the home's children.
    minor_at_home = relation in ("parent-child", "sibling") and children == "home" and together
    elder = rng.choice(("perpetrator", "victim"))
    perpetrator_age, victim_age = _ages(rng, relation, elder, minor_at_home)
    perpetrator_gender = "male" if rng.random() < f.MALE_PERPETRATORS else "female"
    ethnicity = _ethnicity(rng, site)
    alcohol_or_drugs = rng.random() < f.ALCOHOL_OR_DRUGS
    fate = rng.random()
    return Circumstances(
        site=site,
        risk=chosen(rng, f.RISK[site]),
        relation=relation,
        elder=elder,
        perpetrator_gender=perpetrator_gender,
        victim_gender=_victim_gender(rng, perpetrator_gender),
        perpetrator_age=perpetrator_age,
        victim_age=victim_age,
        perpetrator_ethnicity=ethnicity,
        victim_ethnicity=ethnicity if rng.random() < 0.7 else _ethnicity(rng, site),
        together=together,
        whereabouts="known" if fate < 0.93 else "moved" if fate < 0.98 else "refuge",
        children=children,
        child_count=rng.choices((1, 2, 3, 4), (40, 32, 18, 10))[0] if children != "none" else 0,
        unborn=children == "home" and rng.random() < 0.07,
        twins=rng.random() < 0.02,
        gang=rng.random() < f.GANG[site],
        alcohol_or_drugs=alcohol_or_drugs,
        methamphetamine=alcohol_or_drugs and rng.random() < f.METHAMPHETAMINE / f.ALCOHOL_OR_DRUGS,
        housing_issue=rng.random() < f.HOUSING_ISSUE,
        known_to_care=rng.random() < {"home": 0.80, "non-resident": 0.71, "none": 0.22}[children],
        adult_witness=rng.random() < 0.29,
    )


def draw_occurrence(rng: random.Random, family: Circumstances) -> Occurrence:
    """An episode in a *family* of these circumstances."""
    harms = tuple(harm for harm, share in _HARM_DRAW.items() if rng.random() < share)
    sexual = rng.random() < f.SEXUAL_HARM
    if not harms and not sexual:
        harms = ("verbal",)
    physical = "physical" in harms
    high = family.risk == "high"
    arrest, sentence = _police_and_sentence(rng)
    unarrested = 1.0 - f.ARRESTS
    days = rng.choice((1, 2, 3, 5)) if arrest is None and rng.random() < f.SAFETY_ORDERS / unarrested else 0
    present = {"home": 0.81, "non-resident": 0.19, "none": 0.0}[family.children]
    firearms = rng.random() < f.FIREARMS
    return Occurrence(
        risk=family.risk,
        harms=harms,
        sexual_harm=sexual,
        strangulation=physical and rng.random() < (0.35 if high else 0.06),
        weapon=_weapon(rng, firearms, physical or "threats" in harms),
        alcohol=family.alcohol_or_drugs and rng.random() < 0.7,
        drugs=family.methamphetamine or (family.alcohol_or_drugs and rng.random() < 0.2),
        children_present=rng.random() < present,
        arrest=arrest,
        safety_order_days=days,
        breach=rng.random() < f.BREACHES,
        firearms=firearms,
        elsewhere=rng.random() < 0.1,
        school_told=family.risk != "low" and rng.random() < 0.37,
        sentence=sentence,
    )


def _with_fallback(shares: Mapping[str, float], sexual: float) -> dict[str, float]:
    # An episode in which nothing else was drawn is a verbal one; the draw for verbal is lowered by what that
    # adds.
    others = 1.0 - sexual
    for harm, share in shares.items():
        if harm != "verbal":
            others *= 1.0 - share
    return {**shares, "verbal": (shares["verbal"] - others) / (1.0 - others)}


_HARM_DRAW = _with_fallback(f.HARMS, f.SEXUAL_HARM)


def _ages(rng: random.Random, relation: str, elder: str, minor_at_home: bool) -> tuple[int, int]:
    """The perpetrator's age and the victim's."""
    if relation == "parent-child":
        younger = rng.randint(11, 17) if minor_at_home and rng.random() < 0.75 else rng.randint(18, 34)
        older = younger + rng.randint(18, 32)
        return (older, younger) if elder == "perpetrator" else (younger, older)
    if relation == "sibling":
        first = rng.randint(13, 17) if minor_at_home else rng.randint(18, 40)
        return first, max(12 if minor_at_home else 18, first + rng.randint(-4, 4))
    low, high, _ = rng.choices(_BANDS, [band[2] for band in _BANDS])[0]
    age = rng.randint(low, high)
    return age, max(18, age + round(rng.gauss(0.0, 3.5)))


def _victim_gender(rng: random.Random, perpetrator_gender: str) -> str:
    another = f.VICTIM_GENDER["another"]
    if rng.random() < another:
        return "another"
    # Most pairs are a man and a woman; the second share makes the victims' total come out.
    given_man = 0.957
    share = (
        given_man
        if perpetrator_gender == "male"
        else f.outside(f.VICTIM_GENDER["female"] / (1.0 - another), given_man, f.MALE_PERPETRATORS)
    )
    return "female" if rng.random() < share else "male"


def _ethnicity(rng: random.Random, site: str) -> str:
    shares = f.ETHNICITY[site]
    rest = 1.0 - sum(shares.values())
    return chosen(rng, {**shares, **{name: rest * share for name, share in f.OTHER_ETHNICITY.items()}})


def _weapon(rng: random.Random, firearms: bool, violent: bool) -> str | None:
    if firearms and rng.random() < 0.3:
        return "firearm"
    if violent and rng.random() < 0.12:
        return rng.choice(("knife", "blunt-object", "vehicle", "other"))
    return None


def _police_and_sentence(rng: random.Random) -> tuple[str | None, str]:
    """The arrest's outcome, and the Corrections sentence as it stands the morning after."""
    draw = rng.random()
    if draw < f.REMANDED:
        return "remanded-in-custody", "remand"
    arrest = "bailed" if draw < f.ARRESTS else None
    at_large = 1.0 - f.REMANDED
    # Recalled to prison for something else since the episode.
    if arrest is None and rng.random() < (f.IN_CUSTODY - f.REMANDED) / (1.0 - f.ARRESTS):
        return None, "prison"
    serving = (f.SENTENCED - f.IN_CUSTODY) / (at_large - (f.IN_CUSTODY - f.REMANDED))
    return arrest, "community" if rng.random() < serving else "none"


def benefit_share(risk: str) -> float:
    """The share of adults in families of *risk* whose income is a benefit."""
    if risk == "high":
        return f.BENEFIT_AT_HIGH_RISK
    return f.outside(f.BENEFIT, f.BENEFIT_AT_HIGH_RISK, _HIGH)
