"""Minimisation: the part of a message that a decision gives, built up from what is granted; nothing is ever
copied and then removed.

A reader of the result learns nothing from its form either: a person about whom nothing is given is not
there, neither is any reference to that person, and structure (FRAME) stands only beside something that is
given, unless nothing but structure was there to begin with.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from consent.decision import Decision, Grant, Outcome
from schemas.catalogue import Branch, Leaf, about_whom
from schemas.classes import CASE, FRAME, Facet
from schemas.identifiers import ISSUERS, NHI

# Agencies that may use the NHI beside its issuer (Health Information Privacy Code 2020, rule 13).
NHI_AGENCIES = frozenset({"health", "gp"})
PEOPLE = "people"

# What to do with a property that is not simply taken.
_WITHHOLD, _OBJECT, _LIST, _ABOUT, _FRAME, _FRAME_REFERENCE, _REFERENCES, _IDENTIFIERS, _WHOLE = range(9)
_WITHHELD: tuple[int, Any] = (_WITHHOLD, None)
_NOTHING_GIVEN = Grant()


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
    """What may stay of an object of *branch* about somebody in *role*: for each property None (take it) or
    how to look into it. A property that is not in *steps* is withheld.
    """

    __slots__ = ("branch", "steps")

    @property
    def is_whole(self) -> bool:
        """Whether everything that can be in the object stays as it is."""
        return len(self.steps) == len(self.branch.children) and all(
            step is None or step[0] == _WHOLE for step in self.steps.values()
        )

    def __init__(self, branch: Branch, role: str, given: Mapping[Facet, str]) -> None:
        self.branch = branch
        self.steps: dict[str, tuple[int, Any] | None] = {}
        for name, child in branch.children.items():
            if not isinstance(child, Leaf):
                # Who an inner object is about is known now unless it says so itself.
                if child.about:
                    self.steps[name] = (_ABOUT, child)
                elif (below := _Plan(child, role, given)).is_whole:
                    self.steps[name] = (_WHOLE, None)
                elif below.steps:  # else nothing of it can stay
                    self.steps[name] = (_LIST if child.array else _OBJECT, below)
                continue
            facet = child.facets.get(role)
            if facet is None:
                continue
            if facet.name == FRAME:
                self.steps[name] = (_FRAME_REFERENCE if child.person_ref else _FRAME, None)
                continue
            view = given.get(facet)
            if view != "full" and not (view == "reduced" and child.reduced):
                continue
            if child.identifiers:
                self.steps[name] = (_IDENTIFIERS, None)
            elif child.person_ref:
                self.steps[name] = (_REFERENCES, None)
            else:
                self.steps[name] = None


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
        look = plan.steps.get
        before, direct, withheld = self._count, False, False
        made: dict[str, Any] = {}
        for name, value in item.items():
            step = look(name, _WITHHELD)
            if step is None:
                made[name] = value
                direct = True
                continue
            what, below = step
            left: Any = None
            if what == _FRAME:
                left = value
            elif what == _OBJECT:
                left = self._item(below, value, whose)
            elif what == _LIST:
                left = [part for one in value if (part := self._item(below, one, whose)) is not None] or None
            elif what != _WITHHOLD:
                left = self._referring(what, below, value, whose)
            if left is None:
                withheld = True
            else:
                made[name] = left
                direct = direct or what >= _REFERENCES
        person = plan.branch.about == "self"
        if person and "identifiers" not in item and (look("identifiers") or _WITHHELD)[0] == _IDENTIFIERS:
            # The recipient's own number for this person, known from elsewhere: the decision covers the class.
            own = self._identifiers([], whose)
            if own:
                made["identifiers"] = own
                direct = True
        if direct:
            self._count += 1
            self.told_of.add(whose)
            return made
        if self._count > before or (person and whose in self.told_of):
            return made
        return None if withheld or person or not made else made

    def _referring(self, what: int, below: Any, value: Any, whose: str) -> Any:
        """What is left of what stays as it is, of what says itself whom it is about, of references to people,
        and of identifiers; None when nothing is.
        """
        if what == _WHOLE:
            return value or None  # an empty list says nothing
        if what == _ABOUT:
            return self._about(below, value, whose)
        if what == _IDENTIFIERS:
            if isinstance(value, list):
                return self._identifiers(value, whose) or None
            return value if value.get("system") in self._own else None
        if isinstance(value, list):
            return [ref for ref in value if ref in self._kept] or None
        return value if value in self._kept else None

    def _identifiers(self, said: list[dict[str, str]], whose: str) -> list[dict[str, str]]:
        own = [one for one in said if one.get("system") in self._own]
        for one in self._own_identifiers.get(whose, ()):
            if one.get("system") in self._own and one not in own:
                own.append(one)
        return own
