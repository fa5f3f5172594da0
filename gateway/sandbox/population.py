"""Builds the invented population: one day for the demonstration, or a year's stream for the benchmark.

The same seed gives the same people, episodes and numbers, whatever machine runs it: every family has its own
generator, and one register hands out numbers in the order of building. Among the ordinary families stand the
hard cases, each a family with a few facts fixed on purpose.
"""

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from gateway.due import local_instant
from gateway.sandbox.circumstances import Circumstances, draw_circumstances, draw_occurrence
from gateway.sandbox.episodes import recount
from gateway.sandbox.families import settle
from gateway.sandbox.hard_cases import HARD_CASES, HardCase, Scene
from gateway.sandbox.histories import Wish
from gateway.sandbox.people import Episode, Family, Person, Release
from gateway.sandbox.places import PRISONS
from gateway.sandbox.register import Register

# A Sunday before Labour Day: high-risk work falls due on the holiday, low-risk work waits for Friday.
DEMO_DAY = date(2026, 10, 25)
# When in the day episodes happen: weight of each local hour from midnight.
_HOURS = (6, 4, 3, 2, 1, 1, 2, 3, 4, 4, 4, 4, 5, 5, 5, 6, 7, 8, 9, 9, 10, 10, 9, 8)
_RECENT = 2000  # families that a stream may come back to: what bounds its memory
_REPEATS = 0.3


class Incident(NamedTuple):
    """One episode with its family as it stands."""

    family: Family
    episode: Episode


@dataclass(frozen=True)
class Population:
    """A day's families, episodes and releases; *hard_cases* gives each case's family keys by its name."""

    seed: int
    day: date
    families: tuple[Family, ...]
    episodes: tuple[Episode, ...]
    releases: tuple[Release, ...]
    hard_cases: Mapping[str, tuple[str, ...]]

    @cached_property
    def people(self) -> Mapping[str, Person]:
        """Everybody once, by key; somebody who is in two families is here once."""
        return {person.key: person for family in self.families for person in family.people}

    @cached_property
    def _families(self) -> Mapping[str, Family]:
        return {family.key: family for family in self.families}

    def family(self, key: str) -> Family:
        """The family with *key*. Raises `KeyError`."""
        return self._families[key]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values: what a search for leaks needs.

        `people` holds, beside each person's facts, the *families* and *roles* held and `secrets`: every text
        that must not be found where it does not belong, with its data class, each way it is written.
        """
        roles: dict[str, set[str]] = {}
        homes: dict[str, list[str]] = {}
        for episode in self.episodes:
            for key, role in episode.roles.items():
                roles.setdefault(key, set()).add(role)
        for family in self.families:
            for person in family.people:
                homes.setdefault(person.key, []).append(family.key)
        return {
            "seed": self.seed,
            "day": self.day.isoformat(),
            "people": [
                {
                    **_plain(asdict(person)),
                    "families": homes[key],
                    "roles": sorted(roles.get(key, ())),
                    "secrets": [{"class": name, "text": text} for name, text in person.secrets()],
                }
                for key, person in self.people.items()
            ],
            "families": [
                {**_plain(_shallow(family)), "people": [person.key for person in family.people]}
                for family in self.families
            ],
            "episodes": [_plain(asdict(episode)) for episode in self.episodes],
            "releases": [_plain(asdict(release)) for release in self.releases],
            "hardCases": {name: list(keys) for name, keys in self.hard_cases.items()},
        }


def build(seed: int, episodes: int, releases: int, day: date = DEMO_DAY) -> Population:
    """The population of *day*: *episodes* on the local day before it, and *releases* notified by its end.

    *day* is the day of the Safety Assessment Meeting. Hard cases come first to their places, spread over the
    day; with too few episodes for all of them, as many as fit. Raises `ValueError` for negative numbers.
    """
    if episodes < 0 or releases < 0:
        raise ValueError("numbers of episodes and releases are not negative")
    register = Register(seed)
    maker = _Maker(seed, register, day - timedelta(days=1))
    starts = _places_of_hard_cases(episodes)
    found: dict[str, tuple[str, ...]] = {}
    while len(maker.episodes) < episodes:
        case = starts.get(len(maker.episodes))
        if case is None:
            maker.ordinary()
        else:
            found[case.name] = maker.hard(case)
    made = [_release(seed, n, releases, register, day) for n in range(releases)]
    if made:
        found["released-to-her-home"] = tuple(f.key for f, r in made if r.to_victims_home)
        found["released-the-same-day"] = tuple(f.key for f, r in made if r.same_day)
    return Population(
        seed=seed,
        day=day,
        families=(*maker.families.values(), *(family for family, _ in made)),
        episodes=tuple(sorted(maker.episodes, key=lambda e: (e.occurred_at, e.key))),
        releases=tuple(release for _, release in made),
        hard_cases=found,
    )


def stream(
    seed: int, episodes: int, first_day: date = date(2025, 11, 1), days: int = 365
) -> Iterator[Incident]:
    """Yields *episodes* incidents in the order of time, spread over *days* local days from *first_day*.

    Three in ten concern a family of an earlier episode, some with the roles swapped. Memory does not grow
    with *episodes*: a day's incidents and the latest families are held, no more.
    """
    register = Register(seed)
    recent: deque[tuple[Family, Circumstances]] = deque(maxlen=_RECENT)
    for n_day in range(days):
        day = first_day + timedelta(days=n_day)
        first, last = episodes * n_day // days, episodes * (n_day + 1) // days
        times = sorted((_moment(random.Random(f"{seed}/time/{n}"), day), n) for n in range(first, last))
        for at, n in times:
            rng = random.Random(f"{seed}/stream/{n}")
            swapped = False
            if recent and rng.random() < _REPEATS:
                family, facts = rng.choice(recent)
                facts = replace(facts, risk=_moved_risk(rng, facts.risk))
                occurrence = draw_occurrence(rng, facts)
                swapped = rng.random() < 0.05
            else:
                facts = draw_circumstances(rng)
                occurrence = draw_occurrence(rng, facts)
                family = settle(rng, register, f"s{n:06d}", facts, occurrence, at)
                recent.append((family, facts))
            yield Incident(
                family, recount(rng, register, f"e{n:06d}", family, occurrence, at, swapped=swapped)
            )


class _Maker:
    """Families and episodes of one day, in the making."""

    def __init__(self, seed: int, register: Register, day: date) -> None:
        self._seed = seed
        self._register = register
        self._day = day
        self.families: dict[str, Family] = {}
        self.episodes: list[Episode] = []

    def ordinary(self) -> None:
        self._scene(Scene())

    def hard(self, case: HardCase) -> tuple[str, ...]:
        """Plays the *case*'s scenes; the keys of the families in it."""
        keys: list[str] = []
        for scene in case.scenes(self.families.__getitem__, keys):
            keys.append(self._scene(scene))
        return tuple(dict.fromkeys(keys))

    def _scene(self, scene: Scene) -> str:
        n = len(self.episodes)
        rng = random.Random(f"{self._seed}/{n}")
        at = _moment(rng, self._day)
        facts = replace(draw_circumstances(rng, scene.site), **scene.facts)
        occurrence = replace(draw_occurrence(rng, facts), **scene.occurrence)
        wish = scene.wish or Wish()
        family = scene.again or settle(rng, self._register, f"f{n:05d}", facts, occurrence, at, wish)
        self.families[family.key] = family
        self.episodes.append(
            recount(
                rng,
                self._register,
                f"e{n:05d}",
                family,
                occurrence,
                at,
                swapped=scene.swapped,
                named_address=wish.named_address,
                bailed_near=wish.bailed_near,
            )
        )
        return family.key


def _places_of_hard_cases(episodes: int) -> dict[int, HardCase]:
    """Where each hard case begins among *episodes*: spread when there is room, else one after the other."""
    needed = sum(case.length for case in HARD_CASES)
    spare = max(0, episodes - needed)
    places: dict[int, HardCase] = {}
    at = 0
    for n, case in enumerate(HARD_CASES):
        begin = at + spare * n // len(HARD_CASES)
        if begin + case.length > episodes:
            break
        places[begin] = case
        at += case.length
    return places


def _moment(rng: random.Random, day: date) -> datetime:
    hour = rng.choices(range(24), _HOURS)[0]
    return local_instant(day, time(hour, rng.randrange(60)))


def _moved_risk(rng: random.Random, risk: str) -> str:
    levels = ("low", "medium", "high")
    step = rng.choices((-1, 0, 1), (20, 60, 20))[0]
    return levels[min(2, max(0, levels.index(risk) + step))]


def _release(seed: int, n: int, releases: int, register: Register, day: date) -> tuple[Family, Release]:
    """The *n*th of *releases*: the first is freed today by a plea, every third goes to her home."""
    rng = random.Random(f"{seed}/release/{n}")
    same_day, to_her = n == 0, n % 3 == 1 or releases == 1
    facts = replace(
        draw_circumstances(rng),
        risk="high",
        relation=rng.choice(("partner", "ex-partner")),
        perpetrator_gender="male",
        victim_gender="female",
        together=to_her,
        whereabouts="known",
        perpetrator_age=rng.randint(20, 50),
        victim_age=rng.randint(20, 50),
    )
    before = replace(
        draw_occurrence(rng, facts),
        arrest=None,
        sentence="remand" if same_day else "prison",
        harms=("physical", "threats"),
    )
    morning = local_instant(day, time(7, 30))
    family = settle(rng, register, f"r{n:05d}", facts, before, morning - timedelta(days=200))
    planned = day if same_day else day + timedelta(days=rng.randint(1, 14))
    notified = local_instant(day, time(11, 20)) if same_day else morning - timedelta(days=rng.randint(1, 7))
    address = family.person(family.perpetrator).home
    kind = rng.choice(("parole", "statutory-release", "release-on-conditions"))
    return family, Release(
        key=f"l{n:05d}",
        person=family.perpetrator,
        family=family.key,
        site=facts.site,
        notified_at=notified,
        at=notified - timedelta(minutes=15) if same_day else local_instant(planned, time(9, 0)),
        planned_on=planned,
        type="remand-release" if same_day else kind,
        prison=rng.choice(PRISONS[facts.site]),
        conditions=() if same_day else ("Reside at the approved address", "Report weekly", "No alcohol"),
        electronic_monitoring=not same_day and rng.random() < 0.3,
        non_association=rng.random() < 0.5,
        risk="high",
        address=address,
        to_victims_home=address == family.person(family.victim).home,
        same_day=same_day,
    )


def _shallow(family: Family) -> dict[str, Any]:
    return {name: getattr(family, name) for name in family.__dataclass_fields__ if name != "people"} | {
        "relationships": [asdict(r) for r in family.relationships],
        "orders": [asdict(o) for o in family.orders],
    }


def _plain(value: Any) -> Any:
    """*value* with dates and instants as text and tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else value
