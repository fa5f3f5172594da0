"""The pages and the door for the people who decide: whom they let in, what they show to whom, and what a form
does."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict

import httpx
import pytest

from consent.referral import State
from gateway.access import viewer
from gateway.auth import AUDIT, BREAK_GLASS, DECIDE, OPERATE, mint_session
from gateway.console import COOKIE
from gateway.hub import Hub
from gateway.overrides import Overrides
from gateway.referrals import Referrals
from tests.serving import bearer, episode, now, sent, serving, small_hub

HERE = {"Sec-Fetch-Site": "same-origin"}
PAGES = ("waiting", "register", "overrides", "duties")
REASON = "A neighbour heard shots; he has told her that he comes back tonight."
Browse = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def case(hub: Hub) -> str:
    sent(hub, "police", json.loads(json.dumps(episode())))
    with hub.engine.connect() as connection:
        return str(connection.exec_driver_sql("SELECT id FROM case_file").scalar_one())


@pytest.fixture(scope="module")
def door(hub: Hub, case: str) -> Iterator[httpx.Client]:
    with serving(hub) as client:
        yield client


@pytest.fixture
def browse(door: httpx.Client, hub: Hub) -> Browse:
    """Opens a page, or sends a form with *data*, as an officer of a party."""

    def asked(
        path: str,
        party: str = "police",
        data: dict[str, object] | None = None,
        scopes: tuple[str, ...] = (AUDIT, OPERATE, DECIDE),
        headers: dict[str, str] = HERE,
        officer: str = "po-17",
    ) -> httpx.Response:
        who = asdict(viewer(hub.keys, party, officer, "DECIDE", ""))
        cookie = {"Cookie": f"{COOKIE}={mint_session(hub.settings, scopes, 60, now, who)}"}
        if data is None:
            return door.get(f"/console/{path}", headers={**cookie, **headers})
        return door.post(f"/console/{path}", headers={**cookie, **headers}, data=data)

    return asked


def referral(hub: Hub, party: str) -> str:
    (found,) = [r.id for r in Referrals(hub).open("police") if r.party == party]
    return found


@pytest.mark.parametrize("page", [*PAGES, "referral"])
def test_stranger_signs_in_first(door: httpx.Client, page: str) -> None:
    answer = door.get(f"/console/{page}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")


@pytest.mark.parametrize("page", PAGES)
def test_page_needs_the_scope_and_no_script(browse: Browse, page: str) -> None:
    assert browse(page, scopes=(AUDIT, OPERATE)).status_code == 403
    answer = browse(page)
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert answer.text.count("<h1") == 1
    assert 'aria-current="page"' in answer.text


@pytest.mark.parametrize("page", ["register", "overrides", "duties", "referral"])
def test_every_field_of_a_form_has_a_label(hub: Hub, browse: Browse, page: str) -> None:
    query = f"?id={referral(hub, 'health')}" if page == "referral" else ""
    party = "corrections" if page == "duties" else "police"
    text = browse(page + query, party).text
    fields = re.findall(r"<(?:select|textarea|input)[^>]*>", text)
    named = [f for f in fields if 'type="hidden"' not in f]
    assert named
    ids = [re.search(r'\bid="([^"]+)"', field) for field in named]
    assert all(ids)
    assert all(f'for="{found[1]}"' in text for found in ids if found)
    every = re.findall(r'\bid="([^"]+)"', text)
    assert len(every) == len(set(every))


@pytest.mark.parametrize("page", PAGES)
def test_page_of_lists_shows_nothing_of_a_message(browse: Browse, page: str) -> None:
    names = [p["name"]["surname"] for p in episode()["persons"] if "name" in p]
    for party in ("police", "hub", "corrections"):
        text = browse(page, party).text
        assert not any(f">{name}<" in text or f" {name} " in text for name in names)


def test_draft_is_shown_to_the_holder_alone_and_the_look_is_recorded(hub: Hub, browse: Browse) -> None:
    id = referral(hub, "health")
    victim = "Tūhoe"
    assert victim in browse(f"referral?id={id}").text
    looks = [json.loads(e) for e in hub.ledger.entries(0, 10_000)]
    assert [e["message"] for e in looks if e["kind"] == "access" and e["what"] == "referral"][-1] == id
    assert victim not in browse(f"referral?id={id}", "hub").text
    other = browse(f"referral?id={id}", "health")
    unknown = browse("referral?id=00000000-0000-5000-8000-000000000000", "health")
    assert (other.status_code, other.text) == (404, unknown.text)


def test_form_approves_what_was_chosen(hub: Hub, browse: Browse) -> None:
    id = referral(hub, "health")
    nothing = browse(f"referral?id={id}", data={"act": "approve", "capacity": "privacy-officer"})
    assert nothing.status_code == 422
    assert "what may leave" in nothing.text
    unread = {"act": "approve", "capacity": "privacy-officer", "cell": "case:EPISODE-NARR"}
    held = browse(f"referral?id={id}", data=unread)
    assert (held.status_code, "V2" in held.text) == (422, True)
    assert 'value="case:EPISODE-NARR" checked' in held.text  # what was chosen is not lost
    done = browse(f"referral?id={id}", data={**unread, "cell": ["perpetrator:CUSTODY"]})
    assert (done.status_code, done.headers["location"]) == (303, "/console/waiting?done=part")
    assert "approved in part" in browse("waiting?done=part").text
    assert Referrals(hub).one(id).standing.state is State.PART
    assert "Ended" in browse(f"referral?id={id}").text


def test_form_from_elsewhere_does_nothing(hub: Hub, browse: Browse) -> None:
    id = referral(hub, "corrections")
    data = {"act": "decline", "reason": "no-help", "capacity": "legal"}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://elsewhere.example"}, {}):
        assert browse(f"referral?id={id}", data=data, headers=headers).status_code == 403
    assert browse(f"referral?id={id}", "health", data=data).status_code == 404
    assert Referrals(hub).one(id).standing.state is State.WAITING


def test_form_declines_or_ends_as_told(hub: Hub, browse: Browse) -> None:
    id = referral(hub, "corrections")
    assert browse(f"referral?id={id}", data={"act": "decline", "capacity": "legal"}).status_code == 422
    told = browse(f"referral?id={id}", data={"act": "told", "capacity": "duty-manager"})
    assert told.headers["location"] == "/console/waiting?done=told"
    again = browse(f"referral?id={id}", data={"act": "told", "capacity": "duty-manager"})
    assert again.status_code == 409


def test_forms_open_and_review_an_override(hub: Hub, case: str, browse: Browse) -> None:
    asked = {"act": "open", "case": case, "threat": "life", "reason": REASON, "capacity": "duty-manager"}
    refused = browse("overrides", data={**asked, "case": "nothing"})
    assert (refused.status_code, "nothing opens here" in refused.text) == (422, True)
    short = browse("overrides", data={**asked, "reason": "now"})
    assert "10 to 2000 characters" in short.text
    opened = browse("overrides", data=asked)
    assert opened.headers["location"] == "/console/overrides?done=open"
    made = next(o for o in Overrides(hub).find() if o.state.value == "open")
    page = browse("overrides", "health").text
    assert made.id in page
    assert REASON not in page
    why = browse(f"override?id={made.id}", "health")
    assert REASON in why.text
    looks = [json.loads(e) for e in hub.ledger.entries(0, 10_000)]
    assert [e["message"] for e in looks if e.get("what") == "override"][-1] == made.id
    assert browse("override?id=nobody", "health").status_code == 404
    found = {"act": "review", "id": made.id, "finding": "justified", "capacity": "privacy-officer"}
    assert browse("overrides", data=found).status_code == 422  # the same officer
    reviewed = browse("overrides", "health", data=found)
    assert reviewed.headers["location"] == "/console/overrides?done=reviewed"


def test_form_records_how_a_duty_ended(hub: Hub, case: str, browse: Browse) -> None:
    data = {
        "kind": "ipp3a",
        "party": "corrections",
        "case": case,
        "role": "victim",
        "capacity": "practitioner",
    }
    letter = browse("duties", "corrections", data={**data, "code": "notified:letter"})
    assert letter.status_code == 422
    told = browse("duties", "corrections", data={**data, "code": "notified:in-person"})
    assert told.headers["location"] == "/console/duties?done=notified"
    again = browse("duties", "corrections", data={**data, "code": "already-aware"})
    assert again.status_code == 422


def test_register_shows_a_day_and_what_is_overdue(browse: Browse) -> None:
    day = browse("register?date=2026-11-22").text
    assert "New Zealand Police" in day
    assert "Nothing was considered" in browse("register?date=2020-01-01").text
    assert browse("register?date=never").status_code == 200


def test_long_form_is_refused(browse: Browse) -> None:
    assert browse("overrides", data={"reason": "x" * 40_000}).status_code == 413


# the door


def post(
    door: httpx.Client, hub: Hub, said: object, path: str = "", *, scope: str = BREAK_GLASS
) -> httpx.Response:
    return door.post(f"/v1/overrides{path}", headers=bearer(hub, "police", scope), json=said)


def test_door_opens_for_a_system_with_the_scope(door: httpx.Client, hub: Hub, case: str) -> None:
    said = {"case": case, "threat": "life", "reason": REASON, "capacity": "duty-manager", "officer": "po-99"}
    assert door.post("/v1/overrides", json=said).status_code == 401
    assert post(door, hub, said, scope="messages:submit").status_code == 403
    made = post(door, hub, said)
    assert made.status_code == 201
    assert made.json()["state"] == "open"
    assert made.json()["until"] == "2026-11-22T07:00:00.000Z"
    refused, unknown = post(door, hub, said), post(door, hub, {**said, "case": "nothing"})
    assert refused.status_code == 404
    assert refused.content == unknown.content
    agreed = post(
        door, hub, {"capacity": "supervisor", "officer": "po-98"}, f"/{made.json()['id']}/agreement"
    )
    assert agreed.status_code == 409  # nobody waits for it


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"threat": "boredom"}, "/threat"),
        ({"reason": "now"}, "/reason"),
        ({"capacity": "cleaner"}, "/capacity"),
        ({"officer": "Aroha Example"}, "officer"),
        ({"case": 7}, "/case"),
        ({"also": "x"}, ""),
    ],
)
def test_door_names_what_is_wrong(
    door: httpx.Client, hub: Hub, case: str, change: dict[str, object], pointer: str
) -> None:
    said = {"case": case, "threat": "life", "reason": REASON, "capacity": "duty-manager", "officer": "po-99"}
    answer = post(door, hub, {**said, **change})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert "Aroha" not in answer.text


def test_metrics_say_what_waits(door: httpx.Client) -> None:
    text = door.get("/metrics").text
    assert re.search(r'isr_waiting\{holder="police",state="waiting",what="release"\} [1-9]', text)
