"""Explaining from the ledger alone: everything to an auditor, almost nothing to an asker."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from gateway.explain import explain, in_order, outward, print_explanation, reason_says
from gateway.hub import Hub
from gateway.queries import decisions_on
from schemas.errors import InvalidMessage, NotFound
from tests.serving import episode, sent, small_hub

NAMES = ("Ngārimu", "Aroha", "Street", "Road")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def message(hub: Hub) -> str:
    (id,) = sent(hub, "police", episode())
    return id


def test_explain_has_every_party_that_was_decided_for(hub: Hub, message: str) -> None:
    found = explain(hub, message)
    site = {p.id for p in hub.agreements.parties.values() if p.active and "waikato-city" in p.sites}
    parties = [r["party"] for r in found["recipients"]]
    assert len(parties) == len(set(parties)) >= len(site & set(parties)) > 5
    assert "police" not in parties
    assert (found["source"], found["signed"]) == ("police", True)


def test_explain_says_for_each_what_was_given_what_not_and_why(hub: Hub, message: str) -> None:
    for one in explain(hub, message)["recipients"]:
        assert (one["disclosure"] is not None) == (one["outcome"] in ("permit", "reduced"))
        assert bool(one["given"]) == (one["disclosure"] is not None)
        assert bool(one["clauses"]) >= bool(one["given"])
        assert one["state"] == ("delivered" if one["disclosure"] else "")
        assert all(w["title"] and w["says"] != w["reason"] for w in one["withheld"])
        assert all(c["says"] for c in one["conditions"])
        assert all(c["title"] for c in one["clauses"])
        assert all(o["says"] for o in one["obligations"])
        assert all(g["says"] != g["code"] for g in one["guards"])


def test_explain_finds_the_message_behind_a_delivered_disclosure(hub: Hub, message: str) -> None:
    found = explain(hub, message)
    disclosure = next(r["disclosure"] for r in found["recipients"] if r["disclosure"])
    assert explain(hub, disclosure) == found


def test_explain_is_json_and_holds_nothing_of_the_message(hub: Hub, message: str) -> None:
    text = json.dumps(explain(hub, message), ensure_ascii=False)
    content = json.dumps(episode(), ensure_ascii=False)
    for person in _texts(episode()):
        if len(person) > 8 and " " in person:
            assert person not in text, "a text of the message is in its explanation"
    assert any(" " in text for text in _texts(json.loads(content)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


@pytest.mark.parametrize("id", ["no-such-message", "", "' OR 1=1 --", "ā" * 100])
def test_explain_does_not_find_what_is_not_there(hub: Hub, message: str, id: str) -> None:
    with pytest.raises(NotFound):
        explain(hub, id)


def test_explain_asks_which_sender_is_meant_when_two_use_one_id(hub: Hub, message: str) -> None:
    first = decisions_on(hub.engine, message)[0].body
    body = {**first, "source": "health", "message": message, "party": "acc"}
    from consent.ledger import Entry  # noqa: PLC0415  # only this test writes an entry

    with hub.engine.begin() as connection:
        hub.ledger.append(connection, [Entry(body["kind"], "health", message, "acc", body)])
    with pytest.raises(InvalidMessage) as caught:
        explain(hub, message)
    assert "health or police" in caught.value.problems[0].fix
    assert {r["party"] for r in explain(hub, message, "health")["recipients"]} == {"acc"}


def test_explain_still_reads_parties_and_types_of_a_former_release(hub: Hub, message: str) -> None:
    nobody = SimpleNamespace(current=lambda: type(hub.agreements)({}, (), "0" * 64))
    former = replace(hub, register=nobody)
    found = explain(former, message, "police")
    assert found["source_name"] == "police"
    assert all(c["title"] == "" for r in found["recipients"] for c in r["clauses"])


def test_print_explanation_shows_every_party_and_reason_without_taking_brackets_for_markup(
    hub: Hub, message: str
) -> None:
    found = explain(hub, message, "police")
    found["title"] = "A [bold]title[/] in brackets"
    out = io.StringIO()
    print_explanation(found, Console(file=out, width=120))
    text = " ".join(out.getvalue().split())
    assert "A [bold]title[/] in brackets" in text
    for one in found["recipients"]:
        assert f"({one['party']}): {one['outcome_says']}" in text
        assert all(c["id"] in text for c in one["clauses"])


@pytest.mark.parametrize(
    ("code", "says"),
    [
        pytest.param("V13", "Oranga Tamariki", id="a guard"),
        pytest.param("unmet-TASKED", "a condition was not met", id="a condition"),
        pytest.param("unmet-FORMER", "FORMER", id="a condition of a former release"),
        pytest.param("no-clause", "no clause", id="a reason"),
        pytest.param("never-heard-of", "never-heard-of", id="a reason of a former release"),
    ],
)
def test_reason_says_what_a_code_means(code: str, says: str) -> None:
    assert says in reason_says(code)


def test_in_order_counts_as_people_do() -> None:
    assert in_order(["V12", "IPP13", "V2", "V9", "V1"]) == ["V1", "V2", "V9", "V12", "IPP13"]


def test_outward_names_no_provider(hub: Hub, message: str) -> None:
    found = outward(hub, "police", message)
    assert found is not None
    named = {r["party"] for r in found["recipients"]}
    assert not {p for p in named if p.startswith("ngo.")}
    assert found.keys() == {"id", "recipients"}


def test_outward_says_on_its_way_until_it_was_delivered(
    hub: Hub, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway import queries  # noqa: PLC0415  # replaced for this test only

    monkeypatch.setattr(queries, "deliveries_of", lambda *_: {})
    found = outward(hub, "police", message)
    assert found is not None
    assert {r["state"] for r in found["recipients"]} == {"on its way"}


@pytest.mark.parametrize("sender", ["corrections", "oranga-tamariki", "", "hub"])
def test_outward_is_nothing_to_anybody_but_the_sender(hub: Hub, message: str, sender: str) -> None:
    assert outward(hub, sender, message) is None
