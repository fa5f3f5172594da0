"""What no agreement can bring about: the promises to victims and children, each shown over the whole finite
space.

The proof does not read the guards. It writes the widest agreement there could be (every class about
everybody, to every party, in full, reduced and by referral, with every legal standing on record), puts every
scene to `decide` under it, and holds the answers to the promises, which are said here once more in their own
words. What the widest agreement cannot bring about, no narrower one can: clauses only add, and each gives a
view that the guards let through there too. Conditions are left out, but for one: the address of somebody at
risk goes to those who work with that person, since who knows the addresses may be told more. Whether the case
is open is left out, since no guard is told. Of the rare circumstances that only hold back, a scene has at
most one.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from math import inf
from typing import NamedTuple

from consent.agreement import Agreements, Party
from consent.clause import Agreement, Basis, Belief, Clause
from consent.minimise import minimise
from consent.policy import COMPANIONS, decide, seen_each
from consent.space import PERSONS, Asker, Scene, facets_about, rare_scenes, scenes, without
from consent.space import matter as matter_of
from schemas.catalogue import published
from schemas.classes import CASE, CLASSES, FRAME, SUBJECT_ROLES, Facet
from schemas.identifiers import ISSUERS, NHI

_DAY = date(2026, 7, 1)
_AT = datetime(2026, 7, 1, tzinfo=UTC)
_STANDING = {
    "fva": "listed",
    "cwpa": "listed",
    "named_recipient": "yes",
    "registered_until": "9999-12-31",
    "trained_until": "9999-12-31",
}
_EPISODE = "nz.isr.police.episode-recorded.v1"
_PURPOSES = ("FV-RISK", "CW-ASSESS")
_GIVEN = ("full", "reduced")
_RANK = {"full": 3, "reduced": 2, "refer": 1, "": 0}
_TELLS_OF_THOSE_AT_RISK = frozenset(
    {"ADDR-V", "ADDR-SAFE", "EXCL-ZONE", "CONTACT-V", "FSP-V", "VIEWS", "LOC-P", "HOUSING", "EDU-ENROL"}
)
_PUPIL = {
    "ID-CORE": _GIVEN,
    "SAFE-CONTACT": _GIVEN,
    **dict.fromkeys(
        ("EPISODE-SUM", "ORDERS", "VIEWS", "FSP-V", "CP-STATUS", "CHILD-HH"), ("reduced",)
    ),
}  # fmt: skip
_HEALTH = frozenset(name for name, c in CLASSES.items() if c.health)


class CounterExample(NamedTuple):
    """Where a promise is broken: who learns what about whom, in which view, and in which situation."""

    recipient: str
    kind: str
    role: str
    data_class: str
    view: str
    situation: str

    def line(self) -> str:
        """The counter-example as one readable line."""
        how = "is put to a person for" if self.view == "refer" else f"is given in view {self.view} to"
        return f"{self.data_class} about {self.role} {how} {self.recipient} ({self.kind}): {self.situation}"


class Proof(NamedTuple):
    """One promise: its *code* and *text*, how many *situations* were asked about, and the smallest
    counter-example, if there is one.
    """

    code: str
    text: str
    situations: int
    counter_example: CounterExample | None

    @property
    def holds(self) -> bool:
        """Whether nothing broke it."""
        return self.counter_example is None


class _Answer(NamedTuple):
    """What one recipient reaches in one scene, and how to ask about another scene."""

    party: Party
    scene: Scene
    purpose: str
    reached: Mapping[Facet, str]
    ask: Callable[[Scene], Mapping[Facet, str]]

    @property
    def linked(self) -> bool:
        """Whether the recipient works for or with somebody who is or was the perpetrator; being asked about
        him is not working with him.
        """
        scene = self.scene
        with_perpetrator = scene.role == "perpetrator" or scene.was_perpetrator
        works = bool(set(scene.services) - {"asked"})
        return self.party.kind in ("COR", "NGOP") or (
            self.party.kind == "NGOV" and (scene.linked or (with_perpetrator and works))
        )

    @property
    def knows_addresses(self) -> bool:
        """Whether it works with every victim of the case (every child, where there is no victim)."""
        scene = self.scene
        sought = {"v"} if not scene.alone else set()
        if scene.home == "once at risk":
            sought.add("p")
        subject = {"victim": "v", "child": "c", "perpetrator": "p"}.get(scene.role, "")
        mine = {subject} if scene.services else set()
        mine |= {"p"} if scene.linked else set()
        # A provider works with nobody who was ever the perpetrator, or it is linked.
        of_victim = scene.role == "victim" and scene.was_perpetrator
        turned = self.party.kind in ("NGOV", "NGOP") and ("p" in sought or of_victim)
        return not self.linked and not turned and bool(sought) and (scene.seat or sought <= mine)


_Broken = Iterator[tuple[Facet, str]]


def _those(answer: _Answer, wrong: Callable[[Facet, str], bool]) -> _Broken:
    return ((facet, view) for facet, view in answer.reached.items() if view and wrong(facet, view))


def _safe_house(answer: _Answer) -> _Broken:
    ok = (
        answer.party.kind == "NGOV"
        and "ivs" in answer.scene.services
        and answer.scene.audience == "addressee"
    )
    specialist = answer.party.kind == "NGOV" and "ivs" in answer.scene.services
    hidden = answer.scene.rare == "safe house" and not specialist
    return _those(
        answer,
        lambda facet, view: (
            view in _GIVEN and ((facet.name == "ADDR-SAFE" and not ok) or (facet.free_text and hidden))
        ),
    )


def _place_by_detour(answer: _Answer) -> _Broken:
    if answer.knows_addresses:
        return iter(())
    role, home = answer.scene.role, answer.scene.home

    def wrong(facet: Facet, view: str) -> bool:
        text = facet.free_text and role != "perpetrator"
        place = role == CASE and facet.locates and view == "full"
        shared = role == "perpetrator" and facet.name == "LOC-P" and home != "apart"
        return view in _GIVEN and (text or place or shared or facet.name == "EXCL-ZONE")

    return _those(answer, wrong)


def _perpetrator_side(answer: _Answer) -> _Broken:
    if not answer.linked:
        return iter(())
    role, unit = answer.scene.role, answer.party.kind == "COR" and answer.party.capacity == "em"

    def wrong(facet: Facet, view: str) -> bool:
        if facet.name == "EXCL-ZONE":
            return view in _GIVEN or not unit
        if role == "perpetrator":
            return False
        code_word = facet.name == "SAFE-CONTACT" and view == "full" and role != CASE
        return facet.name in _TELLS_OF_THOSE_AT_RISK or code_word or (facet.locates and view in _GIVEN)

    return _those(answer, wrong)


def _alert(answer: _Answer) -> _Broken:
    scene, kind = answer.scene, answer.party.kind
    his = scene.role == "perpetrator" or scene.was_perpetrator
    beside = his and (not scene.alone or scene.role in ("victim", "child"))

    def wrong(facet: Facet, view: str) -> bool:
        if facet.name != "HEALTH-ALERT" or view not in _GIVEN:
            return False
        return beside or not (kind in ("HNZ", "GP") or (kind == "FSS" and view == "reduced"))

    return _those(answer, wrong)


def _representative(answer: _Answer) -> _Broken:
    scene, kind = answer.scene, answer.party.kind
    if scene.representative not in ("perpetrator", "unknown"):
        return iter(())
    school = kind == "EDU" and scene.role in ("child", CASE)
    clinic = kind in ("HNZ", "GP") and scene.role == "child"
    asked_for = {"CHILD-HH", "EDU-ENROL", "HEALTH-ALERT"} | _HEALTH
    return _those(
        answer, lambda facet, view: view in _GIVEN and (school or (clinic and facet.name in asked_for))
    )


def _unsafe_contact(answer: _Answer) -> _Broken:
    helps = answer.party.kind not in ("POL", "OT", "FSS", "NGOV")
    unsafe = helps and answer.scene.rare == "contact unsaid"
    return _those(answer, lambda facet, view: unsafe and facet.name == "CONTACT-V" and view in _GIVEN)


def _doubtful(answer: _Answer) -> _Broken:
    doubtful = answer.scene.rare == "unnumbered"
    on_file = _HEALTH | {"OFFENCE-HIST", "GANG", "BENEFIT", "EDU-ENROL"}
    return _those(answer, lambda facet, view: doubtful and facet.name in on_file and view in _GIVEN)


def _each_child(answer: _Answer) -> _Broken:
    scene = answer.scene
    stranger = scene.role == "child" and not scene.services and not scene.seat
    return _those(answer, lambda facet, view: stranger and facet.name not in COMPANIONS and view in _GIVEN)


def _turned(answer: _Answer) -> _Broken:
    scene = answer.scene
    asked = answer.party.kind == "NGOV" and not set(scene.services) - {"asked"}
    turned = asked and scene.was_perpetrator and scene.role in ("victim", "child")
    return _those(
        answer,
        lambda facet, view: (
            turned and view in _GIVEN and (facet.locates or facet.name in _TELLS_OF_THOSE_AT_RISK)
        ),
    )


def _section_66(answer: _Answer) -> _Broken:
    supplied, care = answer.scene.rare == "section 66", answer.purpose.startswith("CW-")
    confided = answer.party.kind != "OT"

    def wrong(facet: Facet, view: str) -> bool:
        return supplied and (not care or (confided and facet.name in _HEALTH and view in _GIVEN))

    return _those(answer, wrong)


def _conflict(answer: _Answer) -> _Broken:
    return _those(answer, lambda _facet, _view: answer.scene.conflict)


def _never(name: str) -> Callable[[_Answer], _Broken]:
    return lambda answer: _those(answer, lambda facet, _view: facet.name == name)


def _own_pupil(answer: _Answer) -> _Broken:
    scene = answer.scene
    if answer.party.kind != "EDU":
        return iter(())
    pupil = scene.school and {"asked", "task"} & set(scene.services) and scene.risk in ("medium", "high")

    def wrong(facet: Facet, view: str) -> bool:
        about = scene.role == "child" or (scene.role == CASE and facet.name == "EPISODE-SUM")
        return view in _GIVEN and not (pupil and about and view in _PUPIL.get(facet.name, ()))

    return _those(answer, wrong)


def _notifier(answer: _Answer) -> _Broken:
    kind = answer.party.kind
    return _those(
        answer,
        lambda facet, view: (
            facet.name == "NOTIFIER-ID" and kind != "OT" and (view in _GIVEN or kind != "POL")
        ),
    )


def _numbers(answer: _Answer) -> _Broken:
    school_or_provider = answer.party.kind in ("EDU", "NGOV", "NGOP")
    return _those(answer, lambda facet, _view: facet.name == "ID-XREF" and school_or_provider)


def _caution(answer: _Answer) -> _Broken:
    for caution, milder in without(answer.scene):
        if caution == "a link to the perpetrator" and answer.party.kind != "NGOV":
            continue  # for an agency it is work like any other; Corrections and outreach are linked anyway
        before = answer.ask(milder)
        for facet, view in answer.reached.items():
            if _RANK[view] > _RANK[before.get(facet, "")]:
                yield facet, view


PROMISES: dict[str, tuple[str, Callable[[_Answer], _Broken]]] = {
    "V1": (
        "A safe-house address reaches nobody but a victim-side provider that works with that person, in a "
        "message to it alone, and free text beside one reaches nobody else without a person",
        _safe_house,
    ),
    "V2": (
        "Free text, the place of the episode, an exclusion zone, and a perpetrator's whereabouts that tell "
        "another's home reach only those who work with everybody at risk",
        _place_by_detour,
    ),
    "V3": (
        "No place, number, code word, plan or view of anybody else reaches a recipient linked to the "
        "perpetrator, not even by referral; a zone reaches the monitoring unit through a person only",
        _perpetrator_side,
    ),
    "V4": (
        "A health alert reaches health care only (the ISR team learns that one stands), and never a "
        "perpetrator's record beside somebody at risk",
        _alert,
    ),
    "V5": (
        "What a perpetrator could ask for as a child's representative is not given to school, hospital or "
        "practice",
        _representative,
    ),
    "V6": (
        "A way to reach somebody of whom nobody said that contact is safe reaches only those who make "
        "contact or coordinate it",
        _unsafe_contact,
    ),
    "V7": ("A recipient with a conflict of interest reaches nothing, not even by referral", _conflict),
    "V8": ("That a record is restricted reaches nobody", _never("RESTRICT-META")),
    "V10": (
        "What is on file about a person without a number in the message is given to nobody without a person",
        _doubtful,
    ),
    "V11": (
        "Who does not work with a child learns of it no more than who it is and how to meet it safely",
        _each_child,
    ),
    "V12": (
        "A school learns nothing about anybody but its own pupil, only at medium or high risk, and only that "
        "the child was exposed",
        _own_pupil,
    ),
    "V13": (
        "Who reported a concern reaches only Oranga Tamariki; for Police a person is asked",
        _notifier,
    ),
    "V14": (
        "A provider that was only asked about a victim who was once the perpetrator is given no place, "
        "number, plan or view of theirs",
        _turned,
    ),
    "S66": (
        "What had to be supplied about a child reaches nobody but for its care and protection, and health in "
        "it nobody but Oranga Tamariki without a person",
        _section_66,
    ),
    "IPP13": ("People's numbers reach no school and no provider", _numbers),
    "PRIV": ("Privileged matter and raw intelligence reach nobody", _never("PRIV")),
    "caution": (
        "A conflict, a link, a shared home, a doubtful representative or a past as perpetrator never lets "
        "more through",
        _caution,
    ),
}
_ALONE = ("V9", "Nothing is sent when all that may be given is who somebody is and how to meet them")
_OWN = ("own-numbers", "Of people's numbers each agency receives those that it issued, and no other")
CODES = (*PROMISES, _ALONE[0], _OWN[0])


def prove(
    agreements: Agreements,
    codes: Iterable[str] = CODES,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    largest: float = inf,
) -> list[Proof]:
    """Each promise of *codes*, over every scene and each different recipient among the parties of
    *agreements*. *progress* is told scenes done and in all. It is a proof when *largest* is not given: it
    leaves out scenes of more than so many words.
    """
    codes = tuple(codes)
    widest = _widest(agreements, {name: _GIVEN for name in CLASSES if name != FRAME})
    recipients = _different(widest)
    asked = dict.fromkeys(codes, 0)
    broken: dict[str, tuple[int, CounterExample]] = {}
    wanted = {code: PROMISES[code] for code in codes if code in PROMISES}
    found = {role: [s for s in rare_scenes(role) if s.open and s.size <= largest] for role in SUBJECT_ROLES}
    total, done = sum(map(len, found.values())), 0
    for role in SUBJECT_ROLES if wanted else ():
        for purpose in _PURPOSES:
            sight = _Sight(widest, recipients, role, purpose)
            for scene in found[role]:
                # Only what had to be supplied depends on the purpose.
                if purpose == _PURPOSES[0] or scene.rare == "section 66":
                    _ask(sight, scene, wanted, asked, broken)
                if purpose == _PURPOSES[0]:
                    done += 1
                    if done % 500 == 0:
                        progress(done, total)
    proofs = [
        Proof(code, text, asked[code], broken[code][1] if code in broken else None)
        for code, (text, _) in wanted.items()
    ]
    if _ALONE[0] in codes:
        proofs.append(_names_alone(agreements, recipients, largest))
    if _OWN[0] in codes:
        proofs.append(_own_numbers(widest))
    progress(total, total)
    return proofs


class _Sight:
    """Scenes put to every recipient under one agreement, for one role and purpose. Scenes that look the
    same to the guards, and in which the recipient has the same services, are asked about once.
    """

    def __init__(self, agreements: Agreements, recipients: Sequence[Party], role: str, purpose: str) -> None:
        self.recipients, self.purpose = recipients, purpose
        self._agreements = agreements
        self._ref = "" if role == CASE else PERSONS[role]
        self._ids = tuple(party.id for party in recipients)
        self._source = {party.id: _other(agreements, party) for party in recipients}
        self._known: dict[Hashable, Mapping[Facet, str]] = {}
        self._answers: dict[Scene, tuple[Mapping[Facet, str], ...]] = {}

    def answers(self, scene: Scene) -> tuple[Mapping[Facet, str], ...]:
        """What each recipient reaches in *scene*: what is given or referred, by facet."""
        found = self._answers.get(scene)
        if found is None:
            found = self._answers[scene] = tuple(self._reached(scene))
        return found

    def _reached(self, scene: Scene) -> Iterator[Mapping[Facet, str]]:
        question = scene.question(self._ids, _EPISODE, self.purpose, self._ids[0], (), _AT)
        sights = seen_each(self._agreements, question, self.recipients)
        for party, (situation, subjects) in zip(self.recipients, sights, strict=True):
            key = (party.id, situation, subjects[self._ref])
            reached = self._known.get(key)
            if reached is None:
                asker = Asker(self._agreements, party, self.purpose, self._source[party.id], _AT)
                reached = self._known[key] = {f: view for f, view in asker.all(scene).items() if view}
            yield reached


def _ask(
    sight: _Sight,
    scene: Scene,
    wanted: Mapping[str, tuple[str, Callable[[_Answer], _Broken]]],
    asked: dict[str, int],
    broken: dict[str, tuple[int, CounterExample]],
) -> None:
    open_to = [code for code in wanted if code not in broken or scene.size < broken[code][0]]
    if not open_to:
        return
    for n, (party, reached) in enumerate(zip(sight.recipients, sight.answers(scene), strict=True)):
        for code in open_to:
            asked[code] += 1
        if not reached:
            continue  # a promise is broken by what is reached

        def ask(milder: Scene, n: int = n) -> Mapping[Facet, str]:
            return sight.answers(milder)[n]

        answer = _Answer(party, scene, sight.purpose, reached, ask)
        for code in open_to:
            wrong = next(iter(wanted[code][1](answer)), None)
            if wrong is not None and (code not in broken or scene.size < broken[code][0]):
                facet, view = wrong
                said = CounterExample(party.id, party.kind, scene.role, facet.name, view, scene.words())
                broken[code] = (scene.size, said)


def _different(agreements: Agreements) -> list[Party]:
    """One party of each kind and capacity: with every standing on record, no two of them differ otherwise."""
    found: dict[tuple[str, str], Party] = {}
    for _, party in sorted(agreements.parties.items()):
        if party.active:
            found.setdefault((party.kind, party.capacity), party)
    return list(found.values())


def _other(agreements: Agreements, party: Party) -> str:
    return next((p for p in sorted(agreements.parties) if p != party.id), "")


def _widest(agreements: Agreements, classes: Mapping[str, tuple[str, ...]]) -> Agreements:
    """Everything of *classes* about everybody to every kind among the parties, in each of its views, and by
    referral.
    """
    parties = {i: replace(p, status=_STANDING) for i, p in agreements.parties.items()}
    clauses: list[Clause] = []
    for kind in sorted({p.kind for p in parties.values()}):
        for view in (*_GIVEN, ""):
            words = {
                role: {n: view for n in classes if view in classes[n] and not _is_address(role, n, view)}
                for role in SUBJECT_ROLES
            }
            refer = {role: frozenset(classes) for role in SUBJECT_ROLES} if not view else {}
            clauses.append(_clause(f"{kind}-{view or 'refer'}", kind, {} if refer else words, refer, ()))
        if "ADDR-V" in classes:
            addresses = {role: {"ADDR-V": "full"} for role in ("victim", "child")}
            clauses.append(_clause(f"{kind}-address", kind, addresses, {}, ("ASSIGNED",)))
    agreement = Agreement(
        "WIDEST", 1, "", "active", "MOU", "", "", _DAY, None, _DAY, tuple(clauses), ""
    )  # fmt: skip
    return Agreements(parties, [agreement], "")


def _is_address(role: str, name: str, view: str) -> bool:
    return name == "ADDR-V" and role in ("victim", "child") and view == "full"


def _clause(
    name: str,
    kind: str,
    grants: Mapping[str, Mapping[str, str]],
    refer: Mapping[str, frozenset[str]],
    conditions: tuple[str, ...],
) -> Clause:
    belief = Belief("standing", "", "", _DAY, _DAY)
    purposes = frozenset(_PURPOSES)
    basis = (Basis("FVA20", "s 20"), Basis("OTA66C", "s 66C"))
    return Clause(
        name, frozenset({"any"}), kind, grants, refer, purposes, basis, belief, conditions, (), 0
    )  # fmt: skip


def _names_alone(agreements: Agreements, recipients: Iterable[Party], largest: float) -> Proof:
    """Under an agreement that gives nothing but companions, no type that has a matter gives anything."""
    names = _widest(agreements, dict.fromkeys(COMPANIONS - {FRAME}, _GIVEN))
    situations = 0
    for party in recipients:
        for kind in published():
            for role in SUBJECT_ROLES:
                facets = frozenset(
                    f for f in facets_about(role) if f.name in matter_of(kind.name) | COMPANIONS
                )
                if not any(f.name in matter_of(kind.name) for f in facets):
                    continue
                for scene in scenes(role):
                    if scene.size > min(largest, 1):
                        break
                    situations += 1
                    question = scene.question(
                        (party.id,), kind.name, "FV-RISK", _other(names, party), facets, _AT
                    )
                    given = decide(names, question, party).given
                    for facet, view in next(iter(given.values()), {}).items():
                        said = CounterExample(party.id, party.kind, role, facet.name, view, scene.words())
                        return Proof(*_ALONE, situations, said)
    return Proof(*_ALONE, situations, None)


def _own_numbers(widest: Agreements) -> Proof:
    """Every system's number in one message, minimised for every party."""
    scene = Scene("victim", seat=True)
    situations = 0
    people = [
        {
            "ref": "v",
            "role": "victim",
            "identifiers": [{"system": system, "value": "1"} for system in sorted(ISSUERS)],
        }
    ]
    for _, party in sorted(widest.parties.items()):
        question = scene.question(
            (party.id,), _EPISODE, "FV-RISK", _other(widest, party), (Facet("ID-XREF"),), _AT
        )  # fmt: skip
        data = minimise(
            published()[_EPISODE].shape,
            {"people": people},
            decide(widest, question, party),
            question.roles,
            {},
        )
        for person in data.get("people", ()):
            for number in person.get("identifiers", ()):
                situations += 1
                system = number["system"]
                own = ISSUERS[system] == party.agency or (system == NHI and party.kind in ("HNZ", "GP"))
                if not own:
                    said = CounterExample(
                        party.id, party.kind, "victim", "ID-XREF", "full", f"a number of the system {system}"
                    )
                    return Proof(*_OWN, situations, said)
        situations += 1
    return Proof(*_OWN, situations, None)
