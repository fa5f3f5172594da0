"""Who looked is in the ledger before anything is shown; evidence opens exactly what it was made for."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from consent.ledger import Ledger
from consent.people import People
from consent.placing import case_table
from consent.subjects import Subjects
from consent.verify import verify
from gateway import command, evidence
from gateway.access import AccessLog, Look, Viewer, message_id, officer_of, viewer
from gateway.auth import AUDIT, OPERATE, mint_session
from gateway.console import COOKIE
from gateway.hub import Hub
from gateway.queries import between, decisions_on
from schemas.errors import InvalidMessage, LedgerContradiction, NotFound
from tests.serving import episode, now, sent, serving, small_hub

WHO = Viewer("0" * 32, "police", "ADM-ACCESS", "AR-2026-31")
HERE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The data of a hub that carried one episode, and the id of its message."""
    folder = tmp_path_factory.mktemp("carried")
    with small_hub(folder) as hub:
        (id,) = sent(hub, "police", episode())
    return folder, id


@pytest.fixture
def hub(request: pytest.FixtureRequest, carried: tuple[Path, str], tmp_path: Path) -> Iterator[Hub]:
    """A hub of this test's own: with the episode when the test asks for its message, else empty."""
    if "message" in request.fixturenames:
        shutil.copytree(carried[0], tmp_path / "hub")
    with small_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def message(carried: tuple[Path, str]) -> str:
    return carried[1]


def looks(hub: Hub) -> list[dict[str, Any]]:
    rows = between(hub.engine, 0, hub.ledger.head().size)
    return [dict(row.body) for row in rows if row.body["kind"] == "access"]


def log_of(hub: Hub) -> AccessLog:
    return AccessLog(hub.engine, hub.ledger, hub.keys, hub.clock)


# recording


def test_look_is_an_entry_that_names_nobody(hub: Hub) -> None:
    who = viewer(hub.keys, "police", " Jane.Smith ", "ADM-BREACH", "br-2026-7")
    size = hub.ledger.head().size
    index = log_of(hub).record(who, Look("message", message="m"))
    (said,) = looks(hub)
    assert index == size
    assert said == {
        "v": 1,
        "kind": "access",
        "at": said["at"],
        "source": "hub",
        "message": "m",
        "party": "police",
        "officer": officer_of(hub.keys, "police", "jane.smith"),
        "purpose": "ADM-BREACH",
        "reference": "BR-2026-7",
        "what": "message",
        "which": "",
        "salt": said["salt"],
    }
    assert "smith" not in json.dumps(said).lower()
    assert officer_of(hub.keys, "health", "jane.smith") != said["officer"]


def test_same_look_within_minutes_is_one_entry(hub: Hub) -> None:
    log, size = log_of(hub), hub.ledger.head().size
    assert log.record(WHO, Look("today")) == size
    assert log.record(WHO, Look("today")) is None
    assert log.record(WHO, Look("today", which="date=2026-11-22")) == size + 1
    assert log.record(Viewer("1" * 32, "police", "ADM-ACCESS"), Look("today")) == size + 2
    log._recent.update(dict.fromkeys(log._recent, 0.0))  # minutes later
    assert log.record(WHO, Look("today")) == size + 3


def test_looks_that_come_together_share_a_transaction(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    log, batches, going = log_of(hub), list[int](), threading.Event()
    size = hub.ledger.head().size
    append = Ledger.append

    def slow(self: Ledger, connection: sa.Connection, entries: Any) -> range:
        batches.append(len(entries))
        assert going.wait(10)
        return append(self, connection, entries)

    monkeypatch.setattr(Ledger, "append", slow)
    found: list[int | None] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(log.record(WHO, Look("message", message=f"m{n}"))))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    while len(log._waiting) + (batches[0] if batches else 0) < len(threads):
        time.sleep(0.001)  # until all have come
    going.set()
    for thread in threads:
        thread.join()
    assert sum(batches) == len(threads)
    assert len(batches) <= 3
    assert sorted(n for n in found if n is not None) == list(range(size, size + 20))
    said = {index: row["message"] for index, row in enumerate(looks(hub))}
    assert len(set(said.values())) == 20


def test_look_that_could_not_be_recorded_is_an_error_and_is_tried_anew(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, size = log_of(hub), hub.ledger.head().size

    def fails(*_: object) -> range:
        raise LedgerContradiction

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", fails)
        for _ in range(2):
            with pytest.raises(LedgerContradiction):
                log.record(WHO, Look("today"))
    assert log.record(WHO, Look("today")) == size


@pytest.mark.parametrize(
    ("values", "field"),
    [
        pytest.param({"number": "Jane Smith"}, "officer", id="a name"),
        pytest.param({"number": ""}, "officer", id="nobody"),
        pytest.param({"purpose": "CURIOSITY"}, "purpose", id="no purpose"),
        pytest.param({"reference": "the Smith family"}, "reference", id="words"),
        pytest.param({"reference": "SMITH"}, "reference", id="a name as reference"),
        pytest.param({"party": ""}, "party", id="no party"),
    ],
)
def test_viewer_says_who_and_why(hub: Hub, values: dict[str, str], field: str) -> None:
    said = {"party": "police", "number": "po-17", "purpose": "ADM-AUDIT", "reference": "", **values}
    with pytest.raises(InvalidMessage) as caught:
        viewer(hub.keys, **said)
    (problem,) = caught.value.problems
    assert problem.pointer == field
    assert problem.fix
    assert not any(value and value in problem.line() for value in values.values())


def test_message_id_is_nothing_else() -> None:
    assert message_id("a6819a9c-eaa3-5e96-b425-085b58053977")
    assert [message_id(t) for t in ("Aroha Ngata", "", "a6819a9c-eaa3-5e96-b425-085b58053977x")] == [""] * 3


# the console and the door


def browser(hub: Hub, door: httpx.Client, viewer: dict[str, str] | None) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={mint_session(hub.settings, [AUDIT, OPERATE], 600, now, viewer)}"}


def test_console_asks_the_purpose_once_and_records_before_it_shows(hub: Hub, message: str) -> None:
    with serving(hub) as door:
        stranger = browser(hub, door, None)
        asked = door.get("/console/message", params={"id": message}, headers=stranger)
        assert (asked.status_code, asked.headers["location"]) == (
            303,
            "/console/purpose?next=%2Fconsole%2Fmessage",
        )
        assert "purpose" in door.get(asked.headers["location"], headers=stranger).text
        assert looks(hub) == []
        form = {"party": "police", "officer": "po-17", "purpose": "ADM-ACCESS", "next": "/console/message"}
        wrong = door.post(
            "/console/purpose", data={**form, "officer": "Jane Smith"}, headers={**stranger, **HERE}
        )
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (422, False)
        assert "officer" in wrong.text
        answer = door.post("/console/purpose", data=form, headers={**stranger, **HERE})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/message")
        cookie = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
        assert door.get("/console/message", params={"id": message}, headers=cookie).status_code == 200
        (look,) = looks(hub)
        assert (look["what"], look["message"], look["party"]) == ("message", message, "police")
        assert (look["purpose"], look["officer"]) == (
            "ADM-ACCESS",
            officer_of(hub.keys, "police", "po-17"),
        )
        for path in ("/console/message", "/console/disclosures"):
            typed = {"id": "Aroha Ngata", "party": "Aroha Ngata", "type": "x", "outcome": "refuse"}
            door.get(path, params=typed, headers=cookie)
        assert [(s["what"], s["which"]) for s in looks(hub)[1:]] == [
            ("message", "outcome=refuse"),
            ("disclosures", "outcome=refuse"),
        ]


@pytest.mark.parametrize("path", ["", "/disclosures", "/message", "/agreements", "/set-aside", "/ledger"])
def test_console_shows_nothing_that_it_cannot_record(
    hub: Hub, message: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = {"officer": "0" * 32, "party": "police", "purpose": "ADM-AUDIT", "reference": ""}
    with serving(hub) as door:

        def fails(*_: object) -> range:
            raise LedgerContradiction

        monkeypatch.setattr(Ledger, "append", fails)
        answer = door.get(f"/console{path}", headers=browser(hub, door, who))
    assert answer.status_code >= 500
    assert message not in answer.text


def test_purpose_leads_nowhere_else_and_prolongs_no_session(hub: Hub) -> None:
    with serving(hub) as door:
        form = {"party": "police", "officer": "po-17", "purpose": "ADM-AUDIT"}
        headers = {**browser(hub, door, None), **HERE}
        for target in ("https://evil.example/", "//evil.example", "/console/../x", "/consolex"):
            answer = door.post("/console/purpose", data={**form, "next": target}, headers=headers)
            assert answer.headers["location"] == "/console"
            assert "max-age=600" in answer.headers["set-cookie"].lower()
        other = door.post(
            "/console/purpose", data=form, headers=browser(hub, door, None)
        )  # another site's form
        assert "set-cookie" not in other.headers


def test_reading_entries_over_http_is_one_look(hub: Hub, message: str) -> None:
    with serving(hub) as door:
        size = hub.ledger.checkpoint().size  # type: ignore[union-attr]
        for _ in range(3):
            assert door.get(f"/ledger/tile/entries/000.p/{size}").status_code == 200
        assert door.get("/ledger/tile/0/000.p/1").status_code == 200
    assert [look["what"] for look in looks(hub)] == ["ledger-entries"]


def test_explain_command_records_who_asked(
    hub: Hub, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(hub.settings.data)
    who = ["--party", "police", "--officer", "po-17", "--purpose", "ADM-CORRECT"]
    assert command.main(["explain", message, "--data", folder, "--json", *who]) == 0
    assert json.loads(capsys.readouterr().out)["message"] == message
    assert command.main(["explain", "Aroha Ngata", "--data", folder]) == 1  # searching is looking, too
    first, second = looks(hub)
    assert (first["what"], first["message"], first["purpose"]) == ("explain", message, "ADM-CORRECT")
    assert (second["message"], second["purpose"], second["party"]) == ("", "ADM-AUDIT", "hub")
    assert command.main(["explain", message, "--data", folder, "--party", "nobody"]) == 1
    assert len(looks(hub)) == 2


# evidence


def key(hub: Hub) -> str:
    return str(hub.settings.data / "ledger.vkey")


def test_evidence_on_a_message_opens_its_people_and_contents(hub: Hub, message: str, tmp_path: Path) -> None:
    made = evidence.of_message(hub, WHO, message, "", tmp_path / "e.zip", salts=True)
    released = [row for row in decisions_on(hub.engine, message) if "disclosure" in row.body]
    assert released
    report = verify(made.path, key(hub))
    assert report.ok
    assert report.kinds == made.entries
    assert report.kinds["access"] == 1
    assert report.kinds["disclosure"] == report.kinds["delivery"] == len(released)
    people = {shows for _, shows in report.opened}
    stated = {digest for row in decisions_on(hub.engine, message) for _, digest in row.body["subjects"]}
    assert len(people) == len(stated) > 1  # everybody whom the entries are about
    look = looks(hub)[-1]
    assert (look["what"], look["message"], look["reference"]) == ("evidence", message, "AR-2026-31")


def test_evidence_on_a_message_does_not_open_who_else_is_in_the_case(
    hub: Hub, message: str, tmp_path: Path
) -> None:
    other = "f" * 32
    with hub.engine.begin() as connection:
        facts = connection.execute(sa.select(case_table.c.facts)).scalar_one()
        said = json.loads(facts)
        said["people"][other] = next(iter(said["people"].values()))
        connection.execute(sa.update(case_table).values(facts=json.dumps(said)))
        Subjects(hub.keys).made_for(connection, [other])
    made = evidence.of_message(hub, WHO, message, "", tmp_path / "e", salts=True)
    assert other not in (made.path / "reveal.json").read_text()
    assert verify(made.path, key(hub)).ok


def test_evidence_without_salts_opens_nothing(hub: Hub, message: str, tmp_path: Path) -> None:
    made = evidence.of_message(hub, WHO, message, "", tmp_path / "e", salts=False)
    assert not (made.path / "reveal.json").exists()
    report = verify(made.path, key(hub))
    assert (report.ok, report.opened, made.opens) == (True, [], 0)


def test_content_as_it_was_delivered_is_recognised(hub: Hub, tmp_path: Path) -> None:
    bodies: dict[str, bytes] = {}
    publish = hub.broker.publish
    hub.broker.publish = lambda messages: (  # type: ignore[method-assign]
        bodies.update(
            {
                m.headers["id"]: json.dumps(json.loads(m.body)["message"]).encode()
                for m in messages
                if "entry" in m.headers
            }
        ),
        publish(messages),
    )[1]
    (message,) = sent(hub, "police", episode())
    made = evidence.of_message(hub, WHO, message, "", tmp_path / "e", salts=True)
    for row in decisions_on(hub.engine, message):
        if "disclosure" not in row.body:
            continue
        content = [("kept.json", bodies[row.body["disclosure"]])]
        report = verify(made.path, key(hub), contents=content)
        assert (row.index, f"kept.json is what was released to {row.body['party']}") in report.opened
        body = json.loads(content[0][1])
        body["data"]["more"] = 1
        changed = [("kept.json", json.dumps(body).encode())]
        assert not verify(made.path, key(hub), contents=changed).ok


def test_evidence_about_a_person_opens_that_person_alone(hub: Hub, message: str, tmp_path: Path) -> None:
    other = json.loads(json.dumps(episode()))
    person = _somebody(hub, other)
    made = evidence.of_person(hub, WHO, person, "police", tmp_path / "e")
    report = verify(made.path, key(hub))
    assert report.ok
    with hub.engine.connect() as connection:
        (pseudonym,) = People(hub.keys).known_as(connection, "police", person)
    assert {shows.split()[2] for _, shows in report.opened} == {pseudonym}
    decided = {row.index for row in decisions_on(hub.engine, message)}
    assert {index for index, _ in report.opened} == decided | {made.recorded}
    salts = json.loads((made.path / "reveal.json").read_text())
    assert not any("content" in one for one in salts["entries"])


def _somebody(hub: Hub, record: dict[str, Any]) -> dict[str, Any]:
    """One person of Police's *record*, as the canonical message describes them."""
    from adapters.adapter import Native  # noqa: PLC0415

    reading = hub.exchange.read("police", Native(json.dumps(record).encode(), "application/json", "e.json"))
    found: dict[str, Any] = next(p for p in reading.messages[0].data["people"] if p.get("identifiers"))
    return {"identifiers": found["identifiers"][:1]}


def test_asking_about_nobody_known_leaves_a_trace_too(hub: Hub, message: str, tmp_path: Path) -> None:
    nobody = {"identifiers": [{"system": "nhi", "value": "ZZZ0016"}]}
    with pytest.raises(NotFound):
        evidence.of_person(hub, WHO, nobody, "", tmp_path / "e")
    look = looks(hub)[-1]
    assert (look["what"], look["which"], look["subjects"][0][0]) == ("evidence", "person", "requested")
    assert "ZZZ0016" not in json.dumps(look)
    with pytest.raises(NotFound):
        evidence.of_message(hub, WHO, "no-such-message", "", tmp_path / "e", salts=True)
    assert not (tmp_path / "e").exists()
    assert len(looks(hub)) == 2


def test_evidence_command(hub: Hub, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = lambda *words: command.main(["evidence", *map(str, words), "--data", str(hub.settings.data)])  # noqa: E731
    assert run(message, "--out", tmp_path / "e.zip", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["entries"]["access"] == 1
    assert run(message, "--out", tmp_path / "e.zip") == 2  # never overwritten
    assert run("--out", tmp_path / "f") == 2
    capsys.readouterr()
    (tmp_path / "person.json").write_text('{"identifiers": [{"system": "shoe size", "value": "42"}]}')
    assert run("--person", tmp_path / "person.json", "--out", tmp_path / "f") == 1
    assert "42" not in "".join(capsys.readouterr())
    (tmp_path / "person.json").write_text(json.dumps(_somebody(hub, episode())))
    assert run("--person", tmp_path / "person.json", "--source", "police", "--out", tmp_path / "f") == 0
    assert verify(tmp_path / "f", key(hub)).ok
    assert (tmp_path / "f").stat().st_mode & 0o77 == (tmp_path / "e.zip").stat().st_mode & 0o77 == 0
