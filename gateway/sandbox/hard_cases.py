"""The families that a hub gets wrong: ordinary circumstances with a few facts fixed, and why each is hard."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.sandbox.histories import Wish
from gateway.sandbox.people import Family, Name

FindFamily = Callable[[str], Family]


@dataclass(frozen=True, slots=True)
class Scene:
    """One episode to be made: what is fixed of it, a *wish* beyond that, or a family that comes *again*."""

    site: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    occurrence: Mapping[str, Any] = field(default_factory=dict)
    wish: Wish | None = None
    again: Family | None = None
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class HardCase:
    """A *name*, *why* it is hard, its first scene, and perhaps a second made from the first one's family."""

    name: str
    why: str
    first: Scene
    second: Callable[[Family], Scene] | None = None

    @property
    def length(self) -> int:
        """How many episodes the case takes."""
        return 1 if self.second is None else 2

    def scenes(self, find: FindFamily, keys: Sequence[str]) -> Iterator[Scene]:
        """The scenes in turn; before the second, *keys* must have received the first one's family."""
        yield self.first
        if self.second is not None:
            yield self.second(find(keys[0]))


# Adults of an ordinary couple with a child at home: what most cases start from.
_COUPLE: Mapping[str, Any] = {
    "relation": "partner",
    "perpetrator_gender": "male",
    "victim_gender": "female",
    "perpetrator_age": 34,
    "victim_age": 31,
    "together": True,
    "whereabouts": "known",
    "children": "home",
    "child_count": 2,
    "unborn": False,
    "twins": False,
}
_AT_HOME: Mapping[str, Any] = {"elsewhere": False}


def _couple(**changes: Any) -> dict[str, Any]:
    return {**_COUPLE, **changes}


def _same_name(family: Family) -> Scene:
    first = family.person(family.victim)
    return Scene(
        facts=_couple(victim_age=33), wish=Wish(victim_name=first.name, victim_not_born_on=first.birth_date)
    )


def _same_man(family: Family) -> Scene:
    return Scene(
        site=family.site,
        facts=_couple(relation="ex-partner", together=False),
        # He was dealt with in the first episode: one arrest, one sentence.
        occurrence={"arrest": None, "safety_order_days": 0},
        wish=Wish(perpetrator=family.person(family.perpetrator)),
    )


HARD_CASES: tuple[HardCase, ...] = (
    HardCase(
        "lives-with-perpetrator",
        "Whatever says where he lives says where she lives.",
        Scene(
            facts=_couple(risk="high"),
            occurrence={**_AT_HOME, "arrest": None, "safety_order_days": 0},
            wish=Wish(named_address=True),
        ),
    ),
    HardCase(
        "victim-in-refuge",
        "The safe address stands in the officer's words.",
        Scene(facts=_couple(risk="high", whereabouts="refuge"), wish=Wish(named_address=True)),
    ),
    HardCase(
        "victim-moved",
        "Some agencies know the new address, the others must not learn it from them.",
        Scene(
            facts=_couple(risk="medium", relation="ex-partner", together=True, whereabouts="moved"),
            wish=Wish(named_address=True),
        ),
    ),
    HardCase(
        "perpetrator-represents-child",
        "What the child's representative may ask for would tell him of her complaint.",
        Scene(facts=_couple(risk="medium"), wish=Wish(perpetrator_represents=True)),
    ),
    HardCase(
        "same-name",
        "Two women have one name and different birth dates.",
        Scene(facts=_couple()),
        _same_name,
    ),
    HardCase(
        "in-two-families",
        "One man, two families: neither woman may learn of the other.",
        Scene(facts=_couple(risk="high"), occurrence={"arrest": None, "sentence": "community"}),
        _same_man,
    ),
    HardCase(
        "macrons-differ",
        "Her name is written with macrons in one system and without in another.",
        Scene(
            facts=_couple(victim_ethnicity="maori"),
            wish=Wish(
                victim_name=Name("Pēwhairangi", "Māia"),
                macrons_dropped_by=("corrections", "msd", "acc", "justice"),
            ),
        ),
    ),
    HardCase(
        "twins",
        "Two children share birth date, family name, address and school.",
        Scene(facts=_couple(twins=True, child_count=2), occurrence={"children_present": True}),
    ),
    HardCase(
        "recorded-twice",
        "Police hold him under two numbers, one with a slip in the birth date.",
        Scene(
            facts=_couple(perpetrator_ethnicity="maori"),
            wish=Wish(perpetrator_name=Name("Kīngi", "Hēmi"), recorded_twice=True),
        ),
    ),
    HardCase(
        "gender-diverse-victim",
        "Systems know two genders, people know more.",
        Scene(facts=_couple(victim_gender="another", children="none", child_count=0)),
    ),
    HardCase(
        "unborn-child",
        "A child without birth date, number or name.",
        Scene(facts=_couple(unborn=True, child_count=1, known_to_care=True)),
    ),
    HardCase(
        "due-on-a-holiday",
        "High risk: the first contact is due in 24 hours, whatever day that is.",
        Scene(facts=_couple(risk="high")),
    ),
    HardCase(
        "due-after-the-holiday",
        "Low risk: the anniversary and the weekend do not count.",
        Scene(site="waikato-city", facts=_couple(risk="low")),
    ),
    HardCase(
        "shared-phone",
        "Her only phone is his too: no contact is safe.",
        Scene(facts=_couple(), wish=Wish(shared_phone=True)),
    ),
    HardCase(
        "bailed-near-her",
        "Bailed to an address a short walk from her home.",
        Scene(
            facts=_couple(risk="high", relation="ex-partner", together=False),
            occurrence={"arrest": "bailed", "safety_order_days": 0, "sentence": "none"},
            wish=Wish(bailed_near=True),
        ),
    ),
    HardCase(
        "roles-swapped",
        "The victim of the afternoon is the aggressor of the evening.",
        Scene(facts=_couple(children="none", child_count=0), occurrence={"arrest": None}),
        lambda family: Scene(
            site=family.site,
            facts=_couple(children="none", child_count=0),
            occurrence={"arrest": None, "safety_order_days": 0, "children_present": False, "breach": False},
            again=family,
            swapped=True,
        ),
    ),
    HardCase(
        "worker-knows-family",
        "An agency's own worker is a relative: that agency is not told.",
        Scene(facts=_couple(risk="medium"), wish=Wish(conflict="msd")),
    ),
    HardCase(
        "sensitive-claim",
        "Of a sensitive claim only the existence may ever be told.",
        Scene(
            facts=_couple(risk="medium"), occurrence={"sexual_harm": True}, wish=Wish(sensitive_claim=True)
        ),
    ),
)
