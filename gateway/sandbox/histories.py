"""What has happened to people before: contact they allow, injuries, claims, care, orders."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from gateway.sandbox.circumstances import Circumstances, Occurrence
from gateway.sandbox.names import draw_name, with_double_vowels, without_macrons
from gateway.sandbox.people import (
    AGENCY_SYSTEM,
    CareInvolvement,
    Claim,
    Name,
    Order,
    Person,
    Phone,
    Presentation,
    Relationship,
    SafeContact,
    Worker,
)
from gateway.sandbox.places import HOSPITALS
from gateway.sandbox.register import Register
from schemas.clock import NEW_ZEALAND

# How often each agency's system loses macrons or doubles the vowel instead.
_DROPS_MACRONS = {"police": 0.25, "corrections": 0.5, "msd": 0.6, "acc": 0.4, "justice": 0.3}
_DOUBLES_VOWELS = {"health": 0.05, "oranga-tamariki": 0.05}
# Injury by ICD-10, body site and cause.
_INJURIES = (
    ("S00.1", "eye", "struck by person"),
    ("S06.0", "head", "pushed against wall"),
    ("S52.5", "wrist", "fall"),
    ("S20.2", "chest", "struck by person"),
    ("S60.0", "finger", "caught in door"),
    ("S93.4", "ankle", "fall"),
    ("T71", "neck", "pressure on neck"),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a hard case asks beyond circumstances: somebody who exists already, names, traps in records."""

    perpetrator: Person | None = None
    victim_name: Name | None = None
    perpetrator_name: Name | None = None
    victim_not_born_on: date | None = None
    perpetrator_represents: bool = False
    recorded_twice: bool = False
    macrons_dropped_by: tuple[str, ...] = ()
    shared_phone: bool = False
    conflict: str | None = None
    named_address: bool = False
    bailed_near: bool = False
    sensitive_claim: bool = False


@dataclass(slots=True)
class Settlement:
    """A family while it is being made."""

    rng: random.Random
    register: Register
    key: str
    facts: Circumstances
    occurrence: Occurrence
    at: datetime
    wish: Wish
    people: list[Person] = field(default_factory=list)
    relationships: list[Relationship] = field(default_factory=list)

    @property
    def today(self) -> date:
        """The local day of the occurrence."""
        return self.at.astimezone(NEW_ZEALAND).date()

    def chance(self, share: float) -> bool:
        """True in *share* of all cases."""
        return self.rng.random() < share

    def born(self, age: int) -> date:
        """A birth date that makes somebody *age* years old today."""
        day = date(self.today.year - age, self.today.month, min(self.today.day, 28))
        return day - timedelta(days=self.rng.randrange(360))

    def before(self, days: int) -> date:
        """A day within the last *days*."""
        return self.today - timedelta(days=self.rng.randint(1, days))

    def identifiers(self, agencies: Iterable[str]) -> dict[str, str]:
        """New identifiers in the systems of *agencies*, in one order whatever theirs."""
        known = set(agencies)
        return {
            system: self.register.nhi(self.rng) if system == "nhi" else self.register.identifier(system)
            for agency, system in AGENCY_SYSTEM.items()
            if agency in known
        }

    def spellings(self, name: Name) -> dict[str, Name]:
        """How agencies write *name* otherwise; nothing for a name without long vowels marked."""
        plain, doubled = without_macrons(name), with_double_vowels(name)
        if plain == name:
            return {}
        found = {agency: plain for agency, share in _DROPS_MACRONS.items() if self.chance(share)}
        found |= {agency: doubled for agency, share in _DOUBLES_VOWELS.items() if self.chance(share)}
        return found | dict.fromkeys(self.wish.macrons_dropped_by, plain)


def draw_phones(making: Settlement, age: int) -> tuple[Phone, ...]:
    """None, one or two numbers for somebody of *age*."""
    if not making.chance(0.93 if age >= 14 else 0.2):
        return ()
    return tuple(making.register.phone() for _ in range(2 if making.chance(0.12) else 1))


def draw_safe_contact(making: Settlement, *, shared_phone: bool) -> SafeContact | None:
    """What a victim said about safe contact, if anything; a *shared_phone* is never safe."""
    if not shared_phone and not making.chance(0.35):
        return None
    forbidden = shared_phone or making.chance(0.2)
    return SafeContact(
        do_not_contact=forbidden,
        channels=("through-worker",)
        if forbidden
        else tuple(making.rng.sample(("call", "text", "in-person"), 2)),
        times=making.rng.choice(("weekdays 0930 to 1430", "before noon", "Tuesday and Thursday mornings")),
        code_word=making.register.code_word(),
        leave_message=False if forbidden else making.chance(0.3),
        confirmed_on=making.before(60),
    )


def draw_presentations(making: Settlement, *, pregnant: bool) -> tuple[Presentation, ...]:
    """Visits to an emergency department: because of this episode, and of earlier ones."""
    visits = []
    if "physical" in making.occurrence.harms and making.chance(0.35):
        code = "T71" if making.occurrence.strangulation else making.rng.choice(_INJURIES)[0]
        arrived = making.at + timedelta(minutes=making.rng.randint(40, 180))
        visits.append((arrived, (code,), making.today, making.occurrence.strangulation))
    if making.chance(0.18):
        day = making.before(330)
        arrived = datetime(day.year, day.month, day.day, making.rng.randrange(24), 20, tzinfo=UTC)
        visits.append((arrived, (making.rng.choice(_INJURIES[:-1])[0],), day, False))
    return tuple(
        Presentation(
            arrived_at=arrived,
            departed_at=arrived + timedelta(minutes=making.rng.randint(60, 240)),
            facility=making.rng.choice(HOSPITALS[making.facts.site]),
            injuries=codes,
            accident_on=day,
            strangulation=strangled,
            pregnant=pregnant,
        )
        for arrived, codes, day, strangled in visits
    )


def draw_claims(making: Settlement, *, injured: bool, share: float = 0.25) -> tuple[Claim, ...]:
    """Claims: an ordinary one in *share* of all, and sensitive ones of somebody *injured*."""
    claims = []
    if making.chance(share):
        code, site, cause = making.rng.choice(_INJURIES[:-1])
        claims.append(
            Claim(
                making.register.identifier("acc45"),
                making.before(900),
                cause,
                (site,),
                (code,),
                sensitive=False,
            )
        )
    often = 0.5 if making.occurrence.sexual_harm else 0.03
    if injured and (making.wish.sensitive_claim or making.chance(often)):
        reference = making.register.identifier("acc45")
        claims.append(
            Claim(reference, making.before(1500), "not stated", ("not-stated",), ("Z....",), sensitive=True)
        )
    return tuple(claims)


def draw_care(making: Settlement) -> CareInvolvement:
    """Oranga Tamariki's involvement with a child it knows."""
    rng = making.rng
    open_file = making.chance(0.5)
    worker = None
    if open_file:
        name = draw_name(rng, rng.choice(("maori", "european", "pacific")), rng.choice(("male", "female")))
        worker = Worker(f"{name.given} {name.family}", making.register.phone().number)
    return CareInvolvement(
        open_file=open_file,
        social_worker=worker,
        custody=rng.choices(("parents", "chief-executive", "whanau", "other"), (84, 4, 10, 2))[0],
        group_conference_on=making.today + timedelta(days=rng.randint(3, 30)) if making.chance(0.1) else None,
    )


def draw_orders(making: Settlement, perpetrator: Person, victim: Person) -> tuple[Order, ...]:
    """Orders in force between *perpetrator* and *victim*; a breach needs one."""
    children = tuple(
        person.key for person in making.people[2:] if not person.unborn and person.is_child(making.today)
    )
    shares: Mapping[str, float] = {
        "protection": 1.0 if making.occurrence.breach else 0.12,
        "parenting": 0.07 if children else 0.0,
        "property": 0.01,
    }
    orders = []
    for kind, share in shares.items():
        if not making.chance(share):
            continue
        made_on = making.before(700)
        orders.append(
            Order(
                kind=kind,
                court_file=making.register.court_file(making.facts.site, made_on.year, "FAM"),
                made_on=made_on,
                restrained=perpetrator.key,
                protected=(victim.key, *children),
                conditions=("No contact except as the order allows", "Attend a non-violence programme")
                if kind == "protection"
                else ("Supervised contact only",)
                if kind == "parenting"
                else (),
                in_force=True,
                protected_address=victim.home if kind == "protection" and making.chance(0.4) else None,
            )
        )
    return tuple(orders)
