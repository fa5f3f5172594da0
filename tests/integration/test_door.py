"""The HTTP door on a real port: what goes in, who may ask, and what an answer gives away."""

import hashlib
import json
import logging
import socket
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from consent.merkle import CompactRange, leaf_hash
from consent.tiles import read_bundle
from gateway.auth import AUDIT, OPERATE, READ, SUBMIT
from gateway.door import create_app
from gateway.hub import Hub
from schemas.errors import BadSettings, Unconfirmed
from tests.serving import bearer, episode, own_message, sent, serving, small_hub

CLOUD, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
PROXIED = {"X-Forwarded-For": "203.0.113.7"}  # makes a request come from elsewhere


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def carried(hub: Hub) -> str:
    """An episode of Police that was decided, and delivered to some."""
    (id,) = sent(hub, "police", episode())
    return id


@pytest.fixture(scope="module")
def door(hub: Hub) -> Iterator[httpx.Client]:
    with serving(hub) as client:
        yield client


def posted(
    door: httpx.Client, hub: Hub, content: Any, kind: str = CLOUD, party: str = "corrections"
) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return door.post("/v1/messages", content=body, headers={**bearer(hub, party), "Content-Type": kind})


# handing in


def test_submit_accepts_a_message_and_says_its_id(door: httpx.Client, hub: Hub) -> None:
    event = own_message("corrections", "one")
    answer = posted(door, hub, event)
    assert answer.status_code == 202
    assert answer.json() == {"accepted": [event["id"]], "rejected": [], "unplaced": []}


def test_submit_accepts_the_same_message_again(door: httpx.Client, hub: Hub) -> None:
    event = own_message("corrections", "twice")
    assert [posted(door, hub, event).json()["accepted"] for _ in range(2)] == [[event["id"]]] * 2


def test_submit_hands_an_agencys_own_format_to_its_adapter(door: httpx.Client, hub: Hub) -> None:
    answer = posted(door, hub, {**episode()}, "application/json", "police")
    assert answer.status_code == 202
    assert len(answer.json()["accepted"]) == 1


def test_submit_takes_each_message_of_a_batch_alone(door: httpx.Client, hub: Hub) -> None:
    good, bad, other = own_message("corrections", "b1"), {"id": "x"}, own_message("corrections", "b2")
    answer = posted(door, hub, [good, bad, other], BATCH)
    assert answer.status_code == 202
    said = answer.json()
    assert said["accepted"] == [good["id"], other["id"]]
    assert [(r["position"], r["status"]) for r in said["rejected"]] == [(1, 422)]
    assert {e["pointer"] for e in said["rejected"][0]["errors"]} >= {"/source", "/type"}


def test_submit_refuses_a_batch_of_which_nothing_is_right_with_one_problem(
    door: httpx.Client, hub: Hub
) -> None:
    answer = posted(door, hub, [{}, {"id": 1}], BATCH)
    assert answer.status_code == 422
    assert len(answer.json()["rejected"]) == 2


def test_submit_takes_a_file_with_its_manifest_from_a_form(door: httpx.Client, hub: Hub) -> None:
    file = b"PRN\r\n"
    manifest = {"file": "custody.csv", "rows": 0, "sha256": hashlib.sha256(file).hexdigest(), "produced": "x"}
    answer = door.post(
        "/v1/messages",
        files=[
            ("message", ("custody.csv", file, "text/csv")),
            ("companion", ("custody.manifest.json", json.dumps(manifest).encode(), "application/json")),
        ],
        headers=bearer(hub, "corrections"),
    )
    # The adapter saw the manifest: it is the manifest's date that it complains of.
    assert answer.status_code == 400
    assert "produced" in answer.text


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        pytest.param(b"", CLOUD, 400, id="empty"),
        pytest.param(b"{", CLOUD, 422, id="no JSON"),
        pytest.param(b"\xff", CLOUD, 422, id="no UTF-8"),
        pytest.param(b'{"id":1,"id":2}', CLOUD, 422, id="a key twice"),
        pytest.param(b'{"a":' * 30 + b"1" + b"}" * 30, CLOUD, 413, id="nested too deep"),
        pytest.param(b"{}", BATCH, 422, id="a batch that is no array"),
        pytest.param(b"x", "nothing", 415, id="no media type"),
        pytest.param(b"rubbish", "text/csv", 400, id="nothing the adapter reads"),
        pytest.param(b"--b--", "multipart/form-data; boundary=b", 400, id="an empty form"),
    ],
)
def test_submit_says_what_is_wrong_with_a_body(
    door: httpx.Client, hub: Hub, content: bytes, kind: str, status: int
) -> None:
    answer = posted(door, hub, content, kind)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_submit_refuses_an_encoded_body(door: httpx.Client, hub: Hub) -> None:
    headers = {**bearer(hub, "police"), "Content-Type": CLOUD, "Content-Encoding": "gzip"}
    assert door.post("/v1/messages", content=b"x", headers=headers).status_code == 415


def test_submit_refuses_another_message_under_the_same_id(door: httpx.Client, hub: Hub, carried: str) -> None:
    event = own_message("corrections", "reused")
    posted(door, hub, event)
    hub.exchange.finish()
    person = {"ref": "p1", "role": "perpetrator", "name": {"given": "Rangi", "family": "Ngārimu"}}
    changed = {**event, "data": {**event["data"], "people": [person]}}
    # A message of no known case is set aside unremembered, so the id of one that was carried is used.
    taken = {**own_message("police", "x"), "id": carried, "type": "nz.isr.police.episode-recorded.v1"}
    assert posted(door, hub, changed).status_code == 202
    assert posted(door, hub, taken, party="police").status_code in (409, 422)


def test_submit_refuses_to_speak_for_another_party(door: httpx.Client, hub: Hub) -> None:
    answer = posted(door, hub, own_message("corrections", "spoof"), party="police")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/source"


def test_submit_repeats_nothing_of_what_was_sent(
    door: httpx.Client, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "isr_hub")
    event = own_message("corrections", "secret")
    event["data"]["people"][0] = {
        "ref": "p1",
        "role": "Tūī Ngārimu",
        "address": "12 Kōwhai Street",
        "x": "ZZZ0016",
    }
    answer = posted(door, hub, event)
    assert answer.status_code == 422
    for value in ("Ngārimu", "Kōwhai", "ZZZ0016", "\\u0101"):
        assert value not in answer.text
        assert value not in caplog.text


def test_submit_answers_503_when_the_broker_does_not_confirm(
    door: httpx.Client, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise Unconfirmed

    monkeypatch.setattr(hub.broker, "publish", refuse)
    answer = posted(door, hub, own_message("corrections", "unconfirmed"))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


def raw(door: httpx.Client, head: str, body: bytes) -> tuple[bytes, int]:
    """Sends *head* and as much of *body* as is taken; returns the answer and how many bytes were sent."""
    with socket.create_connection((door.base_url.host, door.base_url.port or 80), timeout=10) as connection:
        connection.sendall(head.encode())
        count = 0
        try:
            for start in range(0, len(body), 65536):
                connection.sendall(body[start : start + 65536])
                count += len(body[start : start + 65536])
        except OSError:
            pass
        try:
            return connection.recv(65536), count
        except ConnectionResetError:
            return b"", count


@pytest.mark.parametrize(
    "length", ["Content-Length: 10485760", "Transfer-Encoding: chunked"], ids=["declared", "not declared"]
)
def test_submit_refuses_ten_megabytes_without_reading_them(door: httpx.Client, hub: Hub, length: str) -> None:
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: {door.base_url.host}:{door.base_url.port}\r\n"
        f"Authorization: {bearer(hub, 'police')['Authorization']}\r\n"
        f"Content-Type: text/csv\r\n{length}\r\n\r\n"
    )
    if "chunked" in length:
        # Nine chunks, then silence: the answer must come although the body never ends.
        answer, _ = raw(door, head, b"100000\r\n".join([b"", *[b"x" * 0x100000 + b"\r\n"] * 9]))
    else:
        answer, _ = raw(door, head, b"")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_submit_holds_a_single_message_to_one_mebibyte(door: httpx.Client, hub: Hub) -> None:
    assert posted(door, hub, b" " * (1_048_576 + 1)).status_code == 413
    assert posted(door, hub, b" " * (1_048_576 + 1), "text/csv").status_code == 400


def test_submit_lets_no_stranger_send_a_body(door: httpx.Client) -> None:
    head = (
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 7340032\r\n\r\n"
    )
    answer, _ = raw(door, head, b"")
    assert answer.startswith(b"HTTP/1.1 401 ")


# who may ask

CLOSED = [("POST", "/v1/messages", SUBMIT), ("GET", "/v1/messages/some-message-id", READ)]
LOCAL = [
    ("GET", "/v1/health", OPERATE),
    ("GET", "/metrics", OPERATE),
    ("GET", "/ledger/tile/entries/000.p/1", AUDIT),
]


@pytest.mark.parametrize(("method", "path", "scope"), CLOSED + LOCAL, ids=lambda value: value)
def test_door_asks_everybody_for_a_token_and_its_scope(
    door: httpx.Client, hub: Hub, carried: str, method: str, path: str, scope: str
) -> None:
    nobody = door.request(method, path, headers=PROXIED)
    assert nobody.status_code == 401
    assert "invalid_token" not in nobody.headers["www-authenticate"]
    wrong = door.request(method, path, headers={**PROXIED, "Authorization": "Bearer a.b.c"})
    assert wrong.status_code == 401
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    others = {SUBMIT, READ, AUDIT, OPERATE} - {scope}
    lacking = door.request(method, path, headers={**PROXIED, **bearer(hub, "police", *others)})
    assert lacking.status_code == 403
    assert 'error="insufficient_scope"' in lacking.headers["www-authenticate"]
    having = door.request(method, path, headers={**PROXIED, **bearer(hub, "police", scope)})
    assert having.status_code not in (401, 403)


@pytest.mark.parametrize(("method", "path", "scope"), LOCAL, ids=lambda value: value)
def test_door_serves_this_machine_its_own_figures(
    door: httpx.Client, carried: str, method: str, path: str, scope: str
) -> None:
    assert door.request(method, path).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"Via": "1.1 proxy"}],
    ids=str,
)
def test_door_takes_nobody_who_came_through_a_proxy_for_this_machine(
    door: httpx.Client, headers: dict[str, str]
) -> None:
    assert door.get("/metrics", headers=headers).status_code == 401


def test_door_has_no_description_of_itself_and_nothing_else(door: httpx.Client) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/v1/deliveries", "/v1", "/ledger", "/console/../x"):
        assert door.get(path).status_code == 404


def test_door_answers_an_unknown_method_with_a_problem(door: httpx.Client) -> None:
    answer = door.delete("/v1/messages/some-message-id")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"


def test_door_opens_on_no_settings_that_would_let_in_anybody(hub: Hub) -> None:
    changed = replace(hub, settings=replace(hub.settings, production=True))
    with pytest.raises(BadSettings):
        create_app(changed)


# the state of a message


def state(door: httpx.Client, hub: Hub, party: str, id: str) -> httpx.Response:
    return door.get(f"/v1/messages/{id}", headers=bearer(hub, party))


def test_state_names_the_table_in_outward_words(door: httpx.Client, hub: Hub, carried: str) -> None:
    said = state(door, hub, "police", carried).json()
    assert said["id"] == carried
    table = sorted(p.id for p in hub.agreements.parties.values() if p.table and p.id != "police")
    assert [r["party"] for r in said["recipients"]] == table
    assert {r["state"] for r in said["recipients"]} <= {"delivered", "on its way", "not shared"}
    assert {"party": "oranga-tamariki", "state": "delivered"} in said["recipients"]


def test_state_is_the_same_bytes_for_everything_that_is_not_to_be_seen(
    door: httpx.Client, hub: Hub, carried: str
) -> None:
    """Unknown, another party's, waiting, of no case, and misspelt: one answer."""
    waiting = own_message("corrections", "waiting")
    caseless = own_message("corrections", "caseless")
    posted(door, hub, caseless)
    hub.exchange.finish()
    posted(door, hub, waiting)
    answers = [
        state(door, hub, "corrections", id)
        for id in ("no-such-message", carried, waiting["id"], caseless["id"], "x", "%C4%81" * 9, "a" * 500)
    ]
    answers.append(state(door, hub, "ngo.aviva#pos", carried))
    plain = [
        (a.status_code, a.content, sorted(h for h in a.headers.items() if h[0] != "date")) for a in answers
    ]
    assert plain[0][0] == 404
    assert all(answer == plain[0] for answer in plain)


def test_state_of_a_message_that_nobody_got_is_that_of_no_message(
    door: httpx.Client, hub: Hub, carried: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = state(door, hub, "police", "no-such-message").content
    nobody = {id: replace(p, table=False) for id, p in hub.agreements.parties.items()}
    monkeypatch.setattr(hub.agreements, "parties", nobody)
    assert state(door, hub, "police", carried).content == unknown


# the ledger


def test_ledger_shows_a_tree_that_leads_to_its_checkpoint(door: httpx.Client, hub: Hub, carried: str) -> None:
    hub.exchange.publish()
    _origin, size, root, *_ = door.get("/ledger/checkpoint").text.split("\n")
    count = int(size)
    assert 0 < count < 256
    hashes = door.get(f"/ledger/tile/0/000.p/{count}").content
    entries = read_bundle(door.get(f"/ledger/tile/entries/000.p/{count}").content)
    assert b"".join(leaf_hash(entry) for entry in entries) == hashes
    tree = CompactRange()
    tree.extend(hashes[i : i + 32] for i in range(0, len(hashes), 32))
    assert tree.root().hex() == b64decode(root).hex()


def test_ledger_tiles_may_be_kept_and_checkpoints_not(door: httpx.Client, carried: str) -> None:
    assert door.get("/ledger/checkpoint").headers["cache-control"] == "no-cache"
    assert "immutable" in door.get("/ledger/tile/0/000.p/1").headers["cache-control"]
    assert door.get("/ledger/tile/entries/000.p/1").headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize(
    "path",
    [
        "0/000", "0/000.p/0", "0/000.p/256", "0/000.p/01", "0/001.p/1", "0/x000/000.p/1", "0/0.p/1", "64/000",
        "1/000.p/1", "-1/00", "0/000.p/250", "entries/000", "entries/001.p/1", "0/000.p/1/", "0//000.p/1",
    ],
)  # fmt: skip
def test_ledger_has_no_tile_beyond_the_tree_or_in_another_spelling(
    door: httpx.Client, carried: str, path: str
) -> None:
    assert door.get(f"/ledger/tile/{path}").status_code == 404


def test_ledger_has_no_checkpoint_before_the_first(tmp_path: Path) -> None:
    with small_hub(tmp_path) as empty, serving(empty) as door:
        assert door.get("/ledger/checkpoint").status_code == 404
        assert door.get("/ledger/tile/0/000.p/1").status_code == 404


def test_ledger_entries_are_not_for_the_machine_itself_in_production(
    hub: Hub, carried: str, tmp_path: Path
) -> None:
    jwks = tmp_path / "jwks.json"
    jwks.write_text('{"keys": []}')
    strict = replace(hub.settings, production=True, issuer="https://issuer.example.nz", jwks=str(jwks))
    with serving(replace(hub, settings=strict)) as door:
        assert door.get("/ledger/tile/entries/000.p/1").status_code == 401
        assert door.get("/ledger/tile/0/000.p/1").status_code == 200
        assert door.get("/console").status_code == 404


# operations


def test_health_says_which_part_fails(door: httpx.Client, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert door.get("/v1/health").json()["parts"] == {"database": "pass", "broker": "pass", "ledger": "pass"}

    def away(_: str) -> int:
        raise Unconfirmed

    monkeypatch.setattr(hub.broker, "depth", away)
    answer = door.get("/v1/health")
    assert answer.status_code == 503
    assert answer.json()["parts"] == {"database": "pass", "broker": "fail", "ledger": "pass"}
    assert door.get("/v1/health/live", headers=PROXIED).json() == {"status": "pass"}


def test_metrics_count_what_waits_and_name_no_message(door: httpx.Client, hub: Hub, carried: str) -> None:
    text = door.get("/metrics").text
    assert 'isr_queue_messages{queue="submissions"}' in text
    assert 'isr_decisions_total{outcome="reduced",party="oranga-tamariki"}' in text
    assert carried not in text


def test_door_logs_the_route_and_the_trace_and_not_the_path(
    door: httpx.Client, hub: Hub, carried: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "isr_hub.door")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for value in (f"00-{trace}-00f067aa0ba902b7-01", "rubbish", f"00-{'0' * 32}-00f067aa0ba902b7-01"):
        door.get(f"/v1/messages/{carried}", headers={**bearer(hub, "police"), "traceparent": value})
    lines = [r.getMessage() for r in caplog.records if r.name == "isr_hub.door"]
    assert [line.rpartition("trace=")[2] for line in lines] == [trace, "-", "-"]
    assert all("/v1/messages/{message} 200" in line and carried not in line for line in lines)


def test_door_tells_nothing_of_what_broke_inside(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, carried: str
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("Aroha Ngārimu")

    with serving(hub) as door:
        monkeypatch.setattr(hub.exchange, "accept", broken)
        answer = posted(door, hub, own_message("corrections", "broken"))
        assert answer.status_code == 500
        assert "Ngārimu" not in answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_every_route_is_described(hub: Hub) -> None:
    text = (Path(__file__).parents[2] / "docs" / "http.md").read_text("utf-8")
    app: FastAPI = create_app(hub)
    paths = {getattr(route, "path", "") for route in app.routes}
    for path in paths:
        shown = path.replace("{message}", "{id}").replace("{path:path}", "…")
        assert f"`{shown}`" in text or path.startswith("/console") or path == "/", path


def test_answers_are_json_that_orjson_reads(door: httpx.Client, hub: Hub, carried: str) -> None:
    assert orjson.loads(state(door, hub, "police", carried).content)["id"] == carried
