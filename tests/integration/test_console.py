"""The console in a browser's place: who gets in, what the pages say, and what they never say."""

import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import httpx
import pytest
from rich.console import Console

from adapters.adapter import Native
from gateway.auth import AUDIT, OPERATE, mint, mint_session
from gateway.console import COOKIE, Tickets, is_same_origin
from gateway.hub import Hub
from gateway.queries import day_range, disclosures_page
from tests.format_examples import NOW
from tests.serving import episode, now, sent, serving, small_hub

PAGES = ["", "/disclosures", "/message", "/agreements", "/set-aside", "/ledger"]
HERE = {"Sec-Fetch-Site": "same-origin"}
LOOKING = {"officer": "0" * 32, "party": "police", "purpose": "ADM-AUDIT", "reference": ""}
SECRET = "Tūī Ngārimu, 12 Kōwhai Street"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.exchange.accept(
            "police", [Native(f'{{"form": "{SECRET}"}}'.encode(), "application/json", "a.json")]
        )
        yield hub


@pytest.fixture(scope="module")
def message(hub: Hub) -> str:
    (id,) = sent(hub, "police", episode())
    return id


@pytest.fixture(scope="module")
def door(hub: Hub, message: str) -> Iterator[httpx.Client]:
    with serving(hub) as client:
        yield client


@pytest.fixture
def browser(door: httpx.Client, hub: Hub) -> Iterator[httpx.Client]:
    """A browser that is signed in."""
    with httpx.Client(base_url=door.base_url, trust_env=False) as client:
        client.headers["Cookie"] = (
            f"{COOKIE}={mint_session(hub.settings, [AUDIT, OPERATE], 60, now, LOOKING)}"
        )
        yield client


# getting in


@pytest.mark.parametrize("path", PAGES)
def test_console_sends_a_stranger_to_sign_in(door: httpx.Client, path: str) -> None:
    answer = door.get(f"/console{path}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    assert not answer.content


@pytest.mark.parametrize(
    "make", [lambda hub: "x", lambda hub: mint(hub.settings, "police", [AUDIT], clock=now)]
)
def test_console_takes_no_other_token_for_a_session(door: httpx.Client, hub: Hub, make: object) -> None:
    cookie = make(hub)  # type: ignore[operator]
    assert door.get("/console", headers={"Cookie": f"{COOKIE}={cookie}"}).status_code == 303


def test_console_opens_once_by_the_link_that_was_printed(hub: Hub, message: str) -> None:
    out = io.StringIO()
    with serving(hub, Console(file=out, width=200)) as door:
        link = re.search(r"/console/sign-in\?ticket=(\S+)", out.getvalue())
        assert link is not None
        for _ in range(2):  # looking at the page does not use the ticket up
            page = door.get(link[0])
            assert f'value="{link[1]}"' in page.text
        first = door.post("/console/sign-in", data={"ticket": link[1]}, headers=HERE)
        assert (first.status_code, first.headers["location"]) == (303, "/console")
        flags = first.headers["set-cookie"].lower()
        assert all(
            flag in flags for flag in ("httponly", "samesite=strict", "path=/console", "max-age=28800")
        )
        cookie = {"Cookie": first.headers["set-cookie"].split(";")[0]}
        assert door.get("/console", headers=cookie).headers["location"].startswith("/console/purpose")
        again = door.post("/console/sign-in", data={"ticket": link[1]}, headers=HERE)
        assert again.status_code == 403
        assert "set-cookie" not in again.headers
        assert out.getvalue().count("ticket=") == 2  # the next one


@pytest.mark.parametrize("ticket", ["", "x", "x" * 300, "ā", "http://127.0.0.1/console/sign-in?ticket=x"])
def test_console_opens_by_no_other_ticket(door: httpx.Client, ticket: str) -> None:
    assert door.post("/console/sign-in", data={"ticket": ticket}, headers=HERE).status_code == 403


def test_console_refuses_a_long_form(door: httpx.Client) -> None:
    assert door.post("/console/sign-in", content=b"ticket=" + b"x" * 5000, headers=HERE).status_code == 413


def test_tickets_are_good_for_an_hour() -> None:
    at = [now()]
    tickets = Tickets(lambda: at[0])
    ticket = tickets.issue()
    at[0] = at[0].replace(hour=at[0].hour + 1)
    assert not tickets.any()
    assert not tickets.use(ticket)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"sec-fetch-site": "same-origin"}, True, id="the browser says same"),
        pytest.param(
            {"sec-fetch-site": "cross-site", "origin": "http://hub"}, False, id="the browser says other"
        ),
        pytest.param({"sec-fetch-site": "same-site"}, False, id="a neighbour"),
        pytest.param({"sec-fetch-site": "none"}, False, id="typed in"),
        pytest.param({"origin": "http://hub"}, True, id="an older browser"),
        pytest.param({"origin": "http://hub.evil"}, False, id="another origin"),
        pytest.param({"origin": "null"}, False, id="an opaque origin"),
        pytest.param({}, False, id="nothing said"),
    ],
)
def test_is_same_origin_believes_only_what_a_page_cannot_forge(
    headers: dict[str, str], expected: bool
) -> None:
    assert is_same_origin(headers, "http://hub") is expected


def test_console_lets_nobody_send_again_from_another_site(browser: httpx.Client, hub: Hub) -> None:
    (letter, *_) = hub.broker.dead_letters()
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        assert browser.post(f"/console/set-aside/{letter.number}", headers=headers).status_code == 403
    assert letter.number in {found.number for found in hub.broker.dead_letters()}


def test_console_asks_for_the_scope_of_each_page(door: httpx.Client, hub: Hub) -> None:
    operator = {"Cookie": f"{COOKIE}={mint_session(hub.settings, [OPERATE], 60, now, LOOKING)}"}
    assert door.get("/console/set-aside", headers=operator).status_code == 200
    assert door.get("/console/disclosures", headers=operator).status_code == 403
    officer = {"Cookie": f"{COOKIE}={mint_session(hub.settings, [AUDIT], 60, now, LOOKING)}"}
    assert door.get("/console/set-aside", headers=officer).status_code == 403


def test_sign_out_takes_the_session_from_the_browser(browser: httpx.Client) -> None:
    assert "set-cookie" not in browser.post("/console/sign-out").headers
    assert 'isr_session=""' in browser.post("/console/sign-out", headers=HERE).headers["set-cookie"]


# the pages


class Page(HTMLParser):
    """The outline of a page, and what a person with a screen reader would miss."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self.labels: set[str] = set()
        self.pointed: set[str] = set()
        self.tags: list[str] = []
        self.inline: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if id := found.get("id"):
            self.ids.append(id)
        if tag in ("input", "select") and found.get("type") != "hidden":
            self.labelled.add(found.get("id") or f"({tag} without an id)")
        if tag == "label":
            self.labels.add(found.get("for") or "")
        self.pointed |= set((found.get("aria-labelledby") or "").split())
        href = found.get("href") or ""
        if href.startswith("#"):
            self.pointed.add(href[1:])
        self.inline += [name for name in found if name == "style" or name.startswith("on")]
        if tag == "table":
            self.inline += [] if "caption" else ["table"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


@pytest.mark.parametrize(
    "path", [*PAGES, "/message?id=MESSAGE", "/ledger?check=all", "/message?id=unknown", "/sign-in"]
)
def test_page_can_be_used_by_everybody(browser: httpx.Client, message: str, path: str) -> None:
    answer = browser.get(f"/console{path.replace('MESSAGE', message)}")
    assert answer.status_code in (200, 404)
    page = Page(answer.text)
    assert page.open == []
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False)), (
        "a heading is skipped"
    )
    assert len(page.ids) == len(set(page.ids)), "an id is used twice"
    assert page.labelled <= page.labels, "a field has no label"
    assert page.pointed <= set(page.ids), "a reference leads nowhere"
    assert page.tags.count("table") == page.tags.count("caption")
    assert {"main", "header", "footer"} <= set(page.tags)
    assert '<html lang="en-NZ">' in answer.text
    assert page.inline == []
    assert not {"script", "style", "iframe", "img"} & set(page.tags)


@pytest.mark.parametrize("path", ["", "/sign-in", "/set-aside"])
def test_page_allows_nothing_but_its_own(browser: httpx.Client, path: str) -> None:
    headers = browser.get(f"/console{path}").headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


def test_today_counts_what_moved_on_a_new_zealand_day(browser: httpx.Client, hub: Hub) -> None:
    text = browser.get("/console").text
    assert f"{NOW:%A %-d %B %Y}" in text
    assert re.search(r"Messages decided</dt><dd>1<", text)
    for path in ("?date=2026-11-23", "?date=2026-11-21"):
        assert "Nothing was decided on this day." in browser.get(f"/console{path}").text
    assert browser.get("/console?date=rubbish").status_code == 200


def test_day_range_cuts_the_ledger_at_new_zealand_midnight(hub: Hub, message: str) -> None:
    size = hub.ledger.head().size
    day = NOW.date()
    assert day_range(hub.engine, size, day) == (0, size)
    assert day_range(hub.engine, size, day.replace(day=day.day + 1)) == (size, size)
    assert day_range(hub.engine, size, day.replace(day=day.day - 1)) == (0, 0)


def test_disclosures_show_only_what_is_asked_for(browser: httpx.Client, hub: Hub) -> None:
    refused = browser.get("/console/disclosures?outcome=refuse&party=acc").text
    body = refused.partition("<tbody>")[2]
    assert "not given" in body
    assert "given in part" not in body
    assert body.count("<tr>") == 1
    nothing = browser.get("/console/disclosures?party=acc&outcome=permit").text
    assert "No decision" in nothing
    for query in ("below=rubbish", "below=99999999999999999999", "date=x", "party=%22%3E%3Cscript%3E"):
        answer = browser.get(f"/console/disclosures?{query}")
        assert answer.status_code == 200
        assert "<script" not in answer.text


def test_disclosures_page_goes_back_without_leaving_one_out_or_showing_one_twice(
    hub: Hub, message: str
) -> None:
    below, seen = hub.ledger.head().size, []
    while True:
        page = disclosures_page(hub.engine, below=below, limit=3)
        seen += [row.index for row in page.rows]
        if page.older is None:
            break
        below = page.older
    everything = disclosures_page(hub.engine, below=hub.ledger.head().size, limit=1000)
    assert seen == [row.index for row in everything.rows]
    assert seen == sorted(set(seen), reverse=True)


def test_message_page_says_why(browser: httpx.Client, hub: Hub, message: str) -> None:
    text = browser.get(f"/console/message?id={message}").text
    assert "A family-harm episode" in text
    assert '<span lang="mi">Oranga Tamariki</span>' in text
    assert "does not hold" in text
    cited = set(re.findall(r'href="/console/agreements#([^"]+)"', text))
    agreements = browser.get("/console/agreements").text
    assert cited
    assert all(f'id="{clause}"' in agreements for clause in cited)


def test_agreements_page_has_every_clause_and_a_matrix_by_role(browser: httpx.Client, hub: Hub) -> None:
    text = browser.get("/console/agreements").text
    assert all(f'id="{a.name_of(c)}"' in text for a in hub.agreements for c in a.clauses)
    child, victim = (browser.get(f"/console/agreements?role={role}").text for role in ("child", "victim"))
    assert child != victim
    assert browser.get("/console/agreements?role=%3Cscript%3E").text == text


def test_set_aside_shows_where_and_why_but_never_what(browser: httpx.Client) -> None:
    text = browser.get("/console/set-aside").text
    assert "/form" in text
    assert "use one of" in text
    assert not any(part in text for part in ("Ngārimu", "Kōwhai", "Tūī"))


def test_send_again_takes_the_same_way_and_says_how_it_went(browser: httpx.Client, hub: Hub) -> None:
    before = hub.broker.dead_letters()
    answer = browser.post(f"/console/set-aside/{before[0].number}", headers=HERE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/set-aside?sent=again")
    after = hub.broker.dead_letters()
    assert len(after) == len(before)  # still wrong, so it was set aside again
    assert before[0].number not in {letter.number for letter in after}
    assert "set aside again" in browser.get(answer.headers["location"]).text


@pytest.mark.parametrize("number", ["999999", "rubbish", "%3Cscript%3E"])
def test_send_again_finds_only_what_is_there(browser: httpx.Client, number: str) -> None:
    answer = browser.post(f"/console/set-aside/{number}", headers=HERE)
    assert answer.status_code == 404
    assert "<script" not in answer.text


def test_ledger_page_hashes_every_entry_when_asked(browser: httpx.Client, hub: Hub) -> None:
    assert "continues the newest signed checkpoint" in browser.get("/console/ledger").text
    assert "Every entry was hashed again" in browser.get("/console/ledger?check=all").text


def test_ledger_page_says_so_when_an_entry_was_changed(
    browser: httpx.Client, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = hub.ledger.entries
    monkeypatch.setattr(
        hub.ledger, "entries", lambda a, b: [e.replace(b"refuse", b"permit") for e in entries(a, b)]
    )
    assert "does not prove itself" in browser.get("/console/ledger?check=all").text


def test_no_page_shows_anything_of_a_message(browser: httpx.Client, hub: Hub, message: str) -> None:
    texts = {t for t in _words(episode()) if len(t) > 6 and " " in t}
    assert texts
    for path in (*PAGES, f"/message?id={message}"):
        page = browser.get(f"/console{path}").text
        assert not [t for t in texts if t in page]


def _words(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground", "least"),
    [
        *[(ink, ground, 4.5) for ink in ("ink", "soft", "link") for ground in ("ground", "surface")],
        *[(name, f"{name}-ground", 4.5) for name in ("good", "part", "wait", "bad")],
        ("on-brand", "brand", 4.5),
        ("surface", "link", 4.5),
        *[(name, ground, 3.0) for name in ("edge", "focus") for ground in ("ground", "surface")],
    ],
)
def test_colours_can_be_told_apart(
    door: httpx.Client, scheme: int, ink: str, ground: str, least: float
) -> None:
    """WCAG 2.2, 1.4.3 for text and 1.4.11 for the edges of controls."""
    blocks = re.findall(r":root \{(.*?)\}", door.get("/console/console.css").text, re.S)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[scheme]))
    light, dark = sorted((_luminance(colours[ink]), _luminance(colours[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= least
