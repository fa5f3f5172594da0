"""The agencies' record books: each holds only its own, and finds people as its own system would."""

import json
import unicodedata
from dataclasses import asdict
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.names import with_double_vowels, without_macrons
from gateway.sandbox.people import AGENCY_SYSTEM, Name, Person
from gateway.sandbox.population import Population, build
from gateway.sandbox.records import RecordBook, record_books


@pytest.fixture(scope="module")
def day() -> Population:
    return build(2018, 119, 10)


@pytest.fixture(scope="module")
def large() -> Population:
    return build(7, 1500, 30)


def victim_of(population: Population, name: str, n: int = 0) -> Person:
    family = population.family(population.hard_cases[name][n])
    return family.person(family.victim)


def perpetrator_of(population: Population, name: str) -> Person:
    family = population.family(population.hard_cases[name][0])
    return family.person(family.perpetrator)


@pytest.mark.parametrize("agency", sorted(AGENCY_SYSTEM))
def test_book_finds_exactly_whom_the_agency_knows(day: Population, agency: str) -> None:
    book = RecordBook(day, agency)
    for person in day.people.values():
        found = book.look_up(person.identifiers.get(AGENCY_SYSTEM[agency]), person.name, person.birth_date)
        assert person.known_to(agency) == any(record.key == person.key for record in found)
    assert len(book) == len(list(book))


@pytest.mark.parametrize("agency", sorted(AGENCY_SYSTEM))
def test_record_holds_no_other_agency_identifier_and_no_safe_address(large: Population, agency: str) -> None:
    for record in RecordBook(large, agency):
        person = large.people[record.key]
        text = json.dumps({**asdict(record), "key": ""}, default=str, ensure_ascii=False)
        others = [v for system, v in person.identifiers.items() if system != AGENCY_SYSTEM[agency]]
        assert [value for value in others if value in text] == []
        assert record.identifier in text
        if person.safe_address is not None:
            assert person.safe_address.line1 not in text
            assert str(person.refuge) not in text
        if person.home_known_to is not None and agency not in person.home_known_to:
            assert person.home.line1 not in text


def test_facts_are_json_values_that_say_what_the_agency_keeps(large: Population) -> None:
    books = record_books(large)
    assert set(AGENCY_SYSTEM) == set(books)
    for agency, fact in (
        ("police", "priorEpisodes"),
        ("corrections", "sentence"),
        ("oranga-tamariki", "involved"),
        ("health", "services"),
        ("msd", "benefit"),
        ("acc", "claims"),
        ("education", "school"),
        ("justice", "orders"),
    ):
        facts = [record.facts for record in books[agency]]
        assert json.loads(json.dumps(facts)) == facts
        assert all(fact in one for one in facts)


def test_police_facts_are_the_person_s_own(large: Population) -> None:
    book = RecordBook(large, "police")
    for person in large.people.values():
        for record in book.look_up(person.identifiers.get("police-person")):
            assert (person.prior_episodes, person.gang) == (
                record.facts["priorEpisodes"],
                record.facts["gang"],
            )
            assert list(person.offences) == record.facts["offences"]


def test_corrections_hold_the_release_of_whoever_is_released(day: Population) -> None:
    book = RecordBook(day, "corrections")
    for release in day.releases:
        (record,) = book.look_up(day.people[release.person].identifiers["prn"])
        assert release.planned_on.isoformat() == record.facts["release"]["plannedOn"]
        assert release.address.as_json() == record.facts["release"]["address"]


def test_acc_tells_only_the_existence_of_a_sensitive_claim(day: Population) -> None:
    victim = victim_of(day, "sensitive-claim")
    (record,) = RecordBook(day, "acc").look_up(victim.identifiers["acc-claimant"])
    sensitive = [claim for claim in record.facts["claims"] if claim["sensitiveClaim"]]
    assert sensitive
    assert all({"reference", "sensitiveClaim"} == set(claim) for claim in sensitive)


def test_justice_holds_the_bail_address_that_is_near_her(day: Population) -> None:
    family = day.family(day.hard_cases["bailed-near-her"][0])
    perpetrator = perpetrator_of(day, "bailed-near-her")
    hearings = [
        hearing
        for record in RecordBook(day, "justice").look_up(perpetrator.identifiers.get("justice-person"))
        for hearing in record.facts["hearings"]
    ]
    assert family.person(family.victim).home.suburb in {h["bailAddress"]["suburb"] for h in hearings}


def test_look_up_tells_apart_two_people_of_one_name_by_birth_date(day: Population) -> None:
    first, second = victim_of(day, "same-name"), victim_of(day, "same-name", 1)
    book = RecordBook(day, "police")
    assert [first.key] == [r.key for r in book.look_up(name=first.name, birth_date=first.birth_date)]
    assert [second.key] == [r.key for r in book.look_up(name=second.name, birth_date=second.birth_date)]


def test_look_up_finds_one_of_two_records_when_somebody_is_recorded_twice(day: Population) -> None:
    person = perpetrator_of(day, "recorded-twice")
    (second,) = person.second_records
    book = RecordBook(day, "police")
    by_first = book.look_up(name=person.name, birth_date=person.birth_date)
    by_second = book.look_up(name=person.name, birth_date=second.birth_date)
    assert [person.identifiers["police-person"]] == [record.identifier for record in by_first]
    assert [second.identifier] == [record.identifier for record in by_second]
    assert book.look_up(second.identifier) == by_second


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(Name("Pēwhairangi", "Māia"), id="macrons"),
        pytest.param(Name("PEWHAIRANGI", "maia"), id="no macrons, other case"),
        pytest.param(Name("Peewhairangi", "Maaia"), id="doubled vowels"),
        pytest.param(Name("Pe\u0304whairangi", "Ma\u0304ia"), id="decomposed"),
        pytest.param(Name(" Pēwhairangi ", "Māia "), id="spaces"),
    ],
)
def test_look_up_finds_her_however_macrons_are_written(day: Population, written: Name) -> None:
    victim = victim_of(day, "macrons-differ")
    for agency, book in record_books(day).items():
        found = book.look_up(name=written, birth_date=victim.birth_date)
        assert [victim.key] * victim.known_to(agency) == [record.key for record in found]


def test_look_up_finds_nobody_when_something_needed_is_missing(day: Population) -> None:
    victim = victim_of(day, "lives-with-perpetrator")
    book = RecordBook(day, "police")
    assert book.look_up() == ()
    assert book.look_up(name=victim.name) == ()
    assert book.look_up(birth_date=victim.birth_date) == ()
    assert book.look_up("PN00000000") == ()
    assert book.look_up("", Name("", ""), date(1990, 1, 1)) == ()
    assert book.look_up(name=Name(victim.name.given, victim.name.family), birth_date=victim.birth_date) == ()


def test_look_up_falls_back_to_the_name_when_the_number_is_unknown(day: Population) -> None:
    victim = victim_of(day, "lives-with-perpetrator")
    found = RecordBook(day, "police").look_up("PN00000000", victim.name, victim.birth_date)
    assert [victim.key] == [record.key for record in found]


def test_book_refuses_when_the_agency_has_no_system(day: Population) -> None:
    with pytest.raises(ValueError, match="keeps no records"):
        RecordBook(day, "ngo.secret")


def test_books_are_empty_when_there_is_nobody() -> None:
    assert {0} == {len(book) for book in record_books(build(1, 0, 0)).values()}


@given(st.data())
def test_look_up_finds_everybody_under_every_spelling(day: Population, data: st.DataObject) -> None:
    book = RecordBook(day, "health")
    record = data.draw(st.sampled_from([r for r in book if r.birth_date is not None]))
    respell = data.draw(st.sampled_from([lambda n: n, without_macrons, with_double_vowels]))
    name = respell(day.people[record.key].name)
    form = data.draw(st.sampled_from(["NFC", "NFD"]))
    name = Name(*(unicodedata.normalize(form, part) for part in (name.family, name.given)))  # type: ignore[arg-type]
    assert record in book.look_up(name=name, birth_date=record.birth_date)
