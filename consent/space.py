"""The finite space of decisions: every situation that can make a difference to a recipient and one subject.

A decision reads few things of a case, and each has few values: what the recipient does with whom, the risk,
whether the case is open, what is known of a child's school and representative, where a perpetrator lives. A
`Scene` is one choice of all of them, put together as a real case, so that `decide` itself answers and nobody
has to believe a second account of it. Services count by what they can do: a seat at the table, a question, a
task, and a service that may know a refuge.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, time
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from consent.agreement import Agreements, Party
from consent.case import Case, PersonInCase
from consent.decision import S66
from consent.policy import COMPANIONS, Decision, Question, carried, decide
from schemas.catalogue import published
from schemas.classes import CASE, CLASSES, FRAME, Facet
from schemas.clock import NEW_ZEALAND

PERSONS = {"victim": "v", "child": "c", "perpetrator": "p", "witness": "w", "associate": "a"}
_BYSTANDER = "b"
_SAFE_CONTACT, _NUMBER = Facet("SAFE-CONTACT"), Facet("ID-XREF")
RISKS = (None, "low", "medium", "high")
RANK = {"full": 3, "reduced": 2, "refer": 1, "": 0}
# What is rare and only ever holds back; a scene has at most one of them, beside few other words.
BESIDE_RARE = 2
RARE = ("", "safe house", "contact unsaid", "unnumbered", "section 66")


@dataclass(frozen=True, slots=True)
class Scene:
    """One situation of a recipient towards one subject in *role*.

    *services* are those of the recipient with the subject itself, *seat* its place at the meeting's table,
    *elsewhere* a question about a bystander of the same case, *linked* a service for the perpetrator.
    *representative* of the child is "", `victim`, `perpetrator` or `unknown`; *home* of the perpetrator is
    `apart`, `shared`, `once at risk` (has been a victim of the case) or `unknown`. *rare* is one of `RARE`.
    """

    role: str
    audience: str = "table"
    risk: str | None = "high"
    open: bool = True
    conflict: bool = False
    seat: bool = False
    services: tuple[str, ...] = ()
    elsewhere: bool = False
    linked: bool = False
    school: bool = False
    representative: str = ""
    home: str = "apart"
    was_perpetrator: bool = False
    alone: bool = False
    rare: str = ""

    @property
    def size(self) -> int:
        """How much has to come together for this scene: the number of words that say it."""
        return sum(getattr(self, f.name) != f.default for f in fields(self)[1:])

    def words(self) -> str:
        """The scene as readable text."""
        subject = "anybody in the case" if self.role == CASE else f"the {self.role}"
        said = [
            f"risk {self.risk or 'not assessed'}",
            "" if self.open else "case closed",
            "message to this party alone" if self.audience == "addressee" else "message to the table",
            "recorded conflict of interest" if self.conflict else "",
            "recipient sits at the table" if self.seat else "",
            f"recipient works with {subject} ({', '.join(self.services)})" if self.services else "",
            "recipient was asked about a bystander of the case" if self.elsewhere else "",
            "recipient works with the perpetrator" if self.linked else "",
            "the child's school is known" if self.school else "",
            f"the child's representative is {_REPRESENTATIVE[self.representative]}"
            if self.representative
            else "",
            _HOME[self.home],
            f"{subject} was once the perpetrator" if self.was_perpetrator else "",
            "nobody at risk is named beside" if self.alone else "",
            _RARE[self.rare],
        ]
        return "; ".join(s for s in said if s)

    def question(
        self,
        recipients: Sequence[str],
        type: str,
        purpose: str,
        source: str,
        facets: Iterable[Facet],
        at: datetime,
    ) -> Question:
        """What would be decided for each of *recipients*, as if it were the only one, when a message holds
        *facets* about the subject (of a person also a number, and whether contact is safe) and nothing else.
        """
        names = {role: p for role, p in PERSONS.items() if role in ("victim", "child", "perpetrator")}
        if self.alone:
            names = {role: p for role, p in names.items() if role == "perpetrator"}
        if self.role != CASE:
            names[self.role] = PERSONS[self.role]
        subject = "" if self.role == CASE else PERSONS[self.role]
        people = {p: self._person(role) for role, p in names.items()}
        people[_BYSTANDER] = PersonInCase(["associate"])
        people[_BYSTANDER].protected = self.rare == "safe house"
        if self.home == "unknown":
            people.pop("p", None)
        case = Case("example", "", self.open, self.risk, people)
        works = [
            *((subject or _BYSTANDER, service) for service in self.services),
            *([("*", "table")] if self.seat else ()),
            *([(_BYSTANDER, "asked")] if self.elsewhere else ()),
            *([("p", "pos")] if self.linked else ()),
            # A school is asked about the pupil, also where the message is about the case.
            *([("c", s) for s in self.services] if self.role == CASE and self.school else ()),
        ]
        case.assignments = {(recipient, *work) for recipient in recipients for work in works}
        if self.conflict:
            case.conflicts = set(recipients)
        held = frozenset(facets)
        if subject:
            held |= {_SAFE_CONTACT, _NUMBER}
            held -= {{"contact unsaid": _SAFE_CONTACT, "unnumbered": _NUMBER}.get(self.rare)}
        holdings = {p: frozenset[Facet]() for p in names.values()}
        return Question(
            type=type,
            purpose=purpose,
            audience=self.audience,
            source=source,
            roles={p: role for role, p in names.items()},
            pseudonyms={p: p for p in names.values()},
            holdings={**holdings, "": frozenset(), subject: held},
            cases=(case,),
            at=at,
            tags=frozenset({S66}) if self.rare == "section 66" else frozenset(),
        )

    def _person(self, role: str) -> PersonInCase:
        person = PersonInCase([role], {"elsewhere" if role == "perpetrator" else "home"})
        if self.was_perpetrator and role == self.role:
            person.roles.insert(0, "perpetrator")
        if role == "perpetrator" and self.home == "shared":
            person.households = {"home"}
        if role == "perpetrator" and self.home == "once at risk":
            person.roles.insert(0, "victim")
        if role == "child":
            person.school = "school" if self.school else None
            person.representative = {"victim": "v", "perpetrator": "p", "unknown": "x"}.get(
                self.representative
            )
        return person


_REPRESENTATIVE = {
    "victim": "the victim",
    "perpetrator": "the perpetrator",
    "unknown": "nobody the case knows",
}
_HOME = {
    "apart": "",
    "shared": "the perpetrator lives where somebody at risk lives",
    "once at risk": "the perpetrator was once a victim of this case",
    "unknown": "the case does not know the perpetrator",
}
_RARE = {
    "": "",
    "safe house": "somebody's whereabouts are protected",
    "contact unsaid": "nobody said whether contact is safe",
    "unnumbered": "the message has no number of the person",
    "section 66": "it had to be supplied under section 66",
}
_RELATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"elsewhere": True},
    {"seat": True},
    {"services": ("asked",)},
    {"services": ("ivs",)},
    {"services": ("task",)},
    {"seat": True, "services": ("asked",)},
)


@cache
def scenes(role: str) -> tuple[Scene, ...]:
    """Every scene about a subject in *role* without a rarity, the smallest first."""
    facts: list[dict[str, Any]] = [{}]
    children = [
        {"school": school, "representative": by}
        for school, by in product((False, True), ("", "victim", "perpetrator", "unknown"))
    ]
    if role == CASE:
        facts = children
    elif role == "child":
        facts = [{**c, "was_perpetrator": was} for c, was in product(children, (False, True))]
    elif role == "perpetrator":
        facts = [
            {"home": home, "alone": alone}
            for home, alone in product(_HOME, (False, True))
            if not (alone and home == "shared")  # nobody to share it with
        ]
    elif role == "victim":
        facts = [{"was_perpetrator": was} for was in (False, True)]
    else:
        facts = [
            {"was_perpetrator": was, "alone": alone} for was, alone in product((False, True), (False, True))
        ]
    found = [
        Scene(role, audience, risk, opened, conflict, linked=linked, **relation, **fact)
        for audience, risk, opened, conflict, linked, relation, fact in product(
            ("table", "addressee"), RISKS, (True, False), (False, True), (False, True), _RELATIONS, facts
        )
    ]
    return tuple(sorted(found, key=lambda scene: scene.size))


@cache
def rare_scenes(role: str) -> tuple[Scene, ...]:
    """Every scene about a subject in *role*, those of few words with each rarity too, the smallest first."""
    words = [word for word in RARE[1:] if role != CASE or word not in ("contact unsaid", "unnumbered")]
    found = [replace(s, rare=word) for word in words for s in scenes(role) if s.size <= BESIDE_RARE]
    return tuple(sorted((*scenes(role), *found), key=lambda scene: scene.size))


class Carrier(NamedTuple):
    """A published type that can hold *facet* about a role, and whether in its reduced view."""

    type: str
    facet: Facet
    reduced: bool
    purpose: str
    audience: str


def carriers(role: str, data_class: str) -> tuple[Carrier, ...]:
    """The types that can hold *data_class* about *role*; empty when no message does."""
    return _carriers().get((role, data_class), ())


@cache
def _carriers() -> dict[tuple[str, str], tuple[Carrier, ...]]:
    found: dict[tuple[str, str], dict[tuple[str, Facet], Carrier]] = {}
    for kind in published():
        for role, facet, reduced, _ in carried(kind.shape):
            of = found.setdefault((role, facet.name), {})
            before = of.get((kind.name, facet))
            wide = reduced or (before is not None and before.reduced)
            of[kind.name, facet] = Carrier(kind.name, facet, wide, kind.purpose, kind.audience)
    return {key: tuple(sorted(of.values())) for key, of in found.items()}


@cache
def facets_about(role: str) -> tuple[Facet, ...]:
    """Every facet that a message can hold about *role*, and each class as such."""
    found = {Facet(c.name, c.locates) for c in CLASSES.values() if c.name != FRAME}
    found.update(c.facet for name in CLASSES if name != FRAME for c in carriers(role, name))
    return tuple(sorted(found))


def noon(day: date) -> datetime:
    """An instant on *day* in New Zealand."""
    return datetime.combine(day, time(12), NEW_ZEALAND)


def outcome(decision: Decision, role: str, facet: Facet) -> str:
    """What *decision* comes to for *facet* about *role*: full, reduced, refer or ""."""
    ref = "" if role == CASE else PERSONS[role]
    view = decision.given.get(ref, {}).get(facet, "")
    return view or ("refer" if (role, facet.name) in decision.referred else "")


class Asker:
    """Puts scenes to `decide` for one recipient, purpose and source under one set of agreements."""

    def __init__(
        self, agreements: Agreements, recipient: Party, purpose: str, source: str, at: datetime
    ) -> None:
        self._agreements, self._recipient = agreements, recipient
        self._purpose, self._source, self._at = purpose, source, at

    def one(self, scene: Scene, carrier: Carrier) -> str:
        """The outcome for one facet alone in a message of its carrier's type."""
        decision = self._decide(scene, carrier.type, (carrier.facet,))
        return outcome(decision, scene.role, carrier.facet)

    def all(self, scene: Scene) -> Mapping[Facet, str]:
        """The outcome for every facet about the scene's subject, each as if it stood alone."""
        found: dict[Facet, str] = {}
        for type, facets in _quietly(scene.role):
            decision = self._decide(scene, type, facets)
            found.update((facet, outcome(decision, scene.role, facet)) for facet in facets)
            found.update(self._asked_apart(scene, type, facets, found))
        for type, reducible in _reducible(scene.role):
            if left := frozenset(f for f in reducible if found[f] not in ("full", "reduced")):
                decision = self._decide(scene, type, left)
                found.update((facet, outcome(decision, scene.role, facet)) for facet in left)
                found.update(self._asked_apart(scene, type, left, found))
        return found

    def _asked_apart(
        self, scene: Scene, type: str, facets: frozenset[Facet], found: Mapping[Facet, str]
    ) -> Iterator[tuple[Facet, str]]:
        """A person is asked for a class. Which of several facets of the class it is for, each says alone."""
        referred = [facet for facet in facets if found[facet] == "refer"]
        for facet in referred:
            if sum(other.name == facet.name for other in facets) > 1:
                yield facet, outcome(self._decide(scene, type, (facet,)), scene.role, facet)

    def _decide(self, scene: Scene, type: str, facets: Iterable[Facet]) -> Decision:
        question = scene.question((self._recipient.id,), type, self._purpose, self._source, facets, self._at)
        return decide(self._agreements, question, self._recipient)


@cache
def matter(type: str) -> frozenset[str]:
    """The classes that a message of *type* is about: those outside its list of people, companions aside."""
    kind = published()[type]
    held = frozenset(facet.name for _, facet, _, listed in carried(kind.shape) if not listed)
    return (held | kind.matter) - COMPANIONS


@cache
def _quietly(role: str) -> tuple[tuple[str, frozenset[Facet]], ...]:
    """All facets about *role* in few questions, each of a type that is about something else: names are then
    not held back for lack of their matter, so that many facets can be asked about at once.
    """
    asked: list[tuple[str, frozenset[Facet]]] = []
    left = set(facets_about(role))
    for type in sorted((t.name for t in published()), key=lambda name: (len(matter(name)), name)):
        quiet = {facet for facet in left if facet.name not in matter(type)}
        if matter(type) and quiet:
            asked.append((type, frozenset(quiet)))
            left -= quiet
    return tuple(asked)


@cache
def _reducible(role: str) -> tuple[tuple[str, frozenset[Facet]], ...]:
    """Every facet about *role* that has a reduced view, in few questions, each of a type that has it: all of
    its matter, or none, so that again no names are held back.
    """
    groups: dict[tuple[str, bool], set[Facet]] = {}
    for name in CLASSES:
        for carrier in carriers(role, name):
            if carrier.reduced:
                groups.setdefault((carrier.type, name in matter(carrier.type)), set()).add(carrier.facet)
    asked: list[tuple[str, frozenset[Facet]]] = []
    left = set[Facet]().union(*groups.values())
    while left:
        type, about = max(sorted(groups), key=lambda group: len(groups[group] & left))
        asked.append((type, frozenset(groups[type, about] & left)))
        left -= groups[type, about]
    return tuple(asked)


def without(scene: Scene) -> Iterator[tuple[str, Scene]]:
    """*scene* less one caution that it has, with the name of the caution.

    A perpetrator who was at risk himself, with nobody else at risk beside, is no caution: he is the one to be
    protected then.
    """
    if scene.conflict:
        yield "a conflict of interest", replace(scene, conflict=False)
    if scene.linked:
        yield "a link to the perpetrator", replace(scene, linked=False)
    if scene.representative in ("perpetrator", "unknown"):
        yield "a perpetrator as representative", replace(scene, representative="")
    if scene.home != "apart" and not (scene.home == "once at risk" and scene.alone):
        yield "a home that tells", replace(scene, home="apart")
    if scene.rare:
        yield _RARE[scene.rare], replace(scene, rare="")
    if scene.was_perpetrator:
        yield "a past as perpetrator", replace(scene, was_perpetrator=False)
