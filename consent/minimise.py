"""Minimisation: the part of a message that a decision gives, built up from what is granted; nothing is ever
copied and then removed.

A reader of the result learns nothing from its form either: a person about whom nothing is given is not
there, neither is any reference to that person, and structure (FRAME) stands only beside something that is
given, unless nothing but structure was there to begin with.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from consent.policy import Decision, FrozenDict, Outcome
from schemas.catalogue import Branch, Leaf, about_whom
from schemas.classes import CASE, FRAME, Facet
from schemas.identifiers import ISSUERS, NHI

# Agencies that may use the NHI beside its issuer (Health Information Privacy Code 2020, rule 13).
NHI_AGENCIES = frozenset({"health", "gp"})
PEOPLE = "people"

# What to do with a property that does not simply stay.
_WITHHOLD, _FRAME, _OBJECT, _LIST, _ABOUT, _FRAME_REFERENCE, _REFERENCES, _IDENTIFIERS, _WHOLE = range(9)
_WITHHELD: tuple[int, Any] = (_WITHHOLD, None)
_NOTHING_GIVEN = FrozenDict()


@cache
def own_systems(agency: str) -> frozenset[str]:
    """The identifier systems that *agency* issued itself, and may therefore be given back (Privacy Act
    2020, IPP 13).
    """
    own = {system for system, issuer in ISSUERS.items() if issuer == agency}
    return frozenset(own | {NHI} if agency in NHI_AGENCIES else own)


def minimise(
    shape: Branch,
    data: Mapping[str, Any],
    decision: Decision,
    roles: Mapping[str, str],
    own_identifiers: Mapping[str, list[dict[str, str]]],
) -> dict[str, Any]:
    """What of *data* the *decision* gives, in new objects; {} when nothing is left, and then there is
    nothing to send.

    *roles* and *own_identifiers* are by ref. Where the decision gives identifiers, only those that the
    recipient issued are kept, and those in *own_identifiers* added. Values are shared with *data*, not
    copied.
    """
    if not decision.given:
        whole = decision.outcome is Outcome.PERMIT and _is_only_frame(shape, data)
        return dict(data) if whole else {}
    own = own_systems(decision.recipient.partition("#")[0])
    kept = {ref for ref, facets in decision.given.items() if facets}
    while True:
        projection = _Projection(decision.given, roles, own, own_identifiers, kept)
        made = projection.whole(shape, data)
        # A person may have been given something that this message does not hold in the granted view.
        # References to such a person must go as well, which may empty another person: repeat until every
        # reference points at somebody who stays.
        remaining = projection.told_of | ({""} & kept)
        if remaining == kept or not made:
            return made
        kept = remaining


def _is_only_frame(branch: Branch, value: Any) -> bool:
    for item in value if branch.array else (value,):
        for name, inner in item.items():
            child = branch.children.get(name)
            if child is None:
                return False
            if isinstance(child, Leaf):
                if any(facet.name != FRAME for facet in child.facets.values()):
                    return False
            elif not _is_only_frame(child, inner):
                return False
    return True


class _Plan:
    """What may stay of an object of *branch* about somebody in *role*: the properties that are *taken*, the
    structure that stays beside something else (*frames*), and what is to be looked *into*, with how. Any
    other property is withheld.
    """

    __slots__ = ("branch", "frames", "identifies", "into", "is_person", "taken")

    def __init__(self, branch: Branch, role: str, given: Mapping[Facet, str]) -> None:
        self.branch = branch
        taken: set[str] = set()
        frames: set[str] = set()
        into: list[tuple[str, int, Any]] = []
        for name, child in branch.children.items():
            what = _look(child, role, given)
            if what is None:
                taken.add(name)
            elif what[0] == _FRAME:
                frames.add(name)
            elif what[0] != _WITHHOLD:
                into.append((name, *what))
        self.taken, self.frames, self.into = frozenset(taken), frozenset(frames), tuple(into)
        self.is_person = branch.about == "self"
        self.identifies = self.is_person and ("identifiers", _IDENTIFIERS, None) in into

    @property
    def is_whole(self) -> bool:
        """Whether everything that can be in the object stays as it is."""
        whole = sum(what == _WHOLE for _, what, _ in self.into)
        return len(self.taken) + whole == len(self.branch.children)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the object can stay."""
        return not (self.taken or self.frames or self.into)


def _look(  # noqa: PLR0911  # one answer for each kind of property
    child: Leaf | Branch, role: str, given: Mapping[Facet, str]
) -> tuple[int, Any] | None:
    """What to do with a property that *child* describes; None when it simply stays."""
    if not isinstance(child, Leaf):
        # Who an inner object is about is known now unless it says so itself.
        if child.about:
            return _ABOUT, child
        below = _Plan(child, role, given)
        if below.is_whole:
            return _WHOLE, None
        if below.is_empty:  # nothing of it can stay
            return _WITHHELD
        return _LIST if child.array else _OBJECT, below
    facet = child.facets.get(role)
    if facet is None:
        return _WITHHELD
    if facet.name == FRAME:
        return _FRAME_REFERENCE if child.person_ref else _FRAME, None
    view = given.get(facet)
    if view != "full" and not (view == "reduced" and child.reduced):
        return _WITHHELD
    if child.identifiers:
        return _IDENTIFIERS, None
    return (_REFERENCES, None) if child.person_ref else None


def _planned(branch: Branch, role: str, given: Mapping[Facet, str]) -> _Plan:
    """The plan for these operands; a remembered decision remembers its plans too."""
    plans: dict[tuple[int, str], _Plan] | None = getattr(given, "plans", None)
    if plans is None:
        return _Plan(branch, role, given)
    plan = plans.get((id(branch), role))
    if plan is None or plan.branch is not branch:
        plan = plans[id(branch), role] = _Plan(branch, role, given)
    return plan


class _Projection:
    """One decision applied to one message, for a supposed set of people who stay. *told_of* are those about
    whom something did.
    """

    __slots__ = ("_count", "_given", "_kept", "_own", "_own_identifiers", "_roles", "told_of")

    def __init__(
        self,
        given: Mapping[str, Mapping[Facet, str]],
        roles: Mapping[str, str],
        own: frozenset[str],
        own_identifiers: Mapping[str, list[dict[str, str]]],
        kept: set[str],
    ) -> None:
        self._given = given
        self._roles = roles
        self._own = own
        self._own_identifiers = own_identifiers
        self._kept = kept
        self._count = 0  # objects in which something classified was kept so far
        self.told_of: set[str] = set()

    def whole(self, shape: Branch, data: Mapping[str, Any]) -> dict[str, Any]:
        """The message that remains; people last, since somebody of whom only another part speaks must be
        named there too.
        """
        plan = _planned(shape, CASE, self._given.get("", _NOTHING_GIVEN))
        made = self._item(plan, {k: v for k, v in data.items() if k != PEOPLE}, "") or {}
        people = shape.children.get(PEOPLE)
        if (
            PEOPLE in data
            and isinstance(people, Branch)
            and (named := self._about(people, data[PEOPLE], "")) is not None
        ):
            made[PEOPLE] = named
        if not self._count:
            return {}
        if "to" in data:
            made["to"] = data["to"]
        return made

    def _about(self, branch: Branch, value: Any, above: str) -> Any:
        """What is left of one or several objects that say themselves whom they are about."""
        made = []
        for item in value if branch.array else (value,):
            whose = about_whom(branch, item, above)
            # Without a ref the object is about the case; with one, about nobody who is not there.
            if whose and whose not in self._kept:
                continue
            plan = _planned(branch, self._roles.get(whose, CASE), self._given.get(whose, _NOTHING_GIVEN))
            if (part := self._item(plan, item, whose)) is not None:
                made.append(part)
        if branch.array:
            return made or None
        return made[0] if made else None

    def _item(self, plan: _Plan, item: Mapping[str, Any], whose: str) -> dict[str, Any] | None:
        before, taken = self._count, plan.taken
        made = {name: value for name, value in item.items() if name in taken}
        direct = bool(made)
        for name in plan.frames:
            if name in item:
                made[name] = item[name]
        for name, what, below in plan.into:
            if name in item and (left := self._left(what, below, item[name], whose)) is not None:
                made[name] = left
                direct = direct or what >= _REFERENCES
        if plan.identifies and "identifiers" not in item:
            # The recipient's own number for this person, known from elsewhere: the decision covers the class.
            own = self._identifiers([], whose)
            if own:
                made["identifiers"] = own
                direct = True
        if direct:
            self._count += 1
            self.told_of.add(whose)
            return made
        if self._count > before or (plan.is_person and whose in self.told_of):
            return made
        is_withheld = len(made) < len(item)
        return None if is_withheld or plan.is_person or not made else made

    def _left(self, what: int, below: Any, value: Any, whose: str) -> Any:  # noqa: PLR0911  # as above
        """What is left of a property that is to be looked into; None when nothing is."""
        if what == _OBJECT:
            return self._item(below, value, whose)
        if what == _LIST:
            return [part for one in value if (part := self._item(below, one, whose)) is not None] or None
        if what == _WHOLE:
            return value or None  # an empty list says nothing
        if what == _ABOUT:
            return self._about(below, value, whose)
        if isinstance(value, list):
            if what == _IDENTIFIERS:
                return self._identifiers(value, whose) or None
            return [ref for ref in value if ref in self._kept] or None
        if what == _IDENTIFIERS:
            return value if value.get("system") in self._own else None
        return value if value in self._kept else None

    def _identifiers(self, said: list[dict[str, str]], whose: str) -> list[dict[str, str]]:
        own = [one for one in said if one.get("system") in self._own]
        for one in self._own_identifiers.get(whose, ()):
            if one.get("system") in self._own and one not in own:
                own.append(one)
        return own
