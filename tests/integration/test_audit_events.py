"""The ledger as BALP AuditEvents: what the profiles demand is there, and nobody is named.

The demands stand here as tables, read from the profiles of IHE's Basic Audit Log Patterns 1.1 and from
AuditEvent of FHIR R4 (4.0.1): which slices there are, by the code of their type, how often, and what each
must hold.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import command
from gateway.audit_events import CONSENT, PROFILE, RECIPIENT, SOURCE, audit_events
from gateway.hub import Hub
from gateway.queries import between
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from schemas.clock import instant_of
from tests.serving import episode, sent, small_hub

DCM = "http://dicom.nema.org/resources/ontology/DCM"
TERMS = "http://terminology.hl7.org/CodeSystem/"
# Agents and entities: code of the type → (least, most, what each must hold).
PROFILES: dict[str, dict[str, Any]] = {
    SOURCE: {
        "type": (DCM, "110106"),
        "action": "R",
        "subtype": (f"{TERMS}iso-21089-lifecycle", "disclose"),
        "observer_is": "110153",
        "agents": {
            "110153": (1, 1, {"who", "network"}),
            "110152": (1, 1, {"who", "network"}),
            "159541003": (0, 1, {"who"}),
        },
        "entities": {"1": (1, 1, {"what", "role"}), "2": (1, None, {"what"})},
    },
    RECIPIENT: {
        "type": (DCM, "110107"),
        "action": "C",
        "subtype": (f"{TERMS}iso-21089-lifecycle", "disclose"),
        "observer_is": "110152",
        "agents": {"110153": (1, 1, {"who", "network"}), "110152": (1, 1, {"who", "network"})},
        "entities": {"1": (1, 1, {"what", "role"}), "2": (1, None, {"what"})},
    },
    CONSENT: {
        "type": (DCM, "110113"),
        "action": "E",
        "subtype": ("https://profiles.ihe.net/ITI/BALP/CodeSystem/AuthZsubType", "AuthZ-Consent"),
        "observer_is": "authserver",
        "agents": {
            "110150": (1, 1, {"who", "network"}),
            "IRCP": (1, 1, {"who", "requestor"}),
            "PROV": (1, 1, {"who", "requestor"}),
            "authserver": (1, 1, {"who", "requestor"}),
        },
        "entities": {"1": (1, 1, {"what", "role"}), "Consent": (1, None, {"what"})},  # closed
    },
}
# AuthZconsent forbids these of its agents.
FORBIDDEN = {
    "110150": {"role", "altId", "name", "location", "media", "purposeOfUse"},
    "IRCP": {"altId", "location", "media", "network"},
    "PROV": {"role", "altId", "name", "location", "policy", "media", "network"},
    "authserver": {"role", "altId", "name", "location", "policy", "media", "network", "purposeOfUse"},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        sent(hub, "police", episode())
        hub.exchange.accept("police", [five_f(i.family, i.episode) for i in stream(15, 3, days=1)])
        hub.exchange.finish()
        yield hub


@pytest.fixture(scope="module")
def events(hub: Hub) -> list[dict[str, Any]]:
    return list(audit_events(hub, 0, hub.ledger.head().size))


def profile_of(event: dict[str, Any]) -> str:
    (profile,) = event["meta"]["profile"]
    return str(profile).removeprefix(PROFILE)


def code_of(part: dict[str, Any]) -> str:
    """The code of an agent's (CodeableConcept) or entity's (Coding) type."""
    kind = part["type"]
    return str((kind["coding"][0] if "coding" in kind else kind)["code"])


def entries(hub: Hub, *kinds: str) -> list[dict[str, Any]]:
    rows = between(hub.engine, 0, hub.ledger.head().size)
    return [dict(row.body) for row in rows if row.body["kind"] in kinds]


def test_events_have_what_their_profile_demands(events: list[dict[str, Any]]) -> None:
    assert {profile_of(event) for event in events} == set(PROFILES)
    for event in events:
        rule = PROFILES[profile_of(event)]
        assert "modifierExtension" not in event
        assert (event["type"]["system"], event["type"]["code"]) == rule["type"]
        assert event["action"] == rule["action"]
        assert rule["subtype"] in {(c["system"], c["code"]) for c in event["subtype"]}
        assert event["outcome"] in ("0", "4", "8")
        for name in ("agents", "entities"):
            parts = event["agent" if name == "agents" else "entity"]
            assert len(parts) >= 2
            counted = Counter(map(code_of, parts))
            assert counted.keys() <= rule[name].keys()
            for code, (least, most, needs) in rule[name].items():
                assert least <= counted[code] <= (most or 1000)
                assert all(needs <= part.keys() for part in parts if code_of(part) == code)
        (observer,) = (a for a in event["agent"] if code_of(a) == rule["observer_is"])
        assert observer["who"] == event["source"]["observer"]  # val-audit-source
        (patient,) = (e for e in event["entity"] if code_of(e) == "1")
        assert (patient["role"]["code"], patient["what"]["type"]) == ("1", "Patient")


def test_authorisation_events_hold_nothing_that_their_profile_forbids(events: list[dict[str, Any]]) -> None:
    for event in events:
        if profile_of(event) == CONSENT:
            for agent in event["agent"]:
                assert not FORBIDDEN[code_of(agent)] & agent.keys()
                assert agent["requestor"] is (code_of(agent) == "IRCP")
            if event["outcome"] != "0":
                assert event["outcomeDesc"]


def test_events_meet_audit_event_of_fhir_r4(events: list[dict[str, Any]]) -> None:
    fields = {"resourceType", "id", "meta", "type", "subtype", "action", "recorded", "outcome", "outcomeDesc",
              "purposeOfEvent", "agent", "source", "entity"}  # fmt: skip
    assert len({event["id"] for event in events}) == len(events)
    for event in events:
        assert event.keys() <= fields
        assert event["resourceType"] == "AuditEvent"
        assert instant_of(event["recorded"])
        for agent in event["agent"]:
            assert type(agent["requestor"]) is bool
            assert agent.keys() <= {"type", "who", "requestor", "network", "purposeOfUse"}
            if "network" in agent:
                assert agent["network"].keys() == {"address", "type"}
        for entity in event["entity"]:
            assert entity.keys() <= {"what", "type", "role", "detail"}
            for detail in entity.get("detail", ()):
                assert detail.keys() == {"type", "valueString"}
                assert detail["valueString"].strip() == detail["valueString"] != ""
        assert no_empty(event)


def no_empty(value: Any) -> bool:
    """FHIR knows no empty text, list or object."""
    if isinstance(value, dict):
        return bool(value) and all(map(no_empty, value.values()))
    if isinstance(value, list):
        return bool(value) and all(map(no_empty, value))
    return value != "" and value is not None


def test_each_entry_has_its_events_one_for_each_person(hub: Hub, events: list[dict[str, Any]]) -> None:
    decisions = entries(hub, "disclosure", "referral", "refusal")
    counted = Counter(map(profile_of, events))
    people = {(d["source"], d["message"]): max(1, len(d["subjects"])) for d in decisions}
    assert counted[CONSENT] == sum(max(1, len(d["subjects"])) for d in decisions)
    assert counted[RECIPIENT] == sum(people.values())
    released = {d["disclosure"]: d for d in decisions if d["kind"] == "disclosure"}
    ended = entries(hub, "delivery")
    assert counted[SOURCE] == sum(max(1, len(released[e["message"]]["subjects"])) for e in ended)
    outcomes = Counter(e["outcome"] for e in events if profile_of(e) == CONSENT)
    assert outcomes["0"] == sum(max(1, len(d["subjects"])) for d in decisions if d["kind"] == "disclosure")
    assert outcomes["4"] == sum(max(1, len(d["subjects"])) for d in decisions if d["kind"] == "referral")


def test_events_name_people_by_commitment_only(hub: Hub, events: list[dict[str, Any]]) -> None:
    stated = {
        digest for d in entries(hub, "disclosure", "referral", "refusal") for _, digest in d["subjects"]
    }
    found = set()
    for event in events:
        (patient,) = (e for e in event["entity"] if code_of(e) == "1")
        found.add(patient["what"]["identifier"]["value"])
        assert "reference" not in patient["what"]
        assert "display" not in patient["what"]
    assert found == stated
    text = json.dumps(events, ensure_ascii=False)
    names = {v for v in texts(episode()) if len(v) > 8 and " " in v}
    assert names
    assert not [name for name in names if name in text]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def test_same_entry_always_gives_the_same_events(hub: Hub, events: list[dict[str, Any]]) -> None:
    size = hub.ledger.head().size
    assert list(audit_events(hub, 0, size)) == events
    assert [e for e in audit_events(hub, 5, size) if profile_of(e) == CONSENT] == [
        e for e in events if profile_of(e) == CONSENT and entry_of(e) >= 5
    ]


def entry_of(event: dict[str, Any]) -> int:
    return next(
        int(d["valueString"])
        for e in event["entity"]
        for d in e.get("detail", ())
        if d["type"] == "ledger-entry"
    )


def test_command_writes_a_line_for_each_event_and_says_that_it_did(
    hub: Hub, events: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["ledger", "audit-events", "--data", str(hub.settings.data), "--purpose", "ADM-REPORT"]
    assert command.main([*run, "--since", "2026-11-22"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [event["id"] for event in events]
    assert command.main([*run, "--since", "2026-11-23"]) == 0
    assert capsys.readouterr().out == ""
    assert [(e["what"], e["purpose"]) for e in entries(hub, "access")] == [("audit-events", "ADM-REPORT")] * 2
