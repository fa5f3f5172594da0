"""The file that says which way deliveries go is understood whole or refused with line and fix; each party's
deliveries go its way and no other."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from joserfc import jwe
from joserfc.jwk import ECKey

from adapters.adapter import Native
from broker.broker import Outgoing
from gateway.command import main
from gateway.hub import open_hub
from gateway.recipients import Mailbox, Recipients, Ways, read_recipients
from gateway.settings import Settings
from schemas.errors import BadSettings, HubError, NotSent, Unconfirmed

PARTIES = ("acc", "health", "ngo.example#ivs", "police")
JSON = Native(b'{"a": 1}', "application/json", companions={"beside.json": b"{}"})
THEIRS = ECKey.generate_key("P-384")
WHOLE = """\
recipients:
  acc:
    https: https://acc.example.nz/isr
    token_endpoint: https://login.acc.example.nz/token
    client_id: isr-hub
    key: acc.pem
    scope: notices.write
    timeout_seconds: 4
  ngo.example#ivs: mailbox
  police: folder
others: folder
"""
ENCRYPTED = WHOLE.replace("mailbox", "\n    mailbox:\n      encrypt_to: ngo.jwk")


def pem(key: object, private: bool = True) -> bytes:
    if private:
        return key.private_bytes(  # type: ignore[attr-defined, no-any-return]  # every private key has it
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    return key.public_key().public_bytes(  # type: ignore[attr-defined, no-any-return]  # likewise
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a file of recipients, beside a key that the hub alone can read."""
    key = tmp_path / "acc.pem"
    key.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    key.chmod(0o600)
    (tmp_path / "ngo.jwk").write_text(json.dumps(THEIRS.as_dict(private=False)), "utf-8")
    (tmp_path / "private.jwk").write_text(json.dumps(THEIRS.as_dict(private=True)), "utf-8")

    def write(text: str) -> Path:
        path = tmp_path / "recipients.yaml"
        path.write_text(text, "utf-8")
        return path

    return write


def refused(path: Path, *, has_mailboxes: bool = True, production: bool = False) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        read_recipients(path, PARTIES, has_mailboxes=has_mailboxes, production=production)
    assert all(problem.fix for problem in caught.value.problems)
    return [problem.line() for problem in caught.value.problems]


def test_everybody_has_a_folder_without_a_file() -> None:
    assert read_recipients(None, PARTIES, has_mailboxes=False).way == dict.fromkeys(PARTIES, "folder")


def test_each_party_has_the_way_that_the_file_says(written: Callable[[str], Path]) -> None:
    found = read_recipients(written(WHOLE), PARTIES, has_mailboxes=True)

    assert found.way == {
        "acc": "https",
        "health": "folder",
        "ngo.example#ivs": "mailbox",
        "police": "folder",
    }
    assert found.mailboxes() == ["ngo.example#ivs"]
    service = found.services["acc"]
    assert (service.recipient.url, service.recipient.scope) == ("https://acc.example.nz/isr", "notices.write")
    assert (service.recipient.algorithm, service.timeout_seconds) == ("ES256", 4.0)
    assert service.recipient.key_id == service.recipient.private_key.thumbprint()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
    ids=["P-384", "P-521", "Ed25519"],
)
def test_key_says_its_algorithm(written: Callable[[str], Path], key: object, algorithm: str) -> None:
    path = written(WHOLE)
    (path.parent / "acc.pem").write_bytes(pem(key))

    found = read_recipients(path, PARTIES, has_mailboxes=True)

    assert found.services["acc"].recipient.algorithm == algorithm


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("police: folder", "police: fodler", "recipients.yaml:10: is no way to a recipient"),
        ("police: folder", "polcie: folder", "recipients.yaml:10: names a party of no agreement"),
        ("police: folder", "police: [folder]", "recipients.yaml:10: is no way to a recipient"),
        ("others: folder\n", "", "recipients.yaml:1: forgets health"),
        ("others: folder", "others: mailbox", "recipients.yaml:11: can only have a folder"),
        ("others: folder", "other: folder", "recipients.yaml:11: other is not a known key"),
        ("    client_id: isr-hub\n", "", "recipients.yaml:2: lacks client_id"),
        ("client_id:", "client:", "recipients.yaml:5: client is not a known key"),
        ("client_id: isr-hub", "client_id: ''", "recipients.yaml:5: client_id has no usable value"),
        ("timeout_seconds: 4", "timeout_seconds: soon", "recipients.yaml:8: timeout_seconds has no usable"),
        ("timeout_seconds: 4", "timeout_seconds: true", "recipients.yaml:8: timeout_seconds has no usable"),
        ("https: https:", "https: http:", "recipients.yaml:3: is neither HTTPS nor loopback"),
        ("token_endpoint: https:", "token_endpoint: http:", "recipients.yaml:4: is neither HTTPS nor"),
        ("key: acc.pem", "key: gone.pem", "recipients.yaml:6: cannot be read"),
        ("key: acc.pem", "key: recipients.yaml", "recipients.yaml:6: holds no private key for signing"),
        ("scope: notices.write", "authority: acc.pem", "recipients.yaml:7: holds no certificates"),
        ("recipients:\n", "recipients: everybody\n#", "recipients.yaml:3: "),
        ("recipients:", "- recipients:", "recipients.yaml:"),
        ("police: folder", "acc: folder", "recipients.yaml:10: repeats the key acc"),
    ],
)
def test_file_that_is_not_understood_is_refused_with_its_line(
    written: Callable[[str], Path], old: str, new: str, said: str
) -> None:
    assert old in WHOLE

    assert any(line.startswith(said) for line in refused(written(WHOLE.replace(old, new, 1))))


@pytest.mark.parametrize("text", ["", "recipients: mailbox\n", "- police\n", "police\n", "recipients:\n"])
def test_file_that_is_no_list_of_recipients_is_refused(written: Callable[[str], Path], text: str) -> None:
    assert refused(written(text))


def test_all_that_is_wrong_is_said_at_once(written: Callable[[str], Path]) -> None:
    wrong = WHOLE.replace("client_id", "client").replace("police: folder", "police: fax")

    assert [line.split(":")[1] for line in refused(written(wrong))] == ["5", "2", "10"]


@pytest.mark.parametrize("text", [WHOLE, ENCRYPTED])
def test_mailbox_is_refused_where_there_is_no_rabbitmq(written: Callable[[str], Path], text: str) -> None:
    [line] = refused(written(text), has_mailboxes=False)

    assert line.startswith("recipients.yaml:9: has a mailbox, and there is no RabbitMQ")


def test_mailbox_has_the_key_that_the_file_names(written: Callable[[str], Path]) -> None:
    path = written(ENCRYPTED)
    for production in (False, True):
        found = read_recipients(path, PARTIES, has_mailboxes=True, production=production)

        assert found.way["ngo.example#ivs"] == "mailbox"
        assert {party: key.thumbprint() for party, key in found.encrypt_to.items()} == {
            "ngo.example#ivs": THEIRS.thumbprint()
        }


def test_mailbox_that_anybody_could_read_is_refused_in_production(written: Callable[[str], Path]) -> None:
    path = written(WHOLE)
    assert read_recipients(path, PARTIES, has_mailboxes=True).encrypt_to == {}

    [line] = refused(path, production=True)

    assert line.startswith("recipients.yaml:9: has a mailbox that RabbitMQ's operators can read — write ")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("encrypt_to: ngo.jwk", "", "recipients.yaml:10: lacks encrypt_to — name the file"),
        ("encrypt_to: ngo.jwk", "encrypt_to: 7", "recipients.yaml:10: lacks encrypt_to"),
        ("encrypt_to: ngo.jwk", "encrypt_to: ''", "recipients.yaml:10: lacks encrypt_to"),
        ("encrypt_to:", "encrypted_to:", "recipients.yaml:10: lacks encrypt_to"),
        ("ngo.jwk", "ngo.jwk\n      sign_with: x", "recipients.yaml:12: sign_with is not a known key"),
        ("ngo.jwk", "ngo.jwk\n    key: acc.pem", "recipients.yaml:12: key does not go with a mailbox"),
        ("ngo.jwk", "gone.jwk", "recipients.yaml:11: cannot be read"),
        (
            "ngo.jwk",
            "acc.pem",
            "recipients.yaml:11: holds no public key for encryption — use a public JWK on",
        ),
        ("ngo.jwk", "private.jwk", "recipients.yaml:11: holds a private key, which only the party may have"),
    ],
)
def test_mailbox_that_cannot_be_encrypted_is_refused_with_its_line(
    written: Callable[[str], Path], old: str, new: str, said: str
) -> None:
    [line] = refused(written(ENCRYPTED.replace(old, new, 1)))

    assert line.startswith(said)


@pytest.mark.parametrize(
    "content",
    [
        pem(ec.generate_private_key(ec.SECP256R1()), private=False),
        pem(x25519.X25519PrivateKey.generate()),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP256K1())),
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"",
    ],
    ids=["public", "X25519", "RSA", "secp256k1", "cut", "empty"],
)
def test_key_that_cannot_sign_is_refused(written: Callable[[str], Path], content: bytes) -> None:
    path = written(WHOLE)
    (path.parent / "acc.pem").write_bytes(content)

    [line] = refused(path)
    assert line.startswith("recipients.yaml:6: holds no private key for signing — use one of P-256, ")


def test_key_that_others_can_read_is_refused(written: Callable[[str], Path]) -> None:
    path = written(WHOLE)
    (path.parent / "acc.pem").chmod(0o644)

    assert refused(path) == ["recipients.yaml:6: is open to others — chmod 0640 it, or stricter"]


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere.yaml")[0].startswith("ISR_HUB_RECIPIENTS: FileNotFoundError")


# --- the ways themselves


class Shelf:
    """A broker that keeps what it is given, or says it did not."""

    def __init__(self) -> None:
        self.kept: list[Outgoing] = []
        self.confirms = True

    def publish(self, messages: Sequence[Outgoing]) -> None:
        if not self.confirms:
            raise Unconfirmed
        self.kept += messages


class Folders:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        self.taken += [(party, delivery) for delivery, _ in deliveries]
        return [None] * len(deliveries)


def ways(way: Mapping[str, str], shelf: Shelf) -> tuple[Ways, Folders]:
    folders = Folders()
    return Ways(Recipients(way), folders, shelf), folders  # type: ignore[arg-type]  # it only publishes


def test_mailbox_holds_the_native_bytes_under_the_delivery_id() -> None:
    shelf = Shelf()

    answers = Mailbox(shelf, {}).send("police", [("d-1", JSON), ("d-2", JSON)])  # type: ignore[arg-type]

    assert answers == [None, None]
    assert shelf.kept == [
        Outgoing("mailbox.police", JSON.content, {"id": delivery, "media-type": "application/json"})
        for delivery in ("d-1", "d-2")
    ]


def test_mailbox_with_a_key_holds_what_its_party_alone_can_read() -> None:
    shelf = Shelf()
    sending = Mailbox(shelf, {"police": THEIRS})  # type: ignore[arg-type]  # it only publishes

    assert sending.send("police", [("d-1", JSON)]) == [None]
    assert sending.send("health", [("d-2", JSON)]) == [None]

    sealed, plain = shelf.kept
    assert sealed.headers == {"id": "d-1", "media-type": "application/jose"}
    found = jwe.decrypt_compact(sealed.body, THEIRS, algorithms=["ECDH-ES", "A256GCM"])
    assert (found.plaintext, found.protected["cty"]) == (JSON.content, JSON.media_type)
    assert plain.body == JSON.content


def test_mailbox_that_was_not_confirmed_was_not_filled() -> None:
    shelf = Shelf()
    shelf.confirms = False

    answers = Mailbox(shelf, {}).send("police", [("d-1", JSON), ("d-2", JSON)])  # type: ignore[arg-type]

    assert [type(answer) for answer in answers] == [NotSent, NotSent]


def test_deliveries_go_the_way_of_their_party_and_no_other() -> None:
    shelf = Shelf()
    sending, folders = ways({"police": "folder", "health": "mailbox"}, shelf)

    assert sending.send("police", [("d-1", JSON)]) == [None]
    assert sending.send("health", [("d-2", JSON)]) == [None]

    assert folders.taken == [("police", "d-1")]
    assert [(m.queue, m.headers["id"]) for m in shelf.kept] == [("mailbox.health", "d-2")]


def test_party_that_came_after_the_file_was_read_waits() -> None:
    sending, folders = ways({"police": "folder"}, Shelf())

    [answer] = sending.send("acc", [("d-1", JSON)])

    assert isinstance(answer, NotSent)
    assert folders.taken == []


# --- by command


def test_command_shows_each_partys_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recipients.yaml"
    file.write_text("recipients:\n  police: folder\nothers: folder\n", "utf-8")
    monkeypatch.setenv("ISR_HUB_RECIPIENTS", str(file))

    assert main(["recipients", "--data", str(tmp_path)]) == 0

    assert re.search("^police: folder$", capsys.readouterr().out, re.M)


def test_command_shows_which_key_a_mailbox_is_encrypted_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "police.jwk").write_text(json.dumps(THEIRS.as_dict(private=False)), "utf-8")
    file = tmp_path / "recipients.yaml"
    text = "recipients:\n  police: {mailbox: {encrypt_to: police.jwk}}\n  acc: mailbox\nothers: folder\n"
    file.write_text(text, "utf-8")
    monkeypatch.setenv("ISR_HUB_RECIPIENTS", str(file))
    monkeypatch.setenv("ISR_HUB_BROKER_URL", "amqp://rabbit.example.nz/")

    assert main(["recipients", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert re.search(f"^police: mailbox, encrypted to {THEIRS.thumbprint()}$", said, re.M)
    assert re.search("^acc: mailbox$", said, re.M)

    monkeypatch.setenv("ISR_HUB_PRODUCTION", "true")
    assert main(["recipients", "--data", str(tmp_path), "--json"]) == 1
    assert "recipients.yaml:3" in capsys.readouterr().out


def test_hub_does_not_open_with_a_mailbox_on_the_embedded_engine(tmp_path: Path) -> None:
    file = tmp_path / "recipients.yaml"
    file.write_text("recipients:\n  police: mailbox\nothers: folder\n", "utf-8")

    with (
        pytest.raises(BadSettings, match="recipients cannot be used") as caught,
        open_hub(Settings(data=tmp_path / "hub", recipients=file)),
    ):
        pass

    assert "no RabbitMQ" in caught.value.problems[0].detail
    assert "agencies" not in os.listdir(tmp_path / "hub")
