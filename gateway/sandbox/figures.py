"""The figures that the invented population is held to.

From the review of 129 ISR cases between May and August 2018 (119 of them episodes) and the active cases of
July 2018. Shares are fractions of one. What a table leaves over of one is the remainder that its last entry,
or none, takes.
"""

from types import MappingProxyType

SITES = MappingProxyType({"waikato-city": 3035, "waikato-rural": 2075, "christchurch": 3266})
RISK = MappingProxyType(
    {
        "waikato-city": {"high": 0.03, "medium": 0.55, "low": 0.42},
        "waikato-rural": {"high": 0.03, "medium": 0.57, "low": 0.41},
        "christchurch": {"high": 0.07, "medium": 0.68, "low": 0.25},
    }
)
ETHNICITY = MappingProxyType(
    {
        "waikato-city": {"maori": 0.60, "european": 0.31},
        "waikato-rural": {"maori": 0.56, "european": 0.38},
        "christchurch": {"maori": 0.28, "european": 0.55},
    }
)
# The levels of which the review gives no share by site: how what remains is divided.
OTHER_ETHNICITY = MappingProxyType({"pacific": 0.45, "asian": 0.25, "african": 0.05, "unstated": 0.25})
GANG = MappingProxyType({"waikato-city": 0.39, "waikato-rural": 0.34, "christchurch": 0.18})
GANG_OVERALL = 0.31  # of all plans; the sites' shares, weighted by their cases, give 0.30

MALE_PERPETRATORS = 0.87
VICTIM_GENDER = MappingProxyType({"female": 0.87, "male": 0.12, "another": 0.01})
MEAN_AGE = 32.0  # 31 to 33
AGED_20_TO_39 = 0.585  # 57 to 60 %
UNDER_18_BELOW = 0.10
CHILDREN_AMONG_BYSTANDERS = 0.79  # witnesses and exposed: nearly 80 %

RELATION = MappingProxyType(
    {"partner": 0.46, "ex-partner": 0.24, "parent-child": 0.19, "sibling": 0.02, "other": 0.08}
)
CHILDREN = MappingProxyType({"home": 0.64, "non-resident": 0.16, "none": 0.19})
CHILDREN_PRESENT = 0.53
HARMS = MappingProxyType({"verbal": 0.82, "physical": 0.44, "threats": 0.20, "property-damage": 0.18})
SEXUAL_HARM = 0.04

MENTAL_HEALTH_OR_ADDICTION = 0.69  # of adults
ALCOHOL_OR_DRUGS = 0.57
METHAMPHETAMINE = 0.20
BENEFIT = 0.27  # of adults
BENEFIT_AT_HIGH_RISK = 0.47
HOUSING_ISSUE = 0.33
KNOWN_TO_CARE = 0.67

EPISODES = 119
SAFETY_ORDERS = 10 / EPISODES
FIREARMS = 5 / EPISODES
BREACHES = 5 / EPISODES
ARRESTS = 31 / EPISODES
REMANDED = 13 / EPISODES
BAILED = 18 / EPISODES
SENTENCED = 0.48  # nearly 50 %
IN_CUSTODY = 0.13  # in prison or on remand; the others serve in the community
SCHOOL_TOLD = 17 / 129
RELEASES_OF_REFERRALS = 0.02


def outside(overall: float, inside: float, part: float) -> float:
    """The share among the others, when a *part* of all has the share *inside* and all have *overall*."""
    return min(1.0, max(0.0, (overall - inside * part) / (1.0 - part)))
