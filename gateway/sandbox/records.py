"""What each agency's own system holds: its number, the name as it spells it, and its own kind of facts.

A record book answers as such a system would: by the agency's own number, or by name and birth date together.
It never yields another agency's number, a safe address, or a move that was kept from the agency. Facts use
the words of the canonical messages, so that a simulated agency can put them into its format.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from gateway.sandbox.names import folded
from gateway.sandbox.people import AGENCY_SYSTEM, Address, Episode, Family, Name, Person, Phone
from gateway.sandbox.population import Population

Facts = Mapping[str, Any]
_DOUBLED_VOWEL = re.compile(r"([aeiou])\1")
# Who asks people how to reach them; the others hold an address from forms, or nothing.
_KEEPS_PHONES = ("police", "health", "msd", "oranga-tamariki")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of *agency* under its own *identifier*; *key* leads to the person and is never sent."""

    key: str
    agency: str
    identifier: str
    name: Name
    birth_date: date | None
    gender: str
    address: Address
    phones: tuple[Phone, ...]
    facts: Facts


class RecordBook:
    """All records of one *agency* in a *population*. Raises `ValueError` for an agency without a system."""

    def __init__(self, population: Population, agency: str) -> None:
        if agency not in AGENCY_SYSTEM:
            raise ValueError("the agency keeps no records here")
        self.agency = agency
        self._by_identifier: dict[str, Record] = {}
        self._by_name: dict[tuple[str, date], list[Record]] = {}
        for record in _records(population, agency):
            self._by_identifier[record.identifier] = record
            if record.birth_date is not None:
                for written in _written(record.name):
                    self._by_name.setdefault((written, record.birth_date), []).append(record)

    def __len__(self) -> int:
        return len(self._by_identifier)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._by_identifier.values())

    def look_up(
        self, identifier: str | None = None, name: Name | None = None, birth_date: date | None = None
    ) -> tuple[Record, ...]:
        """The records under *identifier*, else those with *name* and *birth_date*; none when nothing fits.

        Several records are several people, or one person recorded twice: the book cannot tell. Macrons,
        doubled vowels, case and normal form make no difference to a name. A name without a birth date finds
        nobody.
        """
        if identifier is not None and (record := self._by_identifier.get(identifier)) is not None:
            return (record,)
        if name is None or birth_date is None:
            return ()
        for written in _written(name):
            if found := self._by_name.get((written, birth_date)):
                return tuple(found)
        return ()


def record_books(population: Population) -> Mapping[str, RecordBook]:
    """Every agency's book, by agency."""
    return {agency: RecordBook(population, agency) for agency in AGENCY_SYSTEM}


def _written(name: Name) -> tuple[str, ...]:
    """The ways to file *name*: folded, and with doubled vowels made single when that is another."""
    plain = f"{folded(name.family)}\n{folded(name.given)}"
    single = _DOUBLED_VOWEL.sub(r"\1", plain)
    return (plain,) if single == plain else (plain, single)


def _records(population: Population, agency: str) -> Iterator[Record]:
    context = _Context(population)
    system = AGENCY_SYSTEM[agency]
    for person in population.people.values():
        identifier = person.identifiers.get(system)
        if identifier is None:
            continue
        yield Record(
            key=person.key,
            agency=agency,
            identifier=identifier,
            name=person.spelled(agency),
            birth_date=person.birth_date,
            gender=person.gender,
            address=person.address_at(agency),
            phones=person.phones if agency in _KEEPS_PHONES else (),
            facts=_FACTS[agency](person, context),
        )
        for second in person.second_records:
            if second.agency == agency:
                # Made at a counter without a search: nothing but who, where, and that it happened.
                yield Record(
                    key=person.key,
                    agency=agency,
                    identifier=second.identifier,
                    name=second.name,
                    birth_date=second.birth_date,
                    gender=person.gender,
                    address=person.address_at(agency),
                    phones=(),
                    facts={"priorEpisodes": 1},
                )


class _Context:
    """Families, episodes and releases by the people in them."""

    def __init__(self, population: Population) -> None:
        self.day = population.day
        self.families: dict[str, list[Family]] = {}
        self.arrests: dict[str, list[Episode]] = {}
        self.releases = {release.person: release for release in population.releases}
        for family in population.families:
            for person in family.people:
                self.families.setdefault(person.key, []).append(family)
        for episode in population.episodes:
            if episode.arrest is not None:
                self.arrests.setdefault(episode.arrest.person, []).append(episode)


def _police(person: Person, context: _Context) -> Facts:
    orders = {
        order.kind
        for family in context.families[person.key]
        for order in family.orders
        if order.restrained == person.key and order.in_force
    }
    return {
        "priorEpisodes": person.prior_episodes,
        "offences": list(person.offences),
        "orders": sorted(orders),
        "firearmsAccess": person.firearms_access,
        "gang": person.gang,
    }


def _corrections(person: Person, context: _Context) -> Facts:
    facts: dict[str, Any] = {"sentence": person.sentence}
    if (release := context.releases.get(person.key)) is not None:
        facts["release"] = {
            "plannedOn": release.planned_on.isoformat(),
            "type": release.type,
            "prison": release.prison,
            "conditions": list(release.conditions),
            "electronicMonitoring": release.electronic_monitoring,
            "nonAssociation": release.non_association,
            "address": release.address.as_json(),
        }
    return facts


def _oranga_tamariki(person: Person, context: _Context) -> Facts:
    care = person.care
    facts: dict[str, Any] = {"involved": care is not None}
    if care is not None:
        facts |= {"openFile": care.open_file, "custody": care.custody}
        if care.social_worker is not None:
            facts["socialWorker"] = {"name": care.social_worker.name, "phone": care.social_worker.phone}
        if care.group_conference_on is not None:
            facts["groupConferenceOn"] = care.group_conference_on.isoformat()
    elif person.unborn or person.is_child(context.day):
        facts["openFile"] = False
    return facts


def _health(person: Person, _: _Context) -> Facts:
    services = {"mental-health": person.mental_health, "alcohol-and-drug": person.addiction}
    return {
        "presentations": [
            {
                "arrivedAt": visit.arrived_at.isoformat(),
                "departedAt": visit.departed_at.isoformat(),
                "facility": visit.facility,
                "injuries": list(visit.injuries),
                "accidentOn": visit.accident_on.isoformat() if visit.accident_on else None,
                "strangulation": visit.strangulation,
            }
            for visit in person.presentations
        ],
        "services": [service for service, used in services.items() if used],
        "pregnant": person.pregnant,
    }


def _msd(person: Person, _: _Context) -> Facts:
    return {"benefit": person.benefit, "onHousingRegister": person.on_housing_register}


def _acc(person: Person, _: _Context) -> Facts:
    return {
        "claims": [
            # A sensitive claim's detail sits in another system than the one that answers: only that it
            # exists.
            {"reference": claim.reference, "sensitiveClaim": True}
            if claim.sensitive
            else {
                "reference": claim.reference,
                "sensitiveClaim": False,
                "accidentOn": claim.accident_on.isoformat(),
                "cause": claim.cause,
                "bodySites": list(claim.body_sites),
                "diagnoses": list(claim.diagnoses),
            }
            for claim in person.claims
        ]
    }


def _education(person: Person, _: _Context) -> Facts:
    if person.school is None:
        return {}
    facts: dict[str, Any] = {"school": {"name": person.school.name, "number": person.school.number}}
    if person.attendance_percent is not None:
        facts |= {"percent": person.attendance_percent, "concern": person.attendance_percent < 80}
    return facts


def _justice(person: Person, context: _Context) -> Facts:
    orders = [
        {
            "kind": order.kind,
            "reference": order.court_file,
            "madeOn": order.made_on.isoformat(),
            "inForce": order.in_force,
            "restrained": order.restrained == person.key,
            "conditions": list(order.conditions),
        }
        for family in context.families[person.key]
        for order in family.orders
        if person.key == order.restrained or person.key in order.protected
    ]
    hearings = [
        {
            "reference": hearing.court_file,
            "court": hearing.court,
            "heardOn": hearing.heard_on.isoformat(),
            "result": hearing.result,
            "offences": list(hearing.offences),
            "bailConditions": list(hearing.bail_conditions),
            "bailAddress": hearing.bail_address.as_json() if hearing.bail_address else None,
        }
        for episode in context.arrests.get(person.key, ())
        if episode.arrest is not None
        for hearing in (episode.arrest.hearing,)
    ]
    return {"orders": orders, "hearings": hearings}


_FACTS: Mapping[str, Callable[[Person, _Context], Facts]] = {
    "police": _police,
    "corrections": _corrections,
    "oranga-tamariki": _oranga_tamariki,
    "health": _health,
    "msd": _msd,
    "acc": _acc,
    "education": _education,
    "justice": _justice,
}
