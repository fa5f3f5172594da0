"""The life of an agreement in a running hub, and what waits or was sent when it, or a case, changes."""

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from adapters.adapter import Native
from broker.broker import SUBMISSIONS, deliveries_to
from consent import recalls
from consent.life import Officer
from consent.register import Register, Taken
from consent.verify import verify
from gateway import steps
from gateway.auth import AUDIT, mint_session
from gateway.command import main
from gateway.console import COOKIE
from gateway.hub import Hub, agreements_folder, open_hub
from gateway.settings import Settings
from schemas.database import reading
from schemas.errors import BadAgreement, NotFound, OutOfTurn
from schemas.message import CONTENT_TYPE, identity
from tests.format_examples import NOW
from tests.integration.test_console import LOOKING
from tests.serving import episode, now, serving

TABLE = ("fss", "oranga-tamariki", "corrections", "health")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The hub's own agreements, as files that a test may change."""
    at = tmp_path / "agreements"
    at.mkdir()
    for file in agreements_folder(Settings()).glob("*.yaml"):
        (at / file.name).write_bytes(file.read_bytes())
    return at


@pytest.fixture
def hub(tmp_path: Path, folder: Path) -> Iterator[Hub]:
    with open_hub(Settings(data=tmp_path / "hub", agreements=folder), clock=now) as opened:
        yield opened


def officer(hub: Hub, party: str, name: str = "Officer One") -> Officer:
    return hub.register.officer(party, f"{name} of {party}")


def take(hub: Hub, verb: str, *words: str, by: str = "police", name: str = "Officer One") -> Taken:
    return steps.take(hub, verb, list(words), officer(hub, by, name))


def entries(hub: Hub, *kinds: str) -> list[dict[str, Any]]:
    found = [orjson.loads(raw) for raw in hub.ledger.entries(0, hub.ledger.head().size)]
    return [entry for entry in found if entry["kind"] in kinds] if kinds else found


def send(hub: Hub, party: str, record: Any) -> str:
    """Hands in *record* and carries it, and delivers nothing."""
    media = CONTENT_TYPE if "specversion" in record else "application/json"
    receipt = hub.exchange.accept(party, [Native(json.dumps(record).encode(), media, "in.json")])[0]
    assert receipt.rejected == []
    while hub.exchange.carry():
        pass
    return receipt.accepted[0]


def received(hub: Hub, party: str) -> list[str]:
    return [p.read_text("utf-8") for p in sorted((hub.settings.data / "agencies" / party).glob("received/*"))]


def flipped() -> dict[str, Any]:
    """A later episode of the same two, in which Police see the other one as the aggressor."""
    record = copy.deepcopy(episode())
    record["eventNumber"] = "P066234999"
    first, second = record["persons"][:2]
    first["role"], second["role"] = second["role"], first["role"]
    record["occurredAt"], record["reportedAt"] = "2026-11-22T12:40:00+13:00", "2026-11-22T13:15:00+13:00"
    return record


def draft(folder: Path, name: str, **head: str) -> Path:
    """The next version of *name*, changed in its head."""
    text = (folder / f"{name}.yaml").read_text("utf-8")
    for key, value in {"version": "2", **head}.items():
        lines = text.splitlines()
        at = next((i for i, line in enumerate(lines) if line.startswith(f"  {key}:")), None)
        if at is None:
            lines.insert(lines.index("agreement:") + 1, f"  {key}: {value}")
        else:
            lines[at] = f"  {key}: {value}"
        text = "\n".join(lines) + "\n"
    path = folder / f"{name}-next.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_baseline_is_the_first_entry_and_leads_from_a_citation_to_the_content(hub: Hub, folder: Path) -> None:
    send(hub, "police", episode())
    first, *later = entries(hub)

    assert (first["kind"], first["step"]) == ("agreement", "baseline")
    assert {e["agreements"] for e in later} == {first["set"]}
    cited = {clause.partition("/")[0] for e in later for clause in e["clauses"]}
    assert cited
    assert cited <= set(first["agreements"])
    by_name = {a.name: a.content for a in hub.agreements}
    assert {n: c for n, c in first["agreements"].items() if n in by_name} == by_name


def test_second_opening_records_nothing(hub: Hub, tmp_path: Path, folder: Path) -> None:
    register = Register(hub.engine, hub.ledger, folder, hub.keys, now)
    register.start()

    assert hub.ledger.head().size == 1
    assert register.current().version_hash == hub.agreements.version_hash


def test_suspended_agreement_stops_what_is_queued(hub: Hub) -> None:
    send(hub, "police", episode())
    waiting = {party: hub.broker.depth(deliveries_to(party)) for party in hub.agreements.parties}
    assert waiting["fss"] == 1
    size = hub.ledger.head().size

    take(hub, "suspend", "ISR-TABLE")
    hub.exchange.finish()

    # What the agreement gave does not arrive; that it is suspended does.
    assert not any("episode" in text for text in received(hub, "fss"))
    assert any("agreement-changed" in text for text in received(hub, "fss"))
    stopped = {e["party"]: e for e in entries(hub, "stopped")}
    assert stopped["fss"]["agreements"] == hub.agreements.version_hash != entries(hub)[0]["set"]
    assert "no-clause" in stopped["fss"]["reasons"]
    assert all(hub.broker.depth(deliveries_to(party)) == 0 for party in waiting)
    delivered = {e["message"] for e in entries(hub, "delivery")}
    assert delivered.isdisjoint(e["message"] for e in stopped.values())
    assert hub.ledger.head().size > size
    report = verify(hub.settings.data, str(hub.settings.data / "ledger.vkey"))
    assert report.ok, report.lines()


def test_stopped_is_stopped_after_a_crash_and_after_the_agreement_is_resumed(hub: Hub) -> None:
    send(hub, "police", episode())
    take(hub, "suspend", "ISR-TABLE")
    queue = deliveries_to("fss")
    deliveries = hub.broker.receive(queue, 10, 0.0)
    verdict = hub.exchange._recheck.check(
        "fss", deliveries, lambda d: hub.exchange._prover.opened("fss", d.body, d.headers)
    )
    hub.broker.requeue(deliveries)  # as after a crash between the entry and the acknowledgement
    take(hub, "resume", "ISR-TABLE", by="corrections")
    hub.exchange.finish()

    assert list(verdict.changed.values()) == [None]
    assert len([e for e in entries(hub, "stopped") if e["party"] == "fss"]) == 1
    assert not any("episode" in text for text in received(hub, "fss"))


def test_nothing_is_asked_again_while_nothing_changes(hub: Hub) -> None:
    send(hub, "police", episode())
    hub.exchange.finish()

    assert entries(hub, "stopped", "narrowed", "recall") == []
    assert received(hub, "fss")
    again = [m for m in hub.telemetry.decided_again.collect() for s in m.samples]
    assert again == []


def test_waiting_delivery_is_stopped_when_the_recipient_turns_out_to_be_in_conflict(hub: Hub) -> None:
    send(hub, "police", episode())
    case = entries(hub, "disclosure")[0]["cases"][0]
    send(hub, "fss", conflict(case, "health"))
    hub.exchange.finish()

    stopped = [e for e in entries(hub, "stopped") if e["party"] == "health"]
    assert ["V7" in e["guards"] for e in stopped] == [True]
    # Everybody else was asked about again too, and is given what was decided.
    assert {e["party"] for e in entries(hub, "stopped", "narrowed")} == {"health"}
    assert not any("Mārama" in text for text in received(hub, "health"))
    assert any("Mārama" in text for text in received(hub, "oranga-tamariki"))


def conflict(case: str, party: str) -> dict[str, Any]:
    """The meeting's list says that *party* has a conflict of interest in *case*."""
    return {
        "specversion": "1.0",
        "id": identity("fss", f"list of {case}"),
        "source": "urn:isr:fss",
        "type": "nz.isr.fss.sam-list-published.v1",
        "time": "2026-11-22T03:00:00Z",
        "datacontenttype": "application/json",
        "correlationid": case,
        "data": {
            "list": {
                "meetingOn": "2026-11-23",
                "site": "waikato-rural",
                "item": 1,
                "of": 1,
                "kind": "episode",
                "conflicts": [party],
            },
            "people": [
                {
                    "ref": "p1",
                    "role": "perpetrator",
                    "name": {"given": "Rāwiri", "family": "Example"},
                    "birthDate": "1991-02-03",
                }
            ],
        },
    }


def test_late_conflict_recalls_what_was_delivered_and_tells_the_holder(hub: Hub) -> None:
    message = send(hub, "police", episode())
    hub.exchange.finish()
    given = next(e for e in entries(hub, "disclosure") if e["party"] == "health")
    send(hub, "fss", conflict(given["cases"][0], "health"))
    hub.exchange.finish()

    (recall,) = entries(hub, "recall")
    assert (recall["party"], recall["message"], recall["reasons"]) == (
        "health",
        given["disclosure"],
        ["link-became-known"],
    )
    assert any(given["disclosure"] in text for text in received(hub, "health"))
    notice = [text for text in received(hub, "police") if message in text]
    assert len(notice) == 1
    assert "health" not in notice[0]
    with reading(hub.engine).connect() as connection:
        (task,) = recalls.tasks(connection, is_open=True)
    assert (task.party, task.holder, task.message) == ("health", "police", message)
    report = verify(hub.settings.data, str(hub.settings.data / "ledger.vkey"))
    assert report.ok, report.lines()


def test_late_role_flip_recalls_what_a_party_would_not_have_been_given(hub: Hub) -> None:
    send(hub, "police", episode())
    hub.exchange.finish()
    before = {e["disclosure"]: e["party"] for e in entries(hub, "disclosure")}
    send(hub, "police", flipped())
    hub.exchange.finish()

    recalled = entries(hub, "recall")
    assert recalled
    assert {e["reasons"][0] for e in recalled} == {"role-changed"}
    assert {before[e["message"]] for e in recalled} == {e["party"] for e in recalled}
    # Corrections had learnt where the one now seen as the victim is, as the perpetrator's whereabouts.
    assert "corrections" in {e["party"] for e in recalled}
    assert all(any(e["message"] in text for text in received(hub, e["party"])) for e in recalled)


def test_role_flip_reaches_what_is_still_queued(hub: Hub) -> None:
    send(hub, "police", episode())
    waiting = hub.broker.depth(deliveries_to("corrections"))
    send(hub, "police", flipped())
    hub.exchange.finish()

    assert waiting == 1
    changed = entries(hub, "stopped", "narrowed")
    assert "corrections" in {e["party"] for e in changed}
    assert entries(hub, "recall") == []
    first = next(e for e in entries(hub, "disclosure") if e["party"] == "corrections")
    assert not any(
        first["disclosure"] in path.name and "14 Example Road" in path.read_text("utf-8")
        for path in (hub.settings.data / "agencies" / "corrections").glob("received/*")
    )


def test_recall_is_settled_once_by_the_holder(hub: Hub) -> None:
    send(hub, "police", episode())
    hub.exchange.finish()
    given = next(e for e in entries(hub, "disclosure") if e["party"] == "health")
    send(hub, "fss", conflict(given["cases"][0], "health"))

    with pytest.raises(OutOfTurn, match="privacy officer of police"):
        steps.settle(hub, given["disclosure"], officer(hub, "health"))
    steps.settle(hub, given["disclosure"], officer(hub, "police"))
    with pytest.raises(OutOfTurn, match="was settled"):
        steps.settle(hub, given["disclosure"], officer(hub, "police"))
    with pytest.raises(NotFound):
        steps.settle(hub, "no-such", officer(hub, "police"))
    assert [e["step"] for e in entries(hub, "recall")] == ["sent", "settled"]
    with reading(hub.engine).connect() as connection:
        assert recalls.tasks(connection, is_open=True) == []


def test_draft_comes_into_force_once_both_sides_have_approved(hub: Hub, folder: Path) -> None:
    path = draft(folder, "isr-education", supersedes="ISR-EDUCATION@1", effective_from="2026-11-22")
    before = hub.agreements.version_hash
    proposed = steps.take(hub, "propose", [str(path)], officer(hub, "education"))
    name = proposed.life.name
    assert (name, proposed.life.state, proposed.changed) == ("ISR-EDUCATION@2", "draft", False)
    with pytest.raises(OutOfTurn, match="whoever proposed"):
        take(hub, "approve", name, by="education")
    lacking = take(hub, "approve", name, by="education", name="Officer Two")
    assert lacking.life.state == "draft"
    assert hub.agreements.version_hash == before
    with pytest.raises(OutOfTurn, match="another content"):
        steps.take(hub, "approve", [name], officer(hub, "police"), "0" * 64)

    with pytest.raises(OutOfTurn, match="neither side"):
        take(hub, "approve", name, by="acc")
    done = take(hub, "approve", name, by="police")

    assert done.life.state == "approved"
    assert done.changed
    assert hub.agreements.version_hash != before
    by_name = {a.name: a for a in hub.agreements}
    assert by_name["ISR-EDUCATION@1"].effective_to == by_name[name].effective_from - timedelta(days=1)
    words = {life.name: word for life, _, word in hub.register.shown(NOW.date())}
    assert words["ISR-EDUCATION@1"] == "superseded"
    assert words[name] == "in force"
    told = [e for e in entries(hub, "agreement") if e["step"] == "approve"]
    assert "Officer" not in json.dumps(told)
    assert {e["officer"] for e in told}.isdisjoint({""})


def test_every_step_is_told_to_the_parties_concerned(hub: Hub) -> None:
    take(hub, "suspend", "ISR-EDUCATION")
    hub.exchange.finish()

    assert any("suspend" in text for text in received(hub, "education"))
    assert not any("suspend" in text for text in received(hub, "acc"))


def test_who_suspended_does_not_resume_and_a_stranger_does_neither(hub: Hub) -> None:
    with pytest.raises(OutOfTurn, match="neither side"):
        take(hub, "suspend", "ISR-EDUCATION", by="acc")
    take(hub, "suspend", "ISR-EDUCATION", by="education")
    with pytest.raises(OutOfTurn, match="another person"):
        take(hub, "resume", "ISR-EDUCATION", by="education")
    before = hub.agreements.version_hash
    assert take(hub, "resume", "ISR-EDUCATION", by="education", name="Officer Two").changed
    assert hub.agreements.version_hash == entries(hub)[0]["set"] != before
    take(hub, "revoke", "ISR-EDUCATION", by="education")
    with pytest.raises(OutOfTurn, match="is revoked"):
        take(hub, "resume", "ISR-EDUCATION", by="education")


def test_supersession_in_a_circle_is_refused(hub: Hub) -> None:
    with pytest.raises(OutOfTurn, match="itself superseded"):
        take(hub, "supersede", "ISR-EDUCATION", "ISR-EDUCATION", by="education")


def test_running_process_notices_a_step_of_another(hub: Hub, tmp_path: Path, folder: Path) -> None:
    other = Register(hub.engine, hub.ledger, folder, hub.keys, now)
    other.start()
    former = other.current().version_hash
    take(hub, "suspend", "ISR-EDUCATION", by="education")
    other._looked -= 2.0  # a second has passed

    assert other.current().version_hash == hub.agreements.version_hash != former


def test_file_changed_after_approval_does_not_count_and_is_said(hub: Hub, folder: Path) -> None:
    before = hub.agreements.version_hash
    path = folder / "isr-education.yaml"
    path.write_text(path.read_text("utf-8").replace("2026-06-20", "2026-06-21"), encoding="utf-8")
    (folder / "new.yaml").write_text("agreement: &a {}\n", encoding="utf-8")
    hub.register._looked -= 2.0

    hub.note_agreements()

    assert hub.agreements.version_hash == before
    troubles = {p.pointer.partition(":")[0]: p.detail for p in hub.register.troubles()}
    assert "changed after ISR-EDUCATION@1 was approved" in troubles["isr-education.yaml"]
    assert "anchor" in troubles["new.yaml"]
    assert hub.telemetry.agreement_troubles._value.get() == len(troubles) == 2
    assert hub.telemetry.agreements._value.get() == 6


def test_bad_draft_is_refused_and_changes_nothing(hub: Hub, folder: Path) -> None:
    size = hub.ledger.head().size
    path = draft(folder, "isr-education")  # begins when version 1 does, and does not supersede it
    with pytest.raises(BadAgreement, match="overlap"):
        steps.take(hub, "propose", [str(path)], officer(hub, "education"))
    same = folder / "isr-education.yaml"
    with pytest.raises(OutOfTurn, match="next version"):
        steps.take(hub, "propose", [str(same)], officer(hub, "education"))

    assert hub.ledger.head().size == size
    assert hub.broker.depth(SUBMISSIONS) == 0


def test_commands_take_steps_and_tell_where_each_agreement_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "hub"), "--json"]
    with open_hub(Settings(data=tmp_path / "hub"), clock=now):
        pass
    who = ["--by", "education", "--officer", "Someone"]
    assert main(["agreements", "suspend", "ISR-EDUCATION", *who, *data]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "suspended"
    assert main(["agreements", "resume", "ISR-EDUCATION", *who, *data]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "out-of-turn"
    assert main(["agreements", "suspend", *data]) == 2
    capsys.readouterr()
    assert main(["agreements", "history", *data]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {a["agreement"]: a["state"] for a in said["agreements"]}["ISR-EDUCATION"] == "suspended"
    assert main(["agreements", "history", "ISR-EDUCATION", *data]) == 0
    steps_said = [s["step"] for s in json.loads(capsys.readouterr().out)]
    assert steps_said == ["baseline", "suspend"]
    assert main(["recalls", "list", *data]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["agreements", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$id"].endswith("agreement/v1.0.json")


def test_console_shows_where_each_agreement_stands_and_what_was_recalled(hub: Hub, folder: Path) -> None:
    path = folder / "isr-education.yaml"
    path.write_text(path.read_text("utf-8").replace("2026-06-20", "2026-06-21"), encoding="utf-8")
    send(hub, "police", episode())
    hub.exchange.finish()
    given = next(e for e in entries(hub, "disclosure") if e["party"] == "health")
    send(hub, "fss", conflict(given["cases"][0], "health"))
    take(hub, "suspend", "ISR-SUPPORT")
    hub.register._looked -= 2.0

    with serving(hub) as client:
        cookie = mint_session(hub.settings, [AUDIT], 60, now, LOOKING)
        page = client.get("/console/agreements", headers={"Cookie": f"{COOKIE}={cookie}"}).text

    assert "isr-education.yaml" in page
    assert "changed after ISR-EDUCATION@1 was approved" in page
    assert 'class="tag refuse">suspended' in page
    assert given["disclosure"] in page
    assert "link-became-known" in page
    assert "Mārama" not in page
