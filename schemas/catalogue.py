"""The catalogue of message types: a JSON Schema 2020-12 per type and major version, every property
classified.

The schema carries the classification: `x-data-class` names the data class of a property (or, by the role of
the person it is about, several), `x-about` says whose it is, `x-reduced` that it stays in the class's reduced
view, `x-locates` that it reveals a place, `x-free-text` that a person wrote it. Whatever stands below a
classified property has that class. A schema with an unclassified property does not load.

Two validators read the same files: jsonschema-rs accepts or rejects (4 µs a message), jsonschema explains a
rejection by JSON Pointer.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, cast

import jsonschema
import jsonschema_rs
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from schemas.classes import CASE, CLASSES, ROLES, Facet
from schemas.clock import instant_of
from schemas.coherence import CLOCK_SKEW, Rules
from schemas.errors import BadCatalogue, InvalidMessage, Problem, UnknownType

MAX_DEPTH = 24
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


# jsonschema checks formats only where optional packages are installed; these are the ones we use.
FORMATS = jsonschema.FormatChecker(formats=("date",))
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")


@FORMATS.checks("date-time", raises=ValueError)
def _is_instant(value: object) -> bool:
    return not isinstance(value, str) or (bool(_RFC3339.fullmatch(value)) and instant_of(value) is not None)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A classified property: its facet by the role of the person it is about. *identifiers* marks an
    ID-XREF value, *person_ref* a reference to a person of the same message, *address* a street address.
    """

    facets: Mapping[str, Facet]
    reduced: bool = False
    identifiers: bool = False
    person_ref: bool = False
    address: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """An object, or an array of objects, with classified properties below.

    *about* is "" (as above), "self" (the object is a person and has `ref` and `role`) or the property that
    holds the reference of the person.
    """

    children: Mapping[str, "Leaf | Branch"]
    array: bool = False
    about: str = ""
    _held: dict[str, "dict[str, int | Branch]"] = field(default_factory=dict, compare=False, repr=False)

    def held(self, role: str) -> "dict[str, int | Branch]":
        """What each property says about somebody in *role*: the bit of its facet, or the branch to look
        into. Made when it is first asked for.
        """
        found = self._held.get(role)
        if found is None:
            found = self._held[role] = {
                name: child if isinstance(child, Branch) else _bit(child.facets[role])
                for name, child in self.children.items()
            }
        return found


@dataclass(frozen=True, slots=True)
class MessageType:
    """One published type. *audience* is `table` (every party at the case's table is considered) or
    `addressee` (only `data.to`); *senders* are the agencies that may send it, or `any`; *matter* adds the
    classes in `people` that the message is about.
    """

    name: str
    title: str
    audience: str
    purpose: str
    senders: frozenset[str]
    matter: frozenset[str]
    opens_case: bool
    shape: Branch
    schema_id: str
    accepts: Any
    rules: Rules
    schema: Mapping[str, Any]


class Catalogue:
    """All published message types, loaded and checked once."""

    def __init__(self, documents: Mapping[str, Mapping[str, Any]], *, test_numbers: bool = True) -> None:
        """*documents*: file name without `.json`, to schema; *test_numbers*: whether NHI numbers of the
        testing range are taken. Raises `BadCatalogue` with file and property.
        """
        for name, document in sorted(documents.items()):
            try:
                jsonschema_rs.meta.validate({**document, "$schema": _DRAFT})
            except jsonschema_rs.ValidationError as error:
                raise BadCatalogue(f"{name}: not a JSON Schema: {error.message}") from error
        self._test_numbers = test_numbers
        self._refs: dict[tuple[str, str], tuple[Mapping[str, Any], str]] = {}
        self.registry: Registry[Any] = Registry().with_resources(
            (str(d["$id"]), Resource.from_contents(d, default_specification=DRAFT202012))
            for d in documents.values()
        )
        rust = jsonschema_rs.Registry([(str(d["$id"]), dict(d)) for d in documents.values()])
        self._rust = rust
        self._types: dict[str, MessageType] = {}
        for name, document in sorted(documents.items()):
            if name.split(".")[0] in ("common", "envelope"):
                continue
            event, _, version = name.rpartition(".")
            shape = self._shape(document, name, str(document["$id"]))
            if not isinstance(shape, Branch):
                raise BadCatalogue(f"{name}: data must be an object")
            self._types[f"nz.isr.{event}.{version}"] = MessageType(
                name=f"nz.isr.{event}.{version}",
                title=str(document["title"]),
                audience=_one_of(document, "x-audience", ("table", "addressee"), name),
                purpose=str(document["x-purpose"]),
                senders=frozenset(document["x-senders"]),
                matter=frozenset(document.get("x-matter", ())),
                opens_case=bool(document.get("x-opens-case", False)),
                shape=shape,
                schema_id=str(document["$id"]),
                accepts=self._fast(document),
                rules=Rules(document, str(document["$id"]), self._resolve),
                schema=document,
            )
        self._envelope = documents["envelope.v1"]
        self._accepts_envelope = self._fast(self._envelope)

    def _fast(self, document: Mapping[str, Any]) -> Any:
        return jsonschema_rs.Draft202012Validator(dict(document), validate_formats=True, registry=self._rust)

    def __iter__(self) -> Iterator[MessageType]:
        return iter(self._types.values())

    def __getitem__(self, name: str) -> MessageType:
        """The type *name*; raises `UnknownType`."""
        try:
            return self._types[name]
        except KeyError:
            raise UnknownType(
                "the message's type is not published",
                Problem(
                    "/type",
                    "no schema for this type and major version",
                    "see the list of types in docs/messages.md",
                ),
            ) from None

    def validate(self, message: Any, now: datetime) -> MessageType:
        """The type of *message* (decoded JSON), when envelope and data meet their schemas and their
        references hold.

        Raises `InvalidMessage` with one `Problem` per finding, or `UnknownType`. Findings name places and
        rules, never values.
        """
        if not isinstance(message, dict):
            raise InvalidMessage(
                "a message is a JSON object",
                Problem("", "not a JSON object", "send a CloudEvents 1.0 object"),
            )
        if not self._accepts_envelope.is_valid(message):
            raise InvalidMessage("the envelope is not valid", *self._explain(self._envelope, message, ""))
        kind = self[message["type"]]
        data = message["data"]
        if not kind.accepts.is_valid(data):
            raise InvalidMessage("the data is not valid", *self._explain(kind.schema, data, "/data"))
        problems = kind.rules.broken(data, now, test_numbers=self._test_numbers)
        if instant_of(message["time"]) > now + CLOCK_SKEW:
            problems.append(Problem("/time", "lies in the future", "send the time at which it happened"))
        if problems:
            raise InvalidMessage("the data contradicts itself", *problems)
        return kind

    def _explain(self, schema: Mapping[str, Any], value: Any, prefix: str) -> list[Problem]:
        validator = jsonschema.Draft202012Validator(schema, registry=self.registry, format_checker=FORMATS)
        found = sorted(validator.iter_errors(value), key=lambda e: (len(e.absolute_path), str(e.json_path)))
        problems: list[Problem] = []
        for error in found[:20]:
            pointer = prefix + "".join(
                f"/{str(p).replace('~', '~0').replace('/', '~1')}" for p in error.absolute_path
            )
            problems.extend(_problem(error, pointer))
        # The fast validator asserts every format; the explaining one only those it has code for.
        return list(dict.fromkeys(problems)) or [
            Problem(prefix, "does not meet the schema", "compare it with the published example of its type")
        ]

    def _resolve(self, schema: Mapping[str, Any], base: str) -> tuple[Mapping[str, Any], str]:
        """*schema* with `$ref` followed; keywords beside a `$ref` stay, as in 2020-12."""
        if "$ref" not in schema:
            return schema, base
        merged = dict(schema)
        while "$ref" in merged:
            contents, base = self._contents(merged.pop("$ref"), base)
            merged = {**contents, **merged}
        return merged, base

    def _contents(self, ref: str, base: str) -> tuple[Mapping[str, Any], str]:
        """What *ref* stands for in the schema with the id *base*, and the id of the schema that it is in."""
        found = self._refs.get((ref, base))
        if found is None:
            resolved = self.registry.resolver(base_uri=base).lookup(ref)
            found = self._refs[ref, base] = resolved.contents, resolved.resolver._base_uri or base
        return found

    def _shape(self, raw: Mapping[str, Any], where: str, base: str) -> Leaf | Branch:
        schema, base = self._resolve(raw, base)
        if _has_number(schema):
            raise BadCatalogue(f"{where}: floating numbers have no canonical bytes; use an integer")
        if "x-data-class" in schema:
            return self._leaf(schema, where, base)
        if "items" in schema:
            inner = self._shape(schema["items"], where + "[]", base)
            if isinstance(inner, Branch):
                return Branch(inner.children, array=True, about=inner.about)
        if "properties" in schema:
            if schema.get("unevaluatedProperties", True) is not False:
                raise BadCatalogue(f"{where}: must say unevaluatedProperties: false")
            children = {n: self._shape(s, f"{where}.{n}", base) for n, s in schema["properties"].items()}
            about = str(schema.get("x-about", ""))
            if about and about != "self" and about not in children:
                raise BadCatalogue(f"{where}: x-about names {about}, which is no property of it")
            if about == "self" and not {"ref", "role"} <= set(children):
                raise BadCatalogue(f"{where}: a person needs ref and role")
            return Branch(children, about=about)
        raise BadCatalogue(f"{where}: has no x-data-class; classify it, or nobody may ever receive it")

    def _leaf(self, schema: Mapping[str, Any], where: str, base: str) -> Leaf:
        named = schema["x-data-class"]
        by_role = (
            dict.fromkeys((CASE, *ROLES), named)
            if isinstance(named, str)
            else {role: named.get(role, named.get("*")) for role in (CASE, *ROLES)}
        )
        for name in by_role.values():
            if name not in CLASSES:
                raise BadCatalogue(f"{where}: {name} is not a data class")
        text, locates = bool(schema.get("x-free-text")), bool(schema.get("x-locates"))
        inner, _ = self._resolve(schema.get("items", {}), base)
        return Leaf(
            facets={role: Facet(n, locates or CLASSES[n].locates, text) for role, n in by_role.items()},
            reduced=bool(schema.get("x-reduced")),
            identifiers=bool(schema.get("x-identifier") or inner.get("x-identifier")),
            person_ref=bool(schema.get("x-person-ref") or inner.get("x-person-ref")),
            address="line1" in schema.get("properties", ()),
        )


def holdings(shape: Branch, data: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, frozenset[Facet]]]:
    """Who is in *data* and what it says about each: (ref → role, ref or "" for the case → facets present)."""
    roles = {p["ref"]: p["role"] for p in data.get("people", ())}
    present = {"": 0, **dict.fromkeys(roles, 0)}
    _collect(shape, data, "", roles, present)
    return roles, {ref: _facets(held) for ref, held in present.items()}


def _collect(branch: Branch, value: Any, ref: str, roles: dict[str, str], present: dict[str, int]) -> None:
    about = branch.about
    for item in value if branch.array else (value,):
        whose = about_whom(branch, item, ref) if about else ref
        children = branch.held(roles.get(whose, CASE))
        held = present.setdefault(whose, 0)
        for name in item:
            child = children[name]
            if isinstance(child, int):
                held |= child
            else:
                _collect(child, item[name], whose, roles, present)
        present[whose] |= held


# The facets of all published types, one bit each, and the sets of them that were met: one object for each,
# so that whoever remembers something by it hashes it once.
_FACETS: list[Facet] = []
_SETS: dict[int, frozenset[Facet]] = {}
_SETS_KEPT = 10_000
_BITS = threading.Lock()


def _bit(facet: Facet) -> int:
    with _BITS:  # two threads must not give two facets one bit
        if facet not in _FACETS:
            _FACETS.append(facet)
        return 1 << _FACETS.index(facet)


def _facets(held: int) -> frozenset[Facet]:
    found = _SETS.get(held)
    if found is None:
        if len(_SETS) >= _SETS_KEPT:
            _SETS.clear()
        found = frozenset(facet for n, facet in enumerate(_FACETS) if held >> n & 1)
        found = _SETS.setdefault(held, found)
    return found


def about_whom(branch: Branch, item: Mapping[str, Any], above: str) -> str:
    """The ref of the person that *item* is about; *above* when it does not say."""
    if not branch.about:
        return above
    return str(item["ref"] if branch.about == "self" else item.get(branch.about, above))


_SAY = {
    "required": ("lacks a required property", "add it"),
    "enum": ("is not one of the allowed codes", "use a code of its list"),
    "const": ("must have its fixed value", "send the fixed value"),
    "pattern": ("does not have the required form", "see the pattern in the schema"),
    "format": ("does not have the required format", "dates are YYYY-MM-DD, instants RFC 3339 with an offset"),
    "type": ("has the wrong JSON type", "see the type in the schema"),
    "maxLength": ("is too long", "shorten it"),
    "minLength": ("is empty", "leave it out or fill it"),
    "maxItems": ("has too many items", "send fewer, in several messages"),
    "minItems": ("has too few items", "add what is missing"),
    "minimum": ("is too small", "see the range in the schema"),
    "maximum": ("is too large", "see the range in the schema"),
}


def _problem(error: jsonschema.ValidationError, pointer: str) -> Iterator[Problem]:
    keyword, rule, instance = (
        str(error.validator),
        cast("Any", error.validator_value),
        cast("Any", error.instance),
    )
    if keyword == "required":
        # Names of the schema, not of the input.
        for name in (n for n in rule if n not in instance):
            yield Problem(f"{pointer}/{name}", "is required and missing", "add it")
    elif keyword in ("unevaluatedProperties", "additionalProperties"):
        known = set(cast("Any", error.schema).get("properties", {}))
        for name in sorted(set(instance) - known):
            # A property name is the sender's vocabulary, yet a broken sender may put a value there: show it
            # only when it looks like a name.
            shown = (
                name if name.isascii() and name.isidentifier() and len(name) <= 40 else "(unreadable name)"
            )
            yield Problem(
                f"{pointer}/{shown}",
                "is not a property of this message",
                "remove it, or ask for a new version of the type",
            )
    else:
        detail, fix = _SAY.get(keyword, ("does not meet the schema", "see the schema"))
        if keyword == "enum":
            fix = "use one of: " + ", ".join(str(v) for v in rule[:20])
        yield Problem(pointer, detail, fix)


def _has_number(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "number" or (isinstance(kind, list) and "number" in kind)


def _one_of(document: Mapping[str, Any], key: str, allowed: tuple[str, ...], name: str) -> str:
    value = str(document.get(key))
    if value not in allowed:
        raise BadCatalogue(f"{name}: {key} must be one of {', '.join(allowed)}")
    return value


@cache
def published(*, test_numbers: bool = True) -> Catalogue:
    """The catalogue of the schemas that come with the hub."""
    folder = files("schemas") / "messages"
    return Catalogue(
        {
            entry.name.removesuffix(".json"): json.loads(entry.read_text(encoding="utf-8"))
            for entry in folder.iterdir()
            if entry.name.endswith(".json")
        },
        test_numbers=test_numbers,
    )


__all__ = ["Branch", "Catalogue", "Leaf", "MessageType", "about_whom", "holdings", "published"]
