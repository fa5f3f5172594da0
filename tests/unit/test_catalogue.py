"""What the catalogue accepts, what it refuses, and that its two validators agree."""

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import catalogue
from schemas.catalogue import FORMATS, Branch, Catalogue, Leaf, holdings, published
from schemas.classes import Facet
from schemas.errors import BadCatalogue, InvalidMessage, UnknownType
from schemas.message import new_message

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


def documents() -> dict[str, Any]:
    folder = files("schemas") / "messages"
    return {
        e.name.removesuffix(".json"): json.loads(e.read_text(encoding="utf-8"))
        for e in folder.iterdir()
        if e.name.endswith(".json")
    }


def episode() -> dict[str, Any]:
    data = {
        "episode": {
            "reference": {"system": "police-event", "value": "P0123"},
            "occurredAt": "2026-11-21T08:00:00Z",
            "occurredOn": "2026-11-21",
            "site": "christchurch",
            "kind": "family-harm",
            "harms": ["verbal"],
        },
        "people": [
            {"ref": "p1", "role": "perpetrator", "address": {"line1": "1 Sample Street", "city": "Huntly"}},
            {
                "ref": "p2",
                "role": "victim",
                "address": {"line1": "1 Sample Street", "city": "Huntly"},
                "identifiers": [{"system": "nhi", "value": "ZZZ0016"}],
            },
        ],
    }
    return new_message("police", "police.episode-recorded", data, key="P0123/1", at=NOW).to_json()


def changed(path: str, value: Any) -> dict[str, Any]:
    event = copy.deepcopy(episode())
    *way, last = path.split("/")
    at: Any = event
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return event


@pytest.mark.parametrize(
    ("path", "value", "pointer"),
    [
        pytest.param("data/people/0/role", "suspect", "/data/people/0/role", id="wrong code"),
        pytest.param("data/people/1/ref", "p1", "/data/people/1/ref", id="ref used twice"),
        pytest.param("data/people/0/nickname", "x", "/data/people/0/nickname", id="unknown property"),
        pytest.param(
            "data/people/1/birthDate", "2090-01-01", "/data/people/1/birthDate", id="date in the future"
        ),
        pytest.param("data/people/1/birthDate", "1990-02-30", "/data/people/1/birthDate", id="no such date"),
        pytest.param(
            "data/people/1/representative", "p9", "/data/people/1/representative", id="refers to nobody"
        ),
        pytest.param(
            "data/people/1/identifiers/0/value",
            "ZZZ0017",
            "/data/people/1/identifiers/0/value",
            id="NHI check digit",
        ),
        pytest.param("time", "2027-01-01T00:00:00Z", "/time", id="time in the future"),
        pytest.param("time", "yesterday", "/time", id="no time"),
        pytest.param("colour", "red", "/colour", id="unknown attribute"),
    ],
)
def test_validate_names_the_place_when_a_property_is_wrong(path: str, value: Any, pointer: str) -> None:
    """A rejection says where, and never what."""
    with pytest.raises(InvalidMessage) as caught:
        published().validate(changed(path, value), NOW)
    assert [p.pointer for p in caught.value.problems] == [pointer]
    assert str(value) not in " ".join(p.detail + p.fix for p in caught.value.problems).split()


def test_validate_names_a_missing_property() -> None:
    """A person without a role is named by its place."""
    event = episode()
    del event["data"]["people"][1]["role"]
    with pytest.raises(InvalidMessage) as caught:
        published().validate(event, NOW)
    assert [p.pointer for p in caught.value.problems] == ["/data/people/1/role"]


@pytest.mark.parametrize("name", ["nz.isr.police.episode-recorded.v2", "nz.isr.police.unheard-of.v1"])
def test_validate_refuses_unknown_type_and_version(name: str) -> None:
    """Unknown means no."""
    with pytest.raises(UnknownType):
        published().validate(changed("type", name), NOW)


def test_validate_refuses_test_numbers_in_production() -> None:
    """Numbers of the testing range belong to nobody."""
    with pytest.raises(InvalidMessage) as caught:
        published(test_numbers=False).validate(episode(), NOW)
    assert [p.pointer for p in caught.value.problems] == ["/data/people/1/identifiers/0/value"]


def test_catalogue_refuses_an_unclassified_property() -> None:
    """A new property is withheld until somebody classifies it: the schema does not even load."""
    broken = documents()
    broken["police.episode-recorded.v1"]["properties"]["episode"]["properties"]["mood"] = {"type": "string"}
    with pytest.raises(BadCatalogue, match=r"episode\.mood"):
        Catalogue(broken)


@pytest.mark.parametrize(
    ("key", "value"),
    [("x-data-class", "NO-SUCH-CLASS"), ("type", "number"), ("x-audience", "everybody")],
)
def test_catalogue_refuses_a_schema_that_breaks_its_rules(key: str, value: str) -> None:
    """Unknown classes, floating numbers and unknown audiences do not load."""
    broken = documents()
    schema = broken["fss.risk-assessed.v1"]
    (schema if key == "x-audience" else schema["properties"]["risk"]["properties"]["level"])[key] = value
    with pytest.raises(BadCatalogue):
        Catalogue(broken)


def test_the_published_schemas_meet_the_meta_schema_of_a_second_reader() -> None:
    """Loading asks the fast reader only; the slow one, which knows more formats, says the same of all."""
    for document in documents().values():
        jsonschema.Draft202012Validator.check_schema(document)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("fss.risk-assessed.v1", {"required": "risk"}),
        ("common.v1", {"$defs": {**documents()["common.v1"]["$defs"], "line": {"type": "text"}}}),
        ("envelope.v1", {"properties": {"id": {"maxLength": -1}}}),
        ("fss.risk-assessed.v1", {"$schema": "http://json-schema.org/draft-07/schema#", "required": "risk"}),
    ],
)
def test_catalogue_refuses_what_is_no_json_schema(name: str, change: dict[str, Any]) -> None:
    """A keyword that is written wrongly would be one that nobody enforces."""
    broken = documents()
    broken[name] |= change
    with pytest.raises(jsonschema.SchemaError):
        jsonschema.Draft202012Validator.check_schema(broken[name])
    with pytest.raises(BadCatalogue, match=f"{name}: not a JSON Schema"):
        Catalogue(broken)


def test_holdings_classify_an_address_by_whose_it_is() -> None:
    """Where the perpetrator lives and where the victim lives are different classes of fact."""
    kind = published()["nz.isr.police.episode-recorded.v1"]
    roles, held = holdings(kind.shape, episode()["data"])
    assert roles == {"p1": "perpetrator", "p2": "victim"}
    assert Facet("LOC-P") in held["p1"]
    assert Facet("ADDR-V", locates=True) in held["p2"]


def test_holdings_that_are_equal_are_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = published()["nz.isr.police.episode-recorded.v1"].shape
    (_, held), (_, again) = holdings(shape, episode()["data"]), holdings(shape, episode()["data"])
    assert all(again[ref] is facets for ref, facets in held.items())
    monkeypatch.setattr(catalogue, "_SETS_KEPT", 0)
    monkeypatch.setattr(catalogue, "_SETS", {})
    for _ in range(2):  # forgotten as they are made, and still the same
        assert holdings(shape, episode()["data"])[1] == held
        assert len(catalogue._SETS) == 1


def test_holdings_refuse_what_has_no_class() -> None:
    shape = published()["nz.isr.police.episode-recorded.v1"].shape
    for place in ("episode", "people"):
        data = episode()["data"]
        (data[place] if place == "episode" else data[place][0])["surprise"] = "1 Example Street"
        with pytest.raises(KeyError):
            holdings(shape, data)
    data = episode()["data"]
    data["people"][0]["role"] = "king"
    with pytest.raises(KeyError):
        holdings(shape, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("aZ0-é/", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ref", "role", "name"]), inner)
    ),
    max_leaves=6,
)
PLACES = [
    "data/episode/site",
    "data/episode/harms",
    "data/people/0",
    "data/people/0/address",
    "data/episode",
    "data/people",
]


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(PLACES), value=JSON)
def test_both_validators_agree_on_any_data(path: str, value: Any) -> None:
    """The fast validator accepts exactly what the explaining one accepts."""
    catalogue = published()
    kind = catalogue["nz.isr.police.episode-recorded.v1"]
    data = changed(path, value)["data"]
    slow = jsonschema.Draft202012Validator(
        kind.schema,
        registry=catalogue.registry,
        format_checker=FORMATS,
    )
    assert kind.accepts.is_valid(data) == slow.is_valid(data)


def test_every_street_address_is_known_as_one() -> None:
    """A home that nobody looked for would not be known as shared."""

    def leaves(branch: Branch) -> Iterator[tuple[str, Leaf]]:
        for name, child in branch.children.items():
            if isinstance(child, Branch):
                yield from leaves(child)
            else:
                yield name, child

    found = [leaf for kind in published() for leaf in leaves(kind.shape)]

    named = {"address", "safeAddress", "bailAddress", "protectedAddress", "housingAddress", "place"}
    assert {name for name, leaf in found if leaf.address} == named
    assert all(leaf.address for name, leaf in found if name.lower().endswith("address"))
