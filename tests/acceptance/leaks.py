"""Looks for people in what the hub leaves behind: which texts of the invented population stand where.

Independent of the policy: who may have what is worked out here from three plain sources, the population
(whose text it is), the schemas (which classes carry such a text), the clauses (which classes are granted).
"""

import base64
import binascii
import csv
import io
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from adapters.adapter import Native
from consent.agreement import Agreements, Party
from schemas.catalogue import published

PERPETRATOR_SIDE = ("COR", "NGOP")
# Where and how to reach somebody, and the word that proves a caller is safe.
WHEREABOUTS = frozenset({"address", "safe-house", "phone", "school", "code-word"})
ISSUED_BY = {
    "police-person": "police",
    "nhi": "health",
    "prn": "corrections",
    "cyras": "oranga-tamariki",
    "swn": "msd",
    "acc-claimant": "acc",
    "learner": "education",
    "justice-person": "justice",
}
ADDRESSED = frozenset(kind.name for kind in published() if kind.audience == "addressee")
MAY_USE_NHI = ("health", "gp")
_WORD = re.compile(r"[^\W_]+")
_BYTES = re.compile(rb"[A-Za-z0-9\x80-\xff]+")
_ENCODED = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")
_DIGEST = re.compile(r"[0-9a-f]+")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_NUMBER = re.compile(r"\d(?:[ ().-]{0,2}\d){6,}")


class Fact(NamedTuple):
    """A *text* about somebody: *kind* says what it is, *owners* whose it is (person keys; a number's kind is
    followed by who issued it)."""

    text: str
    kind: str
    owners: frozenset[str]
    families: frozenset[str]


@dataclass(frozen=True, slots=True)
class Leak:
    """A *fact* where it does not belong; *where* names the party or the place, *rule* what forbids it."""

    rule: str
    where: str
    file: str
    fact: Fact | None = None

    @property
    def kind(self) -> str:
        """What kind of fact it is, "" for a file as a whole."""
        return self.fact.kind if self.fact else ""

    def __str__(self) -> str:
        about = f" ({self.fact.kind} of {', '.join(sorted(self.fact.owners))})" if self.fact else ""
        return f"{self.rule}: {self.where}/{self.file}{about}"


class Received(NamedTuple):
    """A file as *party* received it; its name without the suffix is the id of the disclosure."""

    party: str
    name: str
    content: bytes

    @property
    def disclosure(self) -> str:
        return self.name.partition(".")[0]


def received_files(folder: Path) -> list[Received]:
    """Every file that any agency received in the demo at *folder*."""
    return [
        Received(file.parts[-3], file.name, file.read_bytes())
        for file in sorted(folder.glob("agencies/*/received/*"))
    ]


# The population


@dataclass
class Invented:
    """The invented population, as far as a search for leaks needs it."""

    people: dict[str, dict[str, Any]]
    families: dict[str, dict[str, Any]]
    roles: dict[str, set[str]]
    low: frozenset[str]  # families of which every episode was assessed as low
    hard_cases: dict[str, list[str]]
    facts: list[Fact] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> "Invented":
        """Of the demo at *folder*."""
        said = json.loads((folder / "population.json").read_text(encoding="utf-8"))
        families = {family["key"]: family for family in said["families"]}
        people = {person["key"]: person for person in said["people"]}
        roles = {key: set(person["roles"]) for key, person in people.items()}
        for family in families.values():
            roles[family["perpetrator"]].add("perpetrator")
            roles[family["victim"]].add("victim")
            for key in family["people"]:
                if not roles[key]:
                    roles[key].add("child" if ".c" in key else "associate")
        above = {e["family"] for e in (*said["episodes"], *said["releases"]) if e["risk"] != "low"}
        self = cls(people, families, roles, frozenset(families.keys() - above), said["hardCases"])
        self._gather(said)
        return self

    def is_protected(self, owner: str) -> bool:
        """Whether *owner* is anybody else than a perpetrator who was never anything but that."""
        return self.roles.get(owner, {"victim"}) != {"perpetrator"}

    def called(self, family: str, given: str) -> list[str]:
        """Everybody who goes by that name somewhere."""
        return self._called.get((fold(family), fold(given)), [])

    @cached_property
    def _called(self) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key, person in self.people.items():
            for name in (person["name"], *person["spellings"].values()):
                found[fold(name["family"]), fold(name["given"])].append(key)
        return found

    def _gather(self, said: Mapping[str, Any]) -> None:
        owners: dict[tuple[str, str], set[str]] = defaultdict(set)
        families: dict[tuple[str, str], set[str]] = defaultdict(set)

        def add(kind: str, text: str | None, owner: str, belongs: Iterable[str]) -> None:
            if text:
                owners[kind, text].add(owner)
                families[kind, text].update(belongs)

        for key, person in self.people.items():
            own = person["families"]
            add("address", person["home"]["line1"], key, own)
            if person["former_home"]:
                add("address", person["former_home"]["line1"], key, own)
            if person["safe_address"]:
                line = person["safe_address"]["line1"]
                add("safe-house", line, key, own)
                add("safe-house", line.split(", ")[-1], key, own)
            add("safe-house", person["refuge"], key, own)
            for phone in person["phones"]:
                add("phone", phone["number"], key, own)
            if person["school"]:
                add("school", person["school"]["name"], key, own)
            if person["safe_contact"]:
                add("code-word", person["safe_contact"]["code_word"], key, own)
            for system, value in person["identifiers"].items():
                add(f"number:{ISSUED_BY[system]}", value, key, own)
            for second in person["second_records"]:
                add(f"number:{second['agency']}", second["identifier"], key, own)
            for claim in person["claims"]:
                add("number:acc", claim["reference"], key, own)
            if person["care"] and person["care"]["social_worker"]:
                add("worker", person["care"]["social_worker"]["phone"], key, own)
            for name in (person["name"], *person["spellings"].values()):
                for part in (name["family"], name["given"]):
                    add("name", part, key, own)
        for family in self.families.values():
            for order in family["orders"]:
                if order["protected_address"]:
                    for key in order["protected"]:
                        add("address", order["protected_address"]["line1"], key, [family["key"]])
                add("number:justice", order["court_file"], order["restrained"], [family["key"]])
        for episode in said["episodes"]:
            family = episode["family"]
            # A place that is nobody's home belongs to nobody, and then to everybody at risk.
            if ("address", episode["place"]["line1"]) not in owners:
                add("address", episode["place"]["line1"], "(a place)", [family])
            families["address", episode["place"]["line1"]].add(family)
            add("number:police", episode["event_number"], "(an event)", [family])
            if episode["arrest"]:
                hearing, arrested = episode["arrest"]["hearing"], episode["arrest"]["person"]
                add("number:justice", hearing["court_file"], arrested, [family])
                if hearing["bail_address"]:
                    add("address", hearing["bail_address"]["line1"], arrested, [family])
        for release in said["releases"]:
            add("address", release["address"]["line1"], release["person"], [release["family"]])
        self.facts = [
            Fact(text, kind, frozenset(whose), frozenset(families[kind, text]))
            for (kind, text), whose in owners.items()
        ]


# The search


def fold(text: str) -> str:
    """*text* without case, macrons and runs of space: nobody hides behind spelling."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(text.casefold().split())


class Search:
    """Finds any of *facts* in a text. A word of each, the rarest, leads to it: thousands of texts cost no
    more than one pass over the words."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._by_word: dict[str, list[tuple[re.Pattern[str], Fact]]] = defaultdict(list)
        self._by_phone: dict[str, list[Fact]] = defaultdict(list)
        listed = []
        common: dict[str, int] = defaultdict(int)
        for fact in facts:
            if fact.text.startswith("+64"):
                self._by_phone[fact.text.removeprefix("+64")].append(fact)
                continue
            words = _WORD.findall(fold(fact.text))
            listed.append((fact, words))
            for word in set(words):
                common[word] += 1
        for fact, words in listed:
            lead = min(words, key=lambda word: (common[word], -len(word)))
            pattern = re.compile(rf"(?<!\w){re.escape(fold(fact.text))}(?!\w)")
            self._by_word[lead].append((pattern, fact))
        self._lengths = sorted({len(number) for number in self._by_phone})

    def find(self, content: bytes | str) -> list[Fact]:
        """Every fact in *content*, as it stands or behind JSON's escapes or base64."""
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        if "\\u" in text:
            text += " " + _ESCAPED.sub(lambda m: chr(int(m[1], 16)), text)
        for run in _ENCODED.findall(text):
            if _DIGEST.fullmatch(run):
                continue
            try:
                text += " " + base64.b64decode(run, validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError):
                continue
        folded = fold(text)
        found = [
            fact
            for word in set(_WORD.findall(folded)) & self._by_word.keys()
            for pattern, fact in self._by_word[word]
            if pattern.search(folded)
        ]
        for run in _NUMBER.findall(text):
            digits = re.sub(r"\D", "", run)
            for length in self._lengths:
                for start in range(len(digits) - length + 1):
                    found += self._by_phone.get(digits[start : start + length], ())
        return list(dict.fromkeys(found))


def left_in(raw: bytes, facts: Iterable[Fact]) -> list[Fact]:
    """Every one of *facts* that stands, as it was written, in the bytes of a file that is no text.

    Among millions of random bytes, four letters in a row are not a name; shorter texts are not looked for.
    """
    words = set(_BYTES.findall(raw))
    return [
        fact
        for fact in facts
        if len(said := fact.text.encode()) > 4 and words.issuperset(_BYTES.findall(said)) and said in raw
    ]


class Told:
    """From when the hub could know that a perpetrator's address or number is also that of somebody at risk:
    from the first submission that said so. What nobody ever told it, it cannot withhold."""

    def __init__(self, invented: Invented, submissions: Iterable[tuple[str, Native, Sequence[str]]]) -> None:
        self._invented = invented
        self._order: dict[str, int] = {}
        self._since: dict[Fact, int] = {}
        self._conflict: dict[tuple[str, str], int] = {}
        shared = [
            fact
            for fact in invented.facts
            if fact.kind in WHEREABOUTS and len({invented.is_protected(owner) for owner in fact.owners}) == 2
        ]
        search = Search(shared)
        for n, (_, native, ids) in enumerate(submissions):
            self._order.update(dict.fromkeys(ids, n))
            for fact in search.find(native.content):
                if fact not in self._since and self._is_said(fact, native):
                    self._since[fact] = n
            for party, family in self._conflicts(native):
                self._conflict.setdefault((party, family), n)

    def conflicted(self, fact: Fact, party: str, message: str) -> bool:
        """Whether the worker of *party* who knows the family was known when *message* was decided."""
        since = [self._conflict.get((party, family), len(self._order)) for family in fact.families]
        return min(since, default=len(self._order)) <= self._order[message]

    def protects(self, fact: Fact, message: str) -> bool:
        """Whether *fact* was known to be of somebody at risk when *message* was decided."""
        if not any(self._invented.is_protected(owner) for owner in fact.owners):
            return False
        if all(self._invented.is_protected(owner) for owner in fact.owners):
            return True
        return self._since.get(fact, len(self._order)) <= self._order[message]

    def _conflicts(self, native: Native) -> Iterator[tuple[str, str]]:
        """(party, family) for every conflict of interest that a list in *native* names."""
        if b'"conflicts"' not in native.content:
            return
        for case in json.loads(native.content).get("cases", ()):
            for party in case.get("conflicts", ()):
                for family, given, _ in _people_in(case["people"]):
                    for key in self._invented.called(family, given):
                        for known in self._invented.people[key]["families"]:
                            if self._invented.families[known]["conflict"] == party:
                                yield party, known

    def _is_said(self, fact: Fact, native: Native) -> bool:
        """Whether *native* gives *fact* for somebody at risk, or as the place of what happened to her at
        home."""
        at_risk = {owner for owner in fact.owners if self._invented.is_protected(owner)}
        if native.media_type == "text/csv":
            rows = csv.DictReader(io.StringIO(native.content.decode()))
            said = [
                (row["FAMILY NAME"], row["GIVEN NAMES"], json.dumps(row, ensure_ascii=False)) for row in rows
            ]
        else:
            whole = json.loads(native.content)
            if whole.get("location", {}).get("street") == fact.text and any(
                self._invented.people[owner]["home"]["line1"] == fact.text for owner in at_risk
            ):
                return True
            said = list(_people_in(whole))
        return any(
            at_risk.intersection(self._invented.called(family, given)) and Search([fact]).find(text)
            for family, given, text in said
        )


def _people_in(value: Any) -> Iterator[tuple[str, str, str]]:
    """(family name, given names, everything said) of every person in a JSON *value*."""
    if isinstance(value, dict):
        name = value.get("name")
        if isinstance(name, dict):
            family, given = name.get("family", name.get("surname")), name.get("given", name.get("forenames"))
            yield str(family), str(given), json.dumps(value, ensure_ascii=False)
        for inner in value.values():
            yield from _people_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _people_in(inner)


# Who may have what


@cache
def carriers() -> Mapping[str, frozenset[tuple[str, str, bool]]]:
    """kind of text → every (role, class, whether the reduced view is enough) under which a message can hold
    it, read from the published schemas. A free text can hold anything."""
    documents = {
        entry.name: json.loads(entry.read_text(encoding="utf-8"))
        for entry in (files("schemas") / "messages").iterdir()
        if entry.name.endswith(".json")
    }
    found: dict[str, set[tuple[str, str, bool]]] = defaultdict(set)
    for document in documents.values():
        for name, schema in _properties(document):
            named = schema.get("x-data-class")
            if named is None:
                continue
            by_role = {
                role: named if isinstance(named, str) else named.get(role, named.get("*"))
                for role in ("case", "victim", "child", "perpetrator", "witness", "associate")
            }
            for kind in _kinds(name, schema, by_role):
                found[kind] |= {(r, c, bool(schema.get("x-reduced"))) for r, c in by_role.items() if c}
    return {kind: frozenset(words) for kind, words in found.items()}


def _properties(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        for name, inner in schema.get("properties", {}).items():
            yield name, inner
        for inner in schema.values():
            yield from _properties(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _properties(inner)


def _kinds(name: str, schema: Mapping[str, Any], by_role: Mapping[str, str]) -> Iterator[str]:
    shared = (schema.get("$ref") or schema.get("items", {}).get("$ref", "")).rpartition("/")[2]
    if schema.get("x-free-text"):
        yield "words"
    elif shared == "address":
        yield "safe-house" if "ADDR-SAFE" in by_role.values() else "address"
    elif name == "codeWord":
        yield "code-word"
    elif shared in ("phone", "school", "worker"):
        yield shared


_WHOSE_PLACE = frozenset({"ADDR-V", "ADDR-SAFE"})  # of somebody at risk, whoever the object is about


def _carry(invented: Invented, fact: Fact) -> Iterator[tuple[str, str, bool]]:
    """Every (role, class, reduced is enough) under which *fact* can stand in a message."""
    roles = {"case"}.union(*(invented.roles.get(owner, {"case"}) for owner in fact.owners))
    for kind in (fact.kind, "words"):
        for role, name, reduced in carriers()[kind]:
            if role in roles or name in _WHOSE_PLACE or kind == "words":
                yield role, name, reduced


Granted = Mapping[tuple[str, str], frozenset[str]]  # (role, class) → views


def granted(agreements: Agreements, party: Party) -> Granted:
    """What any clause whatever grants *party*, conditions and purposes aside: more than it may ever get."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for agreement in agreements:
        for clause in agreement.clauses:
            if clause.to(party):
                for role, classes in clause.grants.items():
                    for name, view in classes.items():
                        found[role, name].add(view)
    return {cell: frozenset(views) for cell, views in found.items()}


def entry_grants(entry: Mapping[str, Any]) -> Granted:
    """What a ledger *entry* says was given, in the same form."""
    found: dict[tuple[str, str], frozenset[str]] = {}
    for role, names in entry["given"].items():
        for name in names:
            bare, _, view = name.partition(":")
            found[role, bare] = frozenset({view or "full"})
    return found


def allows(grants: Granted, carried: Iterable[tuple[str, str, bool]]) -> bool:
    """Whether *grants* hold one of the ways in which a fact is *carried*."""
    return any(
        "full" in views or (reduced and "reduced" in views)
        for role, name, reduced in carried
        if (views := grants.get((role, name)))
    )


class Finder:
    """Finds what should not be where it is."""

    def __init__(self, invented: Invented, agreements: Agreements, told: Told) -> None:
        self._invented, self._agreements, self._told = invented, agreements, told
        self._search = Search(fact for fact in invented.facts if fact.kind != "name")
        self._rights = {party.id: granted(agreements, party) for party in agreements.parties.values()}
        self.seen: Counter[tuple[str, str]] = Counter()  # (party, kind) of everything found, leak or not

    def leaks(self, received: Iterable[Received], entries: Mapping[str, Mapping[str, Any]]) -> list[Leak]:
        """Everything in *received* that somebody should not have; *entries* are those of the ledger that
        disclose, by disclosure."""
        found: list[Leak] = []
        for file in received:
            entry = entries.get(file.disclosure)
            if entry is None or entry["party"] != file.party:
                found.append(Leak("without-an-entry", file.party, file.name))
                continue
            party = self._agreements.parties[file.party]
            facts = self._search.find(file.content)
            given = entry_grants(entry)
            for fact in facts:
                self.seen[party.id, fact.kind] += 1
                found += [Leak(r, party.id, file.name, fact) for r in self._broken(fact, party, entry, given)]
            found += [Leak(r, party.id, file.name) for r in self._broken_by_file(file, party, facts, entry)]
        return found

    def _broken(self, fact: Fact, party: Party, entry: Mapping[str, Any], given: Granted) -> Iterator[str]:
        kind, _, issuer = fact.kind.partition(":")
        if kind == "number":
            if issuer != party.agency and not (issuer == "health" and party.agency in MAY_USE_NHI):
                yield "number-of-another-agency"
            return
        if (
            kind in WHEREABOUTS
            and party.kind in PERPETRATOR_SIDE
            and self._told.protects(fact, entry["message"])
        ):
            yield "perpetrator-side"
        carried = list(_carry(self._invented, fact))
        if not allows(self._rights[party.id], carried):
            yield "granted-by-no-clause"
        if not allows(given, carried):
            yield "not-given-by-the-entry"
        if kind == "safe-house" and not self._may_know_refuge(party, entry, given):
            yield "refuge"
        if self._told.conflicted(fact, party.id, entry["message"]):
            yield "conflict-of-interest"

    def _may_know_refuge(self, party: Party, entry: Mapping[str, Any], given: Granted) -> bool:
        """A safe address goes to the victim's provider, in a message to it alone. In an officer's words it
        cannot be told from other words: those go only to who is given the addresses of all victims."""
        as_address = any((role, "ADDR-SAFE") in given for role in ("victim", "child"))
        if as_address:
            return party.kind == "NGOV" and entry["type"] in ADDRESSED
        places = any((role, "ADDR-V") in given for role in ("victim", "child"))
        return places and party.kind not in PERPETRATOR_SIDE and allows(given, carriers()["words"])

    def _broken_by_file(
        self, file: Received, party: Party, facts: list[Fact], entry: Mapping[str, Any]
    ) -> Iterator[str]:
        # Numbers of events belong to families as people do; the perpetrator of two families to both.
        if facts and not frozenset.intersection(*(fact.families for fact in facts)):
            yield "two-families-in-one-file"
        if ".health.alert-" in entry["type"] and party.kind not in ("HNZ", "GP", "FSS"):
            yield "alert-outside-health"
        if party.kind == "EDU":
            about = json.loads(file.content).get("about", ())
            if any(person["role"] != "child" for person in about):
                yield "school-told-of-others"
            families = {k for fact in facts for k in fact.families}
            if families and families <= self._invented.low:
                yield "school-told-at-low-risk"
