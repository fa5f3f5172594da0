"""Deliveries arrive once: in a folder through power cuts, at an HTTPS service with a token and a key."""

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from adapters.adapter import Native
from adapters.transport import FileDrop, HttpRecipient, HttpTransport
from schemas.errors import BadSettings, HubError, NotSent, RefusedByRecipient

PARTY = "ngo.example#ivs"
CSV = Native("name\r\nMārama\r\n".encode(), "text/csv; charset=utf-8", "x.csv", {"x.manifest.json": b"{}"})
JSON = Native(b'{"a": 1}', "application/json")


class PowerCut(BaseException):
    """Not an Exception: nothing in the product may catch it, as nothing catches a power cut."""


def received(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((root / PARTY / "received").iterdir())}


# --- FileDrop


def test_file_drop_puts_each_delivery_under_its_id_with_its_companions_first_named_after_it(
    tmp_path: Path,
) -> None:
    assert FileDrop(tmp_path).send(PARTY, [("d-1", CSV), ("d-2", JSON)]) == [None, None]
    assert received(tmp_path) == {
        "d-1.csv": CSV.content,
        "d-1.x.manifest.json": b"{}",
        "d-2.json": JSON.content,
    }
    assert list((tmp_path / PARTY / "parts").iterdir()) == []


@pytest.mark.parametrize(
    ("media_type", "extension"),
    [
        ("application/fhir+json", "json"),
        ("application/hl7-v2+er7", "hl7"),
        ("TEXT/CSV", "csv"),
        ("image/png", "bin"),
    ],
)
def test_file_drop_names_the_file_by_its_media_type(tmp_path: Path, media_type: str, extension: str) -> None:
    FileDrop(tmp_path).send(PARTY, [("d-1", Native(b"x", media_type))])
    assert [f"d-1.{extension}"] == list(received(tmp_path))


def test_file_drop_has_no_second_effect_when_a_delivery_is_sent_again(tmp_path: Path) -> None:
    drop = FileDrop(tmp_path)
    drop.send(PARTY, [("d-1", JSON)])
    before = (tmp_path / PARTY / "received" / "d-1.json").stat()
    assert drop.send(PARTY, [("d-1", JSON), ("d-1", JSON)]) == [None, None]
    after = (tmp_path / PARTY / "received" / "d-1.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_file_drop_does_not_bring_back_what_the_agency_has_collected(tmp_path: Path) -> None:
    FileDrop(tmp_path).send(PARTY, [("d-1", CSV)])
    for file in (tmp_path / PARTY / "received").iterdir():
        file.unlink()
    assert FileDrop(tmp_path).send(PARTY, [("d-1", CSV)]) == [None]
    assert received(tmp_path) == {}


def test_file_drop_keeps_files_from_other_users(tmp_path: Path) -> None:
    FileDrop(tmp_path).send(PARTY, [("d-1", JSON)])
    for path in (tmp_path / PARTY / "received", tmp_path / PARTY / "received" / "d-1.json"):
        assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO == 0


@pytest.mark.parametrize("party", ["../police", "Police", "police/..", "", "police#", "a" * 70])
def test_file_drop_refuses_a_party_that_would_be_a_path(tmp_path: Path, party: str) -> None:
    with pytest.raises(ValueError, match="form"):
        FileDrop(tmp_path).send(party, [("d-1", JSON)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("delivery", ["../x", "a/b", "", ".x", "a.b", "x" * 200, "a\x00"])
def test_file_drop_refuses_a_delivery_id_that_would_be_a_path(tmp_path: Path, delivery: str) -> None:
    with pytest.raises(ValueError, match="form"):
        FileDrop(tmp_path).send(PARTY, [("d-1", JSON), (delivery, JSON)])
    assert list(tmp_path.iterdir()) == []


def test_file_drop_takes_no_path_from_a_companions_name(tmp_path: Path) -> None:
    FileDrop(tmp_path).send(PARTY, [("d-1", Native(b"x", "text/csv", "", {"../../up.json": b"{}"}))])
    assert list(received(tmp_path)) == ["d-1.csv", "d-1.up.json"]


def test_file_drop_makes_nothing_when_there_is_nothing_to_send(tmp_path: Path) -> None:
    assert FileDrop(tmp_path).send(PARTY, []) == []
    assert list(tmp_path.iterdir()) == []


def test_file_drop_syncs_every_file_and_each_folder_once_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = FileDrop(tmp_path)
    drop.send(PARTY, [("first", JSON)])
    real, kinds = os.fsync, []

    def counted(descriptor: int) -> None:
        kinds.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    drop.send(PARTY, [(f"d-{i}", JSON) for i in range(20)])
    assert kinds == ["file"] * 20 + ["folder"] * 2


_CALLS = 27  # that reach the disk in a first batch of two; a test below holds the number


def test_file_drop_syncs_folders_that_an_earlier_process_may_not_have_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("received", "sent", "parts"):
        (tmp_path / PARTY / folder).mkdir(parents=True)
    real, synced = os.fsync, set()

    def seen(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    FileDrop(tmp_path).send(PARTY, [("d-1", JSON)])
    assert {tmp_path.stat().st_ino, (tmp_path / PARTY).stat().st_ino} <= synced


def test_file_drop_marks_a_delivery_only_after_its_name_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = FileDrop(tmp_path)
    drop.send(PARTY, [("first", JSON)])
    home = tmp_path / PARTY
    real, marks = os.fsync, []

    def seen(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == (home / "received").stat().st_ino:
            marks.extend(mark.name for mark in (home / "sent").iterdir())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    drop.send(PARTY, [("d-1", JSON)])
    assert marks == ["first"]
    assert sorted(mark.name for mark in (home / "sent").iterdir()) == ["d-1", "first"]


def _cut_at(
    monkeypatch: pytest.MonkeyPatch, step: int, error: Callable[[], BaseException], after: bool
) -> None:
    """Breaks the *step*-th call that reaches the disk, before it takes effect or *after*."""
    count = 0

    def broken(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == step and not after:
                raise error()
            try:
                result = real(*args, **named)
            except FileNotFoundError:  # mkdir finds its parent missing, makes it and comes again
                if count == step:
                    raise error() from None
                raise
            if count == step:
                if name == "open":
                    os.close(result)
                raise error()
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("mkdir", "open", "write", "fsync", "replace"):
        broken(name)


def test_file_drop_reaches_the_disk_no_more_often_than_the_power_cuts_below_cover(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _cut_at(patch, _CALLS + 1, PowerCut, after=False)
        assert FileDrop(tmp_path).send(PARTY, [("d-1", CSV), ("d-2", JSON)]) == [None, None]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, _CALLS + 1))
def test_file_drop_delivers_once_and_whole_after_a_power_cut_at_any_step(
    tmp_path: Path, step: int, after: bool
) -> None:
    batch = [("d-1", CSV), ("d-2", JSON)]
    with pytest.MonkeyPatch.context() as patch:
        _cut_at(patch, step, PowerCut, after)
        with pytest.raises(PowerCut):
            FileDrop(tmp_path).send(PARTY, batch)
    seen = received(tmp_path) if (tmp_path / PARTY / "received").is_dir() else {}
    whole = {"d-1.csv": CSV.content, "d-1.x.manifest.json": b"{}", "d-2.json": JSON.content}
    assert seen.items() <= whole.items()  # never half a file under a name that is collected
    before = {name: (tmp_path / PARTY / "received" / name).stat().st_ino for name in seen}
    assert FileDrop(tmp_path).send(PARTY, batch) == [None, None]
    for name in seen.keys() - {"d-1.x.manifest.json"}:
        assert before[name] == (tmp_path / PARTY / "received" / name).stat().st_ino  # not put a second time
    assert whole == received(tmp_path)
    assert list((tmp_path / PARTY / "parts").iterdir()) == []


@pytest.mark.parametrize("step", range(1, _CALLS + 1))
def test_file_drop_never_says_delivered_when_the_disk_failed(tmp_path: Path, step: int) -> None:
    batch = [("d-1", CSV), ("d-2", JSON)]
    with pytest.MonkeyPatch.context() as patch:
        _cut_at(patch, step, lambda: OSError(errno.ENOSPC, "no", "/secret/Mārama"), after=False)
        answers = FileDrop(tmp_path).send(PARTY, batch)
    failed = [a for a in answers if a is not None]
    assert all(isinstance(a, NotSent) for a in failed)
    assert not any("secret" in json.dumps(a.as_json()) for a in failed)
    assert failed
    assert FileDrop(tmp_path).send(PARTY, batch) == [None, None]
    assert len(received(tmp_path)) == 3


def test_file_drop_delivers_once_when_two_send_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)
    answers: list[list[HubError | None]] = []

    def send() -> None:
        barrier.wait()
        answers.append(FileDrop(tmp_path).send(PARTY, [(f"d-{i}", JSON) for i in range(25)]))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(one, NotSent | None) for many in answers for one in many)
    FileDrop(tmp_path).send(PARTY, [(f"d-{i}", JSON) for i in range(25)])
    assert {f"d-{i}.json": JSON.content for i in range(25)} == received(tmp_path)


# --- HttpTransport


@dataclass
class Service:
    """An agency's service on loopback: a token endpoint that checks the assertion, and an inbox that
    answers as it is told."""

    key: ECKey
    answers: list[int] = field(default_factory=list)
    token_answers: list[tuple[int, bytes]] = field(default_factory=list)
    assertions: list[dict[str, object]] = field(default_factory=list)
    headers: list[dict[str, object]] = field(default_factory=list)
    inbox: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    expires_in: int = 300
    body: bytes = b"Marama Tuhoe lives at"
    silent: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def token(self, form: dict[str, list[str]]) -> tuple[int, bytes]:
        assertion = jwt.decode(form["client_assertion"][0], self.key, algorithms=["ES256"])
        self.assertions.append(
            {**assertion.claims, "grant": form["grant_type"][0], "scope": form.get("scope")}
        )
        self.headers.append(assertion.header)
        if self.token_answers:
            return self.token_answers.pop(0)
        token = {
            "access_token": f"t{len(self.assertions)}",
            "token_type": "Bearer",
            "expires_in": self.expires_in,
        }
        return 200, json.dumps(token).encode()


@pytest.fixture
def service() -> Iterator[Service]:
    told = Service(ECKey.generate_key("P-256"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            told.connections.add(self.client_address)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/token":
                status, answer = told.token(parse_qs(body.decode()))
                self._answer(status, answer)
                return
            if told.silent.is_set():
                self.close_connection = True
                return
            key, kind = self.headers["Idempotency-Key"], self.headers["Content-Type"]
            told.inbox.append((key, kind, self.headers["Authorization"], body))
            self._answer(told.answers.pop(0) if told.answers else 202, told.body)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if 300 <= status < 400:
                self.send_header("Location", told.url + "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that leaves a long answer unread is no error here."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def transport(service: Service) -> Iterator[HttpTransport]:
    made = HttpTransport({"acc": recipient(service)}, timeout_seconds=5)
    yield made
    made.close()


def recipient(service: Service, **changed: object) -> HttpRecipient:
    settings: dict[str, object] = {
        "url": service.url + "/inbox",
        "token_endpoint": service.url + "/token",
        "client_id": "isr-hub",
        "private_key": service.key,
        "key_id": "k1",
        "audience": "https://issuer.acc.example.nz",
        "scope": "notices.write",
    }
    return HttpRecipient(**{**settings, **changed})  # type: ignore[arg-type]


def test_http_transport_posts_with_a_token_and_the_delivery_id_as_key(
    service: Service, transport: HttpTransport
) -> None:
    assert transport.send("acc", [("d-1", JSON), ("d-2", CSV)]) == [None, None]
    assert [
        ("d-1", "application/json", "Bearer t1", JSON.content),
        ("d-2", "text/csv; charset=utf-8", "Bearer t1", CSV.content),
    ] == service.inbox


def test_http_transport_shows_who_it_is_by_a_short_assertion_with_its_key(
    service: Service, transport: HttpTransport
) -> None:
    transport.send("acc", [("d-1", JSON)])
    (claims,) = service.assertions
    assert tuple(claims[c] for c in ("iss", "sub", "aud")) == (
        "isr-hub",
        "isr-hub",
        "https://issuer.acc.example.nz",
    )
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 60
    assert (claims["grant"], claims["scope"]) == ("client_credentials", ["notices.write"])
    assert (service.headers[0]["alg"], service.headers[0]["kid"]) == ("ES256", "k1")


def test_http_transport_makes_the_assertion_out_to_the_token_endpoint_when_no_issuer_is_set(
    service: Service,
) -> None:
    transport = HttpTransport({"acc": recipient(service, audience="", scope=None)})
    transport.send("acc", [("d-1", JSON)])
    transport.close()
    assert service.url + "/token" == service.assertions[0]["aud"]


def test_http_transport_asks_again_with_a_new_assertion_when_the_token_expired(
    service: Service, transport: HttpTransport
) -> None:
    service.expires_in = 1  # within Authlib's leeway of a minute: expired at once
    transport.send("acc", [("d-1", JSON), ("d-2", JSON)])
    assert [token for _, _, token, _ in service.inbox] == ["Bearer t1", "Bearer t2"]
    assert len(service.assertions) == len({claims["jti"] for claims in service.assertions})


def test_http_transport_keeps_one_connection_for_a_batch(service: Service, transport: HttpTransport) -> None:
    transport.send("acc", [(f"d-{i}", JSON) for i in range(10)])
    assert len(service.connections) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 413, 415, 422, 451])
def test_http_transport_says_refused_when_waiting_will_not_help(
    service: Service, transport: HttpTransport, status: int
) -> None:
    service.answers = [status]
    first, second = transport.send("acc", [("d-1", JSON), ("d-2", JSON)])
    assert isinstance(first, RefusedByRecipient)
    assert second is None
    assert str(status) in first.problems[0].detail
    assert "Marama" not in json.dumps(first.as_json())


@pytest.mark.parametrize(
    "status", [301, 302, 307, 308, 401, 408, 409, 421, 423, 425, 429, 500, 502, 503, 504]
)
def test_http_transport_says_not_sent_when_it_may_work_later(
    service: Service, transport: HttpTransport, status: int
) -> None:
    service.answers = [status]
    (answer,) = transport.send("acc", [("d-1", JSON)])
    assert isinstance(answer, NotSent)
    assert len(service.inbox) == 1  # no second try, no redirect followed
    assert transport.send("acc", [("d-1", JSON)]) == [None]
    assert [key for key, _, _, _ in service.inbox] == ["d-1", "d-1"]


def test_http_transport_gets_a_new_token_after_a_401(service: Service, transport: HttpTransport) -> None:
    service.answers = [401]
    transport.send("acc", [("d-1", JSON)])
    transport.send("acc", [("d-1", JSON)])
    assert [token for _, _, token, _ in service.inbox] == ["Bearer t1", "Bearer t2"]


def test_http_transport_says_not_sent_when_the_answer_is_lost(
    service: Service, transport: HttpTransport
) -> None:
    service.silent.set()
    (answer,) = transport.send("acc", [("d-1", JSON)])
    assert isinstance(answer, NotSent)
    service.silent.clear()
    assert transport.send("acc", [("d-1", JSON)]) == [None]


@pytest.mark.parametrize(
    "reply",
    [
        (401, b'{"error": "invalid_client", "error_description": "Marama"}'),
        (400, b'{"error": "invalid_scope"}'),
        (500, b"oops"),
        (200, b"not json"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"access_token": "t", "token_type": "mac"}'),
        (200, b'{"access_token": null, "token_type": "Bearer"}'),
    ],
)
def test_http_transport_says_not_sent_when_it_gets_no_token(
    service: Service, transport: HttpTransport, reply: tuple[int, bytes]
) -> None:
    service.token_answers = [reply]
    (answer,) = transport.send("acc", [("d-1", JSON)])
    assert isinstance(answer, NotSent)
    assert "Marama" not in json.dumps(answer.as_json())
    assert service.inbox == []
    assert transport.send("acc", [("d-1", JSON)]) == [None]


def test_http_transport_says_not_sent_when_nobody_listens(service: Service) -> None:
    transport = HttpTransport(
        {"acc": recipient(service, url="http://127.0.0.1:1/", token_endpoint="http://127.0.0.1:1/")}
    )
    (answer,) = transport.send("acc", [("d-1", JSON)])
    transport.close()
    assert isinstance(answer, NotSent)


def test_http_transport_leaves_a_long_answer_unread(service: Service, transport: HttpTransport) -> None:
    service.body = b"x" * 5_000_000
    assert transport.send("acc", [("d-1", JSON), ("d-2", JSON)]) == [None, None]


def test_http_transport_says_not_sent_for_a_party_without_an_address(transport: HttpTransport) -> None:
    (answer,) = transport.send("msd", [("d-1", JSON)])
    assert isinstance(answer, NotSent)


@pytest.mark.parametrize("name", ["url", "token_endpoint"])
@pytest.mark.parametrize(
    "url",
    ["http://acc.example.nz/", "ftp://localhost/", "https://", "", "/x", "http://127.0.0.1.example.nz/"],
)
def test_http_transport_refuses_an_address_that_is_not_confidential(
    service: Service, name: str, url: str
) -> None:
    with pytest.raises(BadSettings) as caught:
        HttpTransport({"acc": recipient(service, **{name: url})})
    assert name == caught.value.problems[0].pointer


def test_http_transport_accepts_https_without_contacting_anybody(service: Service) -> None:
    HttpTransport(
        {"acc": recipient(service, url="https://acc.example.nz/", token_endpoint="https://acc.example.nz/t")}
    ).close()
