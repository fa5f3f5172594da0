"""What every adapter must do, whichever agency it speaks for, over the whole registry and catalogue."""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import education, fss, justice, ngo, notice, oranga_tamariki, police
from adapters.adapter import Native
from adapters.registry import ADAPTERS, adapter_of
from schemas.catalogue import Branch, Leaf, published
from schemas.clock import instant_of
from schemas.errors import HubError, NotFound, Problem
from schemas.message import Message
from tests.format_examples import NOW, examples, native, positions, read, replaced, without

DECLARED: dict[str, tuple[Any, str]] = {
    "police": (police, "police"),
    "oranga-tamariki": (oranga_tamariki, "oranga-tamariki"),
    "fss": (fss, "fss"),
    "justice": (justice, "justice"),
    "education": (education, "education"),
    "ngo": (ngo, "ngo.aviva#ivs"),
}
EXAMPLES = [(name, i, e) for name in DECLARED for i, e in enumerate(examples(name))]
EXAMPLE = pytest.mark.parametrize(
    ("name", "example"), [pytest.param(n, e, id=f"{n}-{i}") for n, i, e in EXAMPLES]
)


class Maximal:
    """Data of a schema with every property present and, where the schema allows, every text different."""

    def __init__(self, schema: dict[str, Any], now: datetime) -> None:
        self.count = 0
        self.now = now
        self.data = self._of(schema, schema)

    def _resolved(self, schema: Any, root: Any) -> tuple[Any, Any]:
        while "$ref" in schema:
            base, _, path = schema["$ref"].partition("#")
            root = COMMON if base else root
            target = root
            for step in path.strip("/").split("/"):
                target = target[step]
            schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
        return schema, root

    def _of(self, schema: Any, root: Any) -> Any:
        schema, root = self._resolved(schema, root)
        self.count += 1
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][self.count % len(schema["enum"])]
        match schema["type"]:
            case "object":
                return {name: self._of(inner, root) for name, inner in schema["properties"].items()}
            case "array":
                return [self._of(schema["items"], root) for _ in range(min(2, schema["maxItems"]))]
            case "boolean":
                return self.count % 2 == 0
            case "integer":
                return schema["minimum"] + self.count % (schema["maximum"] - schema["minimum"] + 1)
        return self._text(schema)

    def _text(self, schema: Any) -> str:
        n = self.count
        if schema.get("x-person-ref"):
            return "p1"
        if schema.get("format") == "date":
            return f"20{10 + n % 10}-{n % 12 + 1:02}-{n % 28 + 1:02}"
        if schema.get("format") == "date-time":
            return f"20{10 + n % 10}-{n % 12 + 1:02}-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:07.000Z"
        pattern = schema.get("pattern", "")
        for form, text in (
            (r"^\+", f"+6421{n:06}"),
            ("^[0-9]{4}$", f"{n % 10000:04}"),
            ("^[0-9]{1,5}$", f"{n}"),
            ("^[1-9][0-9]{0,4}$", f"{20000 + n}"),
            ("^[0-9a-f]{64}$", f"{n:064x}"),
            ("^[a-z]", f"ngo.tui{n}"),
            ("^[A-Za-z0-9]", f"X{n:05}"),
        ):
            if pattern.startswith(form):
                return text
        return f"Āta {n} «word»"


COMMON = json.loads((Path(__file__).parents[2] / "schemas/messages/common.v1.json").read_text("utf-8"))


def message_of(kind: Any, data: Any) -> Message:
    return Message(
        source="hub",
        id="3d6f2f0a-8a43-5b61-9a55-0e0e7b3d1f10",
        type=kind.name,
        time="2026-11-22T01:02:03.000Z",
        data=data,
        correlationid="case-7f3a9c10",
        causationid="5c0f6d3e-1d5c-5e53-9b62-0a4f6f1d2c11",
        origin="police",
    )


def maximal(kind: Any) -> Any:
    data = Maximal(dict(kind.schema), NOW).data
    for number, person in enumerate(data.get("people", ())):
        person["ref"] = f"p{number + 1}"
        person["identifiers"] = [
            {"system": system, "value": f"ID{number}{i:03}"}
            for i, system in enumerate(IDENTIFIERS)
            if system != "nhi"
        ]
    return data


IDENTIFIERS = COMMON["$defs"]["identifier"]["properties"]["system"]["enum"]
KINDS = {kind.name: kind for kind in published()}
WRITES = pytest.mark.parametrize("agency", sorted(ADAPTERS))
TYPES = pytest.mark.parametrize("kind", [pytest.param(k, id=k.name) for k in published()])


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def spellings(leaf: str, words: dict[str, str]) -> Iterator[str]:
    """How a text may stand in another format: itself, a word, a day or time on local clocks."""
    yield leaf
    yield json.dumps(leaf)[1:-1]
    yield words.get(leaf, leaf)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", leaf):
        year, month, day = leaf.split("-")
        yield f"{year}{month}{day}"
        yield f"{day}/{month}/{year}"
        yield f"{day}-{month}-{year}"
    if re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", leaf):
        local = instant_of(leaf).astimezone(notice.NEW_ZEALAND)
        yield local.isoformat()
        yield local.strftime("%Y%m%d%H%M%S")
        yield local.strftime("%d/%m/%Y %H:%M")


def restored(content: bytes, vocabulary: notice.Vocabulary) -> Any:
    """The data of a notice: the inverse of `notice.write`, to compare with what it was given."""
    body = json.loads(content)
    roles = {word: role for role, word in vocabulary.roles.items()}
    data = utc(body.get("event", {}))
    if "about" in body:
        data["people"] = [utc(p) for p in body["about"]]
    for person in data.get("people", ()):
        if "role" in person:
            person["role"] = roles.get(person["role"], person["role"])
        for system, field in vocabulary.own.items():
            if field in person:
                person.setdefault("identifiers", []).append({"system": system, "value": person.pop(field)})
    return data


def utc(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: utc(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [utc(v) for v in value]
    if key == "at" or key.endswith("At"):
        return instant_of(value).isoformat()
    return value


def unordered(data: Any) -> Any:
    data = utc(copy.deepcopy(data))
    for person in data.get("people", ()):
        if isinstance(person, dict) and "identifiers" in person:
            person["identifiers"] = sorted(person["identifiers"], key=lambda i: json.dumps(i, sort_keys=True))
            if not person["identifiers"]:
                del person["identifiers"]
    return data


def test_registry_has_an_adapter_for_each_of_the_ten_agencies() -> None:
    agencies = "acc corrections education fss health justice msd ngo oranga-tamariki police"
    assert agencies.split() == sorted(ADAPTERS)


@pytest.mark.parametrize(
    ("party", "agency"),
    [
        ("police", "police"),
        ("oranga-tamariki", "oranga-tamariki"),
        ("corrections#em", "corrections"),
        ("health.waikato", "health"),
        ("gp", "health"),
        ("gp.example-practice", "health"),
        ("ngo.aviva#ivs", "ngo"),
        ("ngo.manaaki#pos", "ngo"),
        ("fss", "fss"),
    ],
)
def test_registry_finds_the_adapter_of_a_party(party: str, agency: str) -> None:
    assert adapter_of(party) is ADAPTERS[agency]


@pytest.mark.parametrize("party", ["", "polices", "aviva", "#em", ".ngo", "Police", "hub"])
def test_registry_knows_no_other_party(party: str) -> None:
    with pytest.raises(NotFound):
        adapter_of(party)


@TYPES
def test_maximal_data_is_what_the_catalogue_publishes(kind: Any) -> None:
    """The other tests write what really may arrive: every property of the schema, and valid."""
    event = message_of(kind, maximal(kind)).to_json()
    del event["origin"]
    published().validate({**event, "source": "urn:isr:hub"}, NOW)


# Two requests go in a format of the recipient's own that has one subject: a FHIR Flag, which by design
# points at a record and tells nothing else, and a row of MSD's file. They carry the event, and of the people
# what finds the one person.
ONE_SUBJECT = {
    ("health", "nz.isr.health.alert-requested.v1"): "alert",
    ("msd", "nz.isr.msd.entitlement-review-requested.v1"): "review",
}


def about_it(agency: str, kind: Any, data: Any) -> Any:
    event = ONE_SUBJECT.get((agency, kind.name))
    return data[event] if event else data


@TYPES
@WRITES
def test_adapter_writes_every_value_of_every_type(agency: str, kind: Any) -> None:
    adapter, data = ADAPTERS[agency], maximal(kind)
    message = message_of(kind, data)
    written = adapter.write(message, agency)
    assert written == adapter.write(message_of(kind, json.loads(json.dumps(data))), agency)
    everything = b"\n".join([written.content, *written.companions.values()]).decode("utf-8")
    words = dict(police.VOCABULARY.roles)
    missing = [
        leaf
        for leaf in leaves(about_it(agency, kind, data))
        if isinstance(leaf, str)
        and leaf not in ("p1", "p2")
        and leaf not in IDENTIFIERS  # the field that shows an identifier says which it is
        and not any(spelling in everything for spelling in spellings(leaf, words))
    ]
    assert missing == []
    assert not re.search(r"Āta|X0|\+64|[^A-Za-z0-9._-]", written.name)


@TYPES
@pytest.mark.parametrize("name", sorted(DECLARED))
def test_notice_gives_back_exactly_the_data_it_was_given(name: str, kind: Any) -> None:
    adapter, data = DECLARED[name][0], maximal(kind)
    written = adapter.write(message_of(kind, data), name)
    assert unordered(data) == unordered(restored(written.content, adapter.VOCABULARY))


@WRITES
@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(KINDS)), rate=st.integers(0, 9), random=st.randoms(use_true_random=False))
def test_adapter_writes_whatever_is_left_of_a_message(
    agency: str, name: str, rate: int, random: Random
) -> None:
    """Any classified property, required ones and people included, may have been withheld."""
    kind = KINDS[name]
    data = minimised(kind.shape, maximal(kind), random, rate)
    written = ADAPTERS[agency].write(message_of(kind, data), agency)
    if agency in DECLARED:
        assert unordered(data) == unordered(restored(written.content, DECLARED[agency][0].VOCABULARY))


def minimised(shape: Leaf | Branch, value: Any, random: Random, rate: int) -> Any:
    """*value* without some of its classified properties; what has a class stays whole or goes whole."""
    if isinstance(shape, Leaf):
        return value
    if shape.array:
        one = replace(shape, array=False)
        return [minimised(one, v, random, rate) for v in value if random.randrange(10) >= rate]
    return {
        name: minimised(shape.children[name], inner, random, rate)
        for name, inner in value.items()
        if random.randrange(10) >= rate
    }


@pytest.mark.parametrize("name", sorted(DECLARED))
@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), rate=st.integers(1, 9), random=st.randoms(use_true_random=False))
def test_notice_writes_even_what_no_minimisation_leaves(
    name: str, kind: str, rate: int, random: Random
) -> None:
    """Half a name, an identifier without its value: a notice depends on no shape at all."""
    data = thinned(maximal(KINDS[kind]), random, rate)
    written = DECLARED[name][0].write(message_of(KINDS[kind], data), name)
    assert unordered(data) == unordered(restored(written.content, DECLARED[name][0].VOCABULARY))


def thinned(value: Any, random: Random, rate: int) -> Any:
    if isinstance(value, dict):
        return {k: thinned(v, random, rate) for k, v in value.items() if random.randrange(10) >= rate}
    if isinstance(value, list):
        return [thinned(v, random, rate) for v in value if random.randrange(10) >= rate]
    return value


@WRITES
def test_adapter_writes_a_message_that_has_nothing_left(agency: str) -> None:
    for kind in KINDS.values():
        bare = Message(source="hub", id="3d6f2f0a", type=kind.name, time="2026-11-22T01:02:03.000Z", data={})
        assert ADAPTERS[agency].write(bare, agency).content


def test_catalogue_names_every_instant_at() -> None:
    """`notice.write` recognises an instant by its property's name."""
    for kind in KINDS.values():
        for path in positions(kind.schema):
            if path[-1] in ("format", "$ref"):
                said = str(at_path(kind.schema, path))
                named = str(path[-2])
                assert (said.lower().endswith(("date-time", "instant"))) == (
                    named == "at" or named.endswith("At")
                )


def at_path(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@EXAMPLE
def test_adapter_reads_the_same_bytes_to_the_same_messages(name: str, example: Any) -> None:
    adapter, party = DECLARED[name]
    first = read(adapter, example, party)
    assert first.messages == read(adapter, example, party).messages
    assert len({m.id for m in first.messages}) == len(first.messages)


HOSTILE = [
    None, "", " ", "x", 0, 1, -1, 10**30, 1.5, True, False, [], {}, [None], {"a": {}}, "é" * 201, "p1",
    "2026-13-01", "+64", "\u0007",
]  # fmt: skip


@EXAMPLE
def test_adapter_gives_only_what_the_catalogue_accepts_when_any_value_is_wrong(
    name: str, example: Any
) -> None:
    """What is wrong is found at its native position, by the adapter, and not by the catalogue afterwards."""
    adapter, party = DECLARED[name]
    for path in positions(example):
        for bad in HOSTILE:
            try:
                read(adapter, replaced(example, path, bad), party)
            except HubError as error:
                assert type(error).__name__ == "Unreadable", (path, bad, error.problems)  # noqa: PT017
                assert error.problems  # noqa: PT017
                assert all(problem.fix for problem in error.problems)  # noqa: PT017


@EXAMPLE
def test_adapter_gives_only_what_the_catalogue_accepts_when_any_field_is_absent(
    name: str, example: Any
) -> None:
    adapter, party = DECLARED[name]
    for path in positions(example):
        try:
            read(adapter, without(example, path), party)
        except HubError as error:
            assert type(error).__name__ == "Unreadable", (path, error.problems)  # noqa: PT017


@EXAMPLE
def test_adapter_never_repeats_a_value_of_the_input(name: str, example: Any) -> None:
    adapter, party = DECLARED[name]
    secret = "Zzyzx 42"
    for path in positions(example):
        for spoiled in (replaced(example, path, secret), {**example, secret: secret}):
            said: list[Problem] = []
            try:
                reading = adapter.read(native(spoiled), party, NOW)
                said = [*reading.unplaced, *(p for r in reading.rejected for p in r.error.problems)]
                said += [Problem("", r.error.detail, r.raw.name) for r in reading.rejected]
            except HubError as error:
                said = [*error.problems, Problem("", error.detail)]
            assert not any("Zzyzx" in problem.line() for problem in said)


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_adapter_reads_the_reports_of_any_agency_in_its_own_vocabulary(name: str) -> None:
    adapter, party = DECLARED[name]
    form = adapter.FORMAT
    for example in (e for e in examples("notice") if "form" in e):
        listed, label = form.records[example["form"]].people
        own = {
            form.kind: example["form"],
            **{k: v for k, v in example.items() if k not in ("form", "people")},
        }
        own.pop("reference", None)  # each agency's number of its record has a form of its own
        own[listed] = [{label: p["person"], "role": "Witness"} for p in example["people"]]
        reading = read(adapter, own, party)
        assert (reading.rejected, reading.unplaced, len(reading.messages)) == ([], [], 1)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["5F", "sam-list"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["form", "kind", "batch", "cases", "people"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=60) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_adapter_reads_or_refuses_any_bytes(content: bytes) -> None:
    for adapter, party in DECLARED.values():
        try:
            reading = adapter.read(Native(content, "application/json"), party, NOW)
        except HubError:
            continue
        assert reading.messages == []
