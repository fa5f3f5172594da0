"""Which case a message belongs to, what it changes there, and who people are."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from consent.people import Keys, People, fold, person_identifier
from consent.placing import Cases, Placed
from schemas.catalogue import published
from schemas.database import metadata, open_database
from schemas.errors import CaseUnknown
from schemas.message import new_message

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
HERS = {"line1": "2 Second Street", "city": "Huntly"}
HIS = {"line1": "1 First Road", "city": "Huntly"}
SEATED = ("police", "fss")


def named(ref: str, role: str, given: str, **more: Any) -> dict[str, Any]:
    name = {"family": "Sample", "given": given}
    return {"ref": ref, "role": role, "name": name, "birthDate": "1990-01-01", **more}


SAM = named("p1", "perpetrator", "Sam", address=HIS)
ANN = named("p2", "victim", "Ann", address=HERS)


class Desk:
    """A hub's crosswalk and cases on one small database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self.keys = Keys(bytes(32))
        self._people = People(self.keys)
        self._cases = Cases(self.keys, lambda _site: SEATED)
        self._sent = 0

    def place(self, source: str, event: str, data: dict[str, Any], case: str | None = None) -> Placed:
        """Places one message and commits, as a batch of one."""
        self._sent += 1
        message = new_message(source, event, data, key=str(self._sent), at=NOW, case=case)
        with self._engine.begin() as connection:
            refs = self.refs(connection, source, *message.data["people"])
            batch = self._cases.open_batch(connection, {case} if case else set(), set(refs.values()))
            placed = batch.place(message, published()[message.type], refs)
            batch.save(connection)
        return placed

    def refs(self, connection: sa.Connection, source: str, *people: dict[str, Any]) -> dict[str, str]:
        return self._people.recognise(connection, [(source, people)])[0]

    def who(self, person: dict[str, Any]) -> str:
        """The pseudonym of *person*."""
        with self._engine.begin() as connection:
            return self.refs(connection, "police", person)[person["ref"]]

    def episode(self, *people: dict[str, Any]) -> Placed:
        return self.place(
            "police", "police.episode-recorded", {"episode": {"site": "christchurch"}, "people": [*people]}
        )

    def contact(self, source: str, person: dict[str, Any], case: str | None = None) -> Placed:
        data = {"report": {"asOf": "2026-11-21"}, "people": [person]}
        return self.place(source, "any.contact-details-reported", data, case)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    engine = open_database(f"sqlite:///{tmp_path / 'hub.db'}")
    metadata.create_all(engine)
    yield Desk(engine)
    engine.dispose()


def test_place_opens_a_case_with_the_seated_parties(desk: Desk) -> None:
    """The core of the meeting works with everybody of a new case."""
    (case,) = desk.episode(SAM, ANN).cases
    assert case.site == "christchurch"
    assert case.has_role(desk.who(SAM), "perpetrator")
    assert case.has_role(desk.who(ANN), "victim")
    assert case.assignments == {(party, "*", "table") for party in SEATED}


def test_place_joins_the_case_of_the_same_two_people(desk: Desk) -> None:
    """A second episode of one family is one case; the same man with another family is another."""
    first = desk.episode(SAM, ANN).cases[0].id
    assert desk.episode(SAM, ANN).cases[0].id == first
    assert desk.episode(SAM, named("p2", "victim", "Bea")).cases[0].id != first


def test_place_reaches_every_open_case_of_a_person(desk: Desk) -> None:
    """Whoever has two families is bailed from both."""
    desk.episode(SAM, ANN)
    desk.episode(SAM, named("p2", "victim", "Bea"))
    data = {"custody": {"person": "p1", "event": "bailed"}, "people": [{**SAM, "role": "associate"}]}
    placed = desk.place("corrections", "corrections.custody-changed", data)
    assert len(placed.cases) == 2
    assert placed.roles == {"p1": "perpetrator"}


@pytest.mark.parametrize("case", [None, "5c0f6d3e-1d5c-5e53-9b62-0a4f6f1d2c11"])
def test_place_refuses_a_message_for_a_case_nobody_knows(desk: Desk, case: str | None) -> None:
    """A message that belongs nowhere is an error, never a guess."""
    with pytest.raises(CaseUnknown):
        desk.contact("health", ANN, case)


def test_place_gives_an_associate_the_role_of_the_case(desk: Desk) -> None:
    """A hospital knows a patient, not a victim."""
    desk.episode(SAM, ANN)
    assert desk.contact("health", {**ANN, "role": "associate"}).roles == {"p2": "victim"}


def test_place_knows_that_two_people_share_a_home(desk: Desk) -> None:
    """The same address written differently is one place."""
    again = {"line1": "2 second st", "city": "HUNTLY"}
    (case,) = desk.episode(named("p1", "perpetrator", "Sam", address=again), ANN).cases
    assert case.shares_household(desk.who(SAM))


def test_place_keeps_a_protected_address_from_the_restrained(desk: Desk) -> None:
    """The address that an order protects stands beside him and is not his home."""
    case = desk.episode(SAM, ANN).cases[0]
    order = {"restrained": "p1", "kind": "protection", "inForce": True, "protectedAddress": HERS}
    placed = desk.place("justice", "justice.order-made", {"order": order, "people": [SAM, ANN]}, case.id)
    assert not placed.cases[0].shares_household(desk.who(SAM))


@pytest.mark.parametrize("source", ["ngo.aviva#pos", "ngo.aviva#ivs", "msd", "education"])
def test_place_takes_no_new_role_from_who_does_not_assess(desk: Desk, source: str) -> None:
    """INVARIANT: nobody beside the case can make a victim its perpetrator: her own worker would count as his
    and lose her address.
    """
    case = desk.episode(SAM, ANN).cases[0]
    placed = desk.contact(source, {**ANN, "role": "perpetrator"}, case.id)
    assert placed.cases[0].people[desk.who(ANN)].roles == ["victim"]


@pytest.mark.parametrize("source", ["police", "corrections", "oranga-tamariki", "fss"])
def test_place_takes_a_new_role_from_who_assesses(desk: Desk, source: str) -> None:
    """A changed assessment is kept beside the former ones."""
    case = desk.episode(SAM, ANN).cases[0]
    placed = desk.contact(source, {**ANN, "role": "perpetrator"}, case.id)
    assert set(placed.cases[0].people[desk.who(ANN)].roles) == {"victim", "perpetrator"}


def test_place_opens_another_case_when_roles_flip(desk: Desk) -> None:
    """Whose services work with whom differs with the aggressor, so a flip is a case of its own; the first one
    keeps its roles, and later episodes find the case of their aggressor.
    """
    first = desk.episode(SAM, ANN).cases[0]
    flipped = desk.episode({**SAM, "role": "victim"}, {**ANN, "role": "perpetrator"}).cases[0]
    again = desk.episode(SAM, ANN).cases[0]
    assert flipped.id != first.id
    assert flipped.people[desk.who(ANN)].roles == ["perpetrator"]
    assert again.id == first.id
    assert again.people[desk.who(ANN)].roles == ["victim"]


def test_recognise_prefers_an_identifier_to_a_name(desk: Desk) -> None:
    """A person whose name is spelt anew is still the holder of the number."""
    number = [{"system": "police-person", "value": "PN1000001"}]
    first = desk.who({**ANN, "identifiers": number})
    assert desk.who({**named("p9", "victim", "Annabel"), "identifiers": number}) == first


def test_recognise_is_blind_to_macrons_and_case_only(desk: Desk) -> None:
    """Mārama and marama are one name; another birth date is another person."""
    first = desk.who(named("p1", "victim", "Mārama"))
    assert desk.who(named("p1", "victim", "Ma\u0304rama ")) == first
    assert desk.who(named("p1", "victim", "MARAMA")) == first
    assert desk.who({**named("p1", "victim", "Mārama"), "birthDate": "1990-01-02"}) != first
    assert fold("O'Neil-Tūhoe") == "o'neil-tuhoe"


def test_recognise_keeps_two_providers_client_numbers_apart(desk: Desk) -> None:
    """Two providers may both have a client 17."""
    client = {"ref": "p1", "role": "victim", "identifiers": [{"system": "ngo-client", "value": "17"}]}
    with desk._engine.begin() as connection:
        one = desk.refs(connection, "ngo.aviva", client)
        other = desk.refs(connection, "ngo.manaaki", client)
    assert one != other


def test_recognise_stores_no_identifier_in_clear(desk: Desk) -> None:
    """What the crosswalk keeps is sealed, and comes back for its issuer alone."""
    number = [{"system": "nhi", "value": "ZZZ0016"}]
    who = desk.who({**ANN, "identifiers": number})
    with desk._engine.begin() as connection:
        rows = connection.execute(sa.select(person_identifier)).all()
        back = desk._people.identifiers_of(connection, [who])
    assert b"ZZZ0016" not in b"".join(bytes(row.sealed) + bytes(row.key) for row in rows)
    assert back == {who: {"health": number}}
