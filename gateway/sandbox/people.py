"""What the sandbox knows about its invented people: everything, including what no agency may learn.

These are the facts as they are. What one agency's system holds of them, spelled its own way, is
`gateway.sandbox.records`. Keys (`f00017.v`) exist only inside the sandbox and never travel. Mappings are
not changed after building.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

# The identifier by which each agency's system knows a person.
AGENCY_SYSTEM: Mapping[str, str] = {
    "police": "police-person",
    "health": "nhi",
    "corrections": "prn",
    "oranga-tamariki": "cyras",
    "msd": "swn",
    "acc": "acc-claimant",
    "education": "learner",
    "justice": "justice-person",
}
AGENCIES = tuple(AGENCY_SYSTEM)


@dataclass(frozen=True, slots=True)
class Name:
    """A name in NFC."""

    family: str
    given: str

    def as_json(self) -> dict[str, str]:
        """The name as canonical messages carry it."""
        return {"family": self.family, "given": self.given}


@dataclass(frozen=True, slots=True)
class Address:
    """A postal address; *line1* occurs once in the whole population unless people live there together."""

    line1: str
    suburb: str
    city: str
    postcode: str

    def as_json(self) -> dict[str, str]:
        """The address as canonical messages carry it."""
        return {
            "line1": self.line1,
            "suburb": self.suburb,
            "city": self.city,
            "postcode": self.postcode,
        }


@dataclass(frozen=True, slots=True)
class Phone:
    """A number in E.164 from a block that is not in use; *kind* is mobile, landline or work."""

    number: str
    kind: str = "mobile"

    @property
    def local(self) -> str:
        """The number as people write it: `021 555 12345`."""
        digits = self.number.removeprefix("+64")
        return f"0{digits[:2]} {digits[2:5]} {digits[5:]}"

    def as_json(self) -> dict[str, str]:
        """The number as canonical messages carry it."""
        return {"number": self.number, "kind": self.kind}


@dataclass(frozen=True, slots=True)
class SafeContact:
    """Whether and how contact is safe, as the person said on *confirmed_on*."""

    do_not_contact: bool
    channels: tuple[str, ...]
    times: str
    code_word: str
    leave_message: bool
    confirmed_on: date


@dataclass(frozen=True, slots=True)
class School:
    """An invented school and its number."""

    name: str
    number: str


@dataclass(frozen=True, slots=True)
class Worker:
    """A social worker of an agency."""

    name: str
    phone: str


@dataclass(frozen=True, slots=True)
class Presentation:
    """One visit to an emergency department; *injuries* are ICD-10 codes, *accident_on* is None for an
    illness.
    """

    arrived_at: datetime
    departed_at: datetime
    facility: str
    injuries: tuple[str, ...]
    accident_on: date | None
    strangulation: bool
    pregnant: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """One ACC injury claim; of a *sensitive* one only the existence may ever be told."""

    reference: str
    accident_on: date
    cause: str
    body_sites: tuple[str, ...]
    diagnoses: tuple[str, ...]
    sensitive: bool


@dataclass(frozen=True, slots=True)
class CareInvolvement:
    """Oranga Tamariki's involvement with a child; *custody* is parents, chief-executive, whanau or other."""

    open_file: bool
    social_worker: Worker | None
    custody: str
    group_conference_on: date | None


@dataclass(frozen=True, slots=True)
class Order:
    """A court order; *restrained* and *protected* are person keys."""

    kind: str
    court_file: str
    made_on: date
    restrained: str
    protected: tuple[str, ...]
    conditions: tuple[str, ...]
    in_force: bool
    protected_address: Address | None


@dataclass(frozen=True, slots=True)
class Hearing:
    """A court's outcome for one person; *near_victim* marks bail to an address close to the victim's."""

    court_file: str
    court: str
    heard_on: date
    result: str
    offences: tuple[str, ...]
    bail_conditions: tuple[str, ...]
    bail_address: Address | None
    near_victim: bool = False


@dataclass(frozen=True, slots=True)
class Relationship:
    """What *of* is to *to* (`partner`, `parent`, …) according to *stated_by*; two statements may differ."""

    of: str
    to: str
    kind: str
    stated_by: str


@dataclass(frozen=True, slots=True)
class SecondRecord:
    """A record that *agency* holds of somebody whom it already holds under another number."""

    agency: str
    identifier: str
    name: Name
    birth_date: date


@dataclass(frozen=True, slots=True)
class Person:
    """One invented person.

    *birth_date* is None only for an *unborn* child. *spellings* holds the agencies that write the name
    differently. *home* is where the person lives (lived, when *safe_address* is set); *home_known_to*
    limits who knows a new one, the others still hold *former_home*. *identifiers* has a system only
    where that agency knows the person.
    """

    key: str
    name: Name
    birth_date: date | None
    gender: str
    ethnicities: tuple[str, ...]
    home: Address
    former_home: Address | None = None
    home_known_to: tuple[str, ...] | None = None
    safe_address: Address | None = None
    refuge: str | None = None
    phones: tuple[Phone, ...] = ()
    safe_contact: SafeContact | None = None
    unborn: bool = False
    school: School | None = None
    attendance_percent: int | None = None
    representative: str | None = None
    identifiers: Mapping[str, str] = field(default_factory=dict)
    spellings: Mapping[str, Name] = field(default_factory=dict)
    second_records: tuple[SecondRecord, ...] = ()
    gang: str = "none"
    mental_health: bool = False
    addiction: bool = False
    methamphetamine: bool = False
    pregnant: bool = False
    benefit: str = "none"
    on_housing_register: bool = False
    presentations: tuple[Presentation, ...] = ()
    claims: tuple[Claim, ...] = ()
    care: CareInvolvement | None = None
    sentence: str = "none"
    offences: tuple[str, ...] = ()
    prior_episodes: int = 0
    firearms_access: bool = False

    def age(self, on: date) -> int | None:
        """Completed years on the day *on*; None before birth."""
        born = self.birth_date
        if born is None or born > on:
            return None
        return on.year - born.year - ((on.month, on.day) < (born.month, born.day))

    def is_child(self, on: date) -> bool:
        """Whether the person is unborn or under 18 on the day *on*."""
        age = self.age(on)
        return age is None or age < 18

    def known_to(self, agency: str) -> bool:
        """Whether *agency*'s own system has a record of the person."""
        return AGENCY_SYSTEM.get(agency, "") in self.identifiers

    def spelled(self, agency: str) -> Name:
        """The name as *agency*'s system has it."""
        return self.spellings.get(agency, self.name)

    def address_at(self, agency: str) -> Address:
        """The address that *agency* holds: the old one when the move was kept from it. Never the safe
        address.
        """
        if self.home_known_to is None or agency in self.home_known_to or self.former_home is None:
            return self.home
        return self.former_home

    def secrets(self) -> Iterator[tuple[str, str]]:
        """Everything that must not be found where it does not belong, as (data class, text), each way it
        is written.
        """
        located = self.safe_address is not None
        for address in filter(None, (self.home, self.former_home)):
            yield "ADDR-V", address.line1
        if located and self.safe_address is not None:
            yield "ADDR-SAFE", self.safe_address.line1
            yield "ADDR-SAFE", self.safe_address.line1.split(", ")[-1]
        if self.refuge is not None:
            yield "ADDR-SAFE", self.refuge
        for phone in self.phones:
            yield "CONTACT-V", phone.number
            yield "CONTACT-V", phone.local
        if self.safe_contact is not None:
            yield "SAFE-CONTACT", self.safe_contact.code_word
        for value in self.identifiers.values():
            yield "ID-XREF", value
        for second in self.second_records:
            yield "ID-XREF", second.identifier
        for claim in self.claims:
            yield "ACC-CLAIM", claim.reference
        if self.care is not None and self.care.social_worker is not None:
            yield "CP-STATUS", self.care.social_worker.phone


@dataclass(frozen=True, slots=True)
class Family:
    """People who belong together, with the plan that ISR would make for them.

    *children* is `home` (under 18 in the home, or unborn), `non-resident` or `none`. *conflict* names an
    agency whose worker knows the family. *risk* is what FSS holds before the first episode of the day is
    assessed.
    """

    key: str
    site: str
    people: tuple[Person, ...]
    perpetrator: str
    victim: str
    relation: str
    risk: str
    shares_household: bool
    children: str
    gang: bool
    alcohol_or_drugs: bool
    methamphetamine: bool
    housing_issue: bool
    known_to_care: bool
    relationships: tuple[Relationship, ...] = ()
    orders: tuple[Order, ...] = ()
    conflict: str | None = None

    def person(self, key: str) -> Person:
        """The member with *key*. Raises `KeyError`."""
        for person in self.people:
            if person.key == key:
                return person
        raise KeyError("no such member")


@dataclass(frozen=True, slots=True)
class Arrest:
    """An arrest at an episode; *outcome* is `remanded-in-custody` or `bailed`."""

    person: str
    at: datetime
    outcome: str
    hearing: Hearing


@dataclass(frozen=True, slots=True)
class SafetyOrder:
    """A Police Safety Order for *days* against *bound*."""

    bound: str
    issued_at: datetime
    days: int


@dataclass(frozen=True, slots=True)
class Episode:
    """One notification of family harm, as Police record it, with the risk as FSS will assess it.

    *roles* maps person keys to roles in this episode; *exposed* are the children who were there. All
    instants are UTC.
    """

    key: str
    event_number: str
    occurred_at: datetime
    recorded_at: datetime
    family: str
    site: str
    roles: Mapping[str, str]
    exposed: tuple[str, ...]
    place: Address
    harms: tuple[str, ...]
    sexual_harm: bool
    strangulation: bool
    weapons: tuple[str, ...]
    alcohol: bool
    drugs: bool
    firearms: bool
    firearms_detail: str
    safety_order: SafetyOrder | None
    breach_of_order: bool
    arrest: Arrest | None
    dangers: tuple[str, ...]
    concern_reported: bool
    school_told: bool
    narrative: str
    risk: str
    risk_factors: tuple[str, ...]
    rationale: str

    @property
    def children_present(self) -> bool:
        """Whether a child saw or heard it."""
        return bool(self.exposed)

    def holder(self, role: str) -> str:
        """The key of the first person who has *role*. Raises `KeyError`."""
        for key, held in self.roles.items():
            if held == role:
                return key
        raise KeyError("nobody has the role")


@dataclass(frozen=True, slots=True)
class Release:
    """A release from prison that Corrections notifies at *notified_at*; *at* is when the person is free.

    *same_day* marks a remand prisoner whose plea turned into time served: free when the notice arrives.
    """

    key: str
    person: str
    family: str
    site: str
    notified_at: datetime
    at: datetime
    planned_on: date
    type: str
    prison: str
    conditions: tuple[str, ...]
    electronic_monitoring: bool
    non_association: bool
    risk: str
    address: Address
    to_victims_home: bool
    same_day: bool
