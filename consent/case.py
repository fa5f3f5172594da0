"""The case: people, roles, households, assignments, risk and site that belong together. It is all that
conditions read.

People are pseudonyms here, places are keyed digests: a case says that two people live together, never where.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

RISK_ORDER = {"low": 1, "medium": 2, "high": 3}
ROLE, LINK, CONFLICT, HOME, PROXY = "role", "link", "conflict", "home", "proxy"


class Caution(NamedTuple):
    """One thing that calls for care: *what* (role, link, conflict, home, proxy), about whom (a pseudonym; for
    link and conflict the party), and the rest of it.
    """

    what: str
    who: str
    detail: str


@dataclass(slots=True)
class PersonInCase:
    """One person: the *roles* ever held in this case (the latest last), every *household* known (keyed digest
    of an address), the *school* (keyed digest), the pseudonym of who is named as their *representative*, and
    whether somebody said that their whereabouts are *protected* (a refuge, a suppressed address).
    """

    roles: list[str] = field(default_factory=list)
    households: set[str] = field(default_factory=set)
    school: str | None = None
    representative: str | None = None
    protected: bool = False


@dataclass(slots=True)
class Case:
    """One case. *assignments* are (party, pseudonym, service): the party works with the person in this case;
    service is `table` with pseudonym `*` (everybody in the case) for the core parties of the Safety
    Assessment Meeting, `asked` for a party that was asked about the person, `task` for a task, or ivs, pos,
    wsw, lrr.
    """

    id: str
    site: str
    open: bool = True
    risk: str | None = None
    people: dict[str, PersonInCase] = field(default_factory=dict)
    assignments: set[tuple[str, str, str]] = field(default_factory=set)
    conflicts: set[str] = field(default_factory=set)

    def has_role(self, pseudonym: str, role: str) -> bool:
        """Whether the person has ever had *role* in this case."""
        person = self.people.get(pseudonym)
        return person is not None and role in person.roles

    def assigned(self, party: str, pseudonym: str) -> bool:
        """Whether *party* works with the person in this case."""
        return any(p == party and s in (pseudonym, "*") for p, s, _ in self.assignments)

    def shares_household(self, pseudonym: str, homes: Set[str] = frozenset()) -> bool:
        """Whether any place known for this person, here or (*homes*) elsewhere, is also a place known for a
        victim or child of the case: then the one reveals the other.
        """
        person = self.people.get(pseudonym)
        if person is None:
            return False
        return any(
            not other.households.isdisjoint(person.households | homes)
            for name, other in self.people.items()
            if name != pseudonym and {"victim", "child", "witness", "associate"} & set(other.roles)
        )

    def cautions(self) -> frozenset[Caution]:
        """What calls for care in this case, so that what is new in it shows what may have been given wrongly:
        each person's roles, who is linked to the perpetrator or to somebody unknown, who has a conflict of
        interest, whose home the perpetrator shares.
        """
        people = self.people
        perpetrators = {name for name, person in people.items() if "perpetrator" in person.roles}
        found = {Caution(ROLE, name, "/".join(person.roles)) for name, person in people.items()}
        found |= {Caution(CONFLICT, party, "") for party in self.conflicts}
        found |= {
            Caution(LINK, party, name)
            for party, name, service in self.assignments
            if name != "*" and service != "asked" and (name in perpetrators or name not in people)
        }
        found |= {
            Caution(PROXY, name, person.representative)
            for name, person in people.items()
            if person.representative is not None
            and (person.representative in perpetrators or person.representative not in people)
        }
        found |= {Caution(HOME, name, "") for name in perpetrators if self.shares_household(name)}
        return frozenset(found)

    def to_json(self) -> dict[str, Any]:
        """The case as stored."""
        return {
            "site": self.site,
            "open": self.open,
            "risk": self.risk,
            "people": {
                name: {
                    "roles": p.roles,
                    "households": sorted(p.households),
                    "school": p.school,
                    "representative": p.representative,
                    **({"protected": True} if p.protected else {}),
                }
                for name, p in self.people.items()
            },
            "assignments": sorted(self.assignments),
            "conflicts": sorted(self.conflicts),
        }

    @classmethod
    def from_json(cls, id: str, stored: Mapping[str, Any]) -> "Case":  # the field's name
        """The stored case."""
        return cls(
            id=id,
            site=stored["site"],
            open=stored["open"],
            risk=stored["risk"],
            people={
                name: PersonInCase(
                    list(p["roles"]),
                    set(p["households"]),
                    p["school"],
                    p["representative"],
                    p.get("protected", False),
                )
                for name, p in stored["people"].items()
            },
            assignments={(a, b, c) for a, b, c in stored["assignments"]},
            conflicts=set(stored["conflicts"]),
        )
