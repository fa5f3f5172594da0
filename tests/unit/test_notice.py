"""A notice holds what the message holds, in order, its instants in New Zealand time."""

from typing import Any

import orjson
import pytest

from adapters import notice
from schemas.message import Message

WINTER, LOCAL = "2026-07-02T03:04:05Z", "2026-07-02T15:04:05+12:00"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        pytest.param({"at": WINTER}, {"at": LOCAL}, id="at"),
        pytest.param({"a": [{"issuedAt": WINTER}]}, {"a": [{"issuedAt": LOCAL}]}, id="deep inside"),
        pytest.param({"cat": WINTER, "on": WINTER}, {"cat": WINTER, "on": WINTER}, id="other names"),
        pytest.param({"at": [WINTER]}, {"at": [WINTER]}, id="a list"),
        pytest.param({"at": "soon"}, {"at": "soon"}, id="no instant"),
        pytest.param({"note": f'"at":"{WINTER}"'}, {"note": f'"at":"{WINTER}"'}, id="a text that looks so"),
        pytest.param({"list": ["at", WINTER, "At"]}, {"list": ["at", WINTER, "At"]}, id="values called so"),
    ],
)
def test_instants_are_told_by_the_name_of_their_property(said: Any, shown: Any) -> None:
    message = Message("police", "m1", "nz.isr.police.episode-recorded.v1", WINTER, {"episode": said})
    body = orjson.loads(notice.write(message).content)
    assert (body["event"], body["sent"]) == ({"episode": shown}, LOCAL)
    assert message.data == {"episode": said}


def test_a_persons_own_identifier_stands_first_and_the_others_in_their_place() -> None:
    ours, other = {"system": "police-person", "value": "PN1"}, {"system": "nhi", "value": "ZZZ0016"}
    person = {"name": {"family": "A"}, "ref": "p1", "identifiers": [other, ours], "birthDate": "2000-01-01"}
    message = Message("police", "m1", "nz.isr.a.b.v1", WINTER, {"people": [{"role": "child", **person}]})
    vocabulary = notice.Vocabulary({"child": "Child exposed"}, {"police-person": "personRecordId"})
    (about,) = orjson.loads(notice.write(message, vocabulary).content)["about"]
    assert list(about) == ["ref", "role", "personRecordId", "birthDate", "identifiers", "name"]
    assert (about["role"], about["personRecordId"], about["identifiers"]) == ("Child exposed", "PN1", [other])
