"""Errors over HTTP: one shape, one table, and nothing said to whoever may not know."""

import inspect

import orjson
import pytest

from gateway import problems
from schemas import errors
from schemas.errors import HubError, InvalidMessage, NotFound, Problem, TooLarge, Unconfirmed

ALL = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, HubError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_of_its_own_in_the_table(kind: type[HubError]) -> None:
    assert kind in problems._STATUS
    assert 400 <= problems.status_of(kind()) <= 599


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_problem_has_the_members_of_rfc_9457_for_every_error(kind: type[HubError]) -> None:
    said = problems.problem(kind("what failed"))
    assert said["type"] == f"https://isr-hub.example.nz/problems/{kind.code}"
    assert {"type", "title", "status", "detail"} <= set(said)
    assert "instance" not in said


def test_problem_keeps_the_status_of_the_nearest_class_above_when_the_error_is_a_new_kind() -> None:
    class Narrower(TooLarge):
        """Narrower."""

    assert problems.status_of(Narrower()) == 413


def test_problem_carries_pointer_detail_and_fix_of_every_finding() -> None:
    error = InvalidMessage(
        "wrong", Problem("/data/people/0/role", "is required", "add it"), Problem("", "odd")
    )
    assert problems.problem(error)["errors"] == [
        {"pointer": "/data/people/0/role", "detail": "is required", "fix": "add it"},
        {"pointer": "", "detail": "odd", "fix": ""},
    ]


def test_problem_is_the_same_for_everything_that_is_not_found() -> None:
    reasons = (
        NotFound("a record is restricted"),
        NotFound("no such thing", Problem("/x", "y", "z")),
        NotFound(),
    )
    assert len({orjson.dumps(problems.problem(e)) for e in reasons}) == 1


def test_problem_does_not_describe_what_failed_inside() -> None:
    assert "tile" not in problems.problem(errors.LedgerContradiction("tile 7 is gone"))["detail"]


def test_answer_says_when_to_come_back_only_when_coming_back_helps() -> None:
    assert problems.answer(Unconfirmed()).headers["retry-after"] == "5"
    assert "retry-after" not in problems.answer(InvalidMessage()).headers


def test_none_accepted_is_the_only_problem_when_there_is_one() -> None:
    assert problems.none_accepted([TooLarge("long")]) == problems.problem(TooLarge("long"))


@pytest.mark.parametrize(
    ("found", "status"),
    [
        pytest.param([TooLarge(), TooLarge()], 413, id="all alike"),
        pytest.param([TooLarge(), InvalidMessage()], 422, id="of two kinds"),
    ],
)
def test_none_accepted_has_the_status_that_all_share_when_there_are_several(
    found: list[HubError], status: int
) -> None:
    said = problems.none_accepted(found)
    assert said["status"] == status
    assert [p["status"] for p in said["rejected"]] == [problems.status_of(e) for e in found]
