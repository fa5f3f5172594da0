"""What agencies encrypt to the hub is opened, whoever wrote their library; whatever else comes is refused
with what mends it, and never unpacked, repeated or raised as something else."""

import json
import os
import re
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import ECKey, OKPKey

from broker.broker import Outgoing
from broker.topology import DOOR
from gateway.amqp_door import take_in
from gateway.command import main
from gateway.encrypted import EncryptionKeys, closed, party_key
from gateway.hub import Hub, encryption_keys
from gateway.intake import JOSE, MAX_BODY, MAX_ENCRYPTED
from gateway.settings import Settings
from schemas.errors import BadSettings, TooLarge, Unreadable
from tests.serving import bearer, episode, serving, small_hub

CANARY = b"Te Rangik\xc4\x81heke, 14 K\xc5\x8dwhai Street"
JSON = "application/json"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> EncryptionKeys:
    return encryption_keys(Settings(data=tmp_path_factory.mktemp("hub")))


def given_out(keys: EncryptionKeys) -> dict[str, Any]:
    [key] = keys.public()["keys"]
    found: dict[str, Any] = key
    return found


def text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(key: dict[str, Any], content: bytes, **changes: Any) -> bytes:
    """A JWE for *key* made without any JOSE library (RFC 7518 4.6.2); *changes* are made to its header, None
    takes a member away."""
    number = {name: int.from_bytes(urlsafe_b64decode(key[name] + "=")) for name in ("x", "y")}
    public = ec.EllipticCurvePublicNumbers(number["x"], number["y"], ec.SECP256R1()).public_key()
    own = ec.generate_private_key(ec.SECP256R1())
    point = own.public_key().public_numbers()
    epk = {"kty": "EC", "crv": "P-256", "x": text(point.x.to_bytes(32)), "y": text(point.y.to_bytes(32))}
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "kid": key["kid"], "cty": JSON, "epk": epk, **changes}
    said = text(json.dumps({k: v for k, v in header.items() if v is not None}).encode()).encode()
    parts = (b"A256GCM", b"", b"")
    info = b"".join(len(part).to_bytes(4) + part for part in parts) + (256).to_bytes(4)
    secret = ConcatKDFHash(hashes.SHA256(), 32, info).derive(own.exchange(ec.ECDH(), public))
    nonce = os.urandom(12)
    sealed = AESGCM(secret).encrypt(nonce, content, said)
    return b".".join((said, b"", *(text(p).encode() for p in (nonce, sealed[:-16], sealed[-16:]))))


def put_together(header: object, body: bytes = b"..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA") -> bytes:
    return text(json.dumps(header).encode()).encode() + body


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_what_is_written_by_hand_is_opened(keys: EncryptionKeys, content: bytes) -> None:
    assert keys.opened(JOSE, by_hand(given_out(keys), content)) == (JSON, content)


@pytest.mark.parametrize("alg", ["ECDH-ES", "ECDH-ES+A256KW"])
@pytest.mark.parametrize("kid", [True, False], ids=["kid", "no kid"])
def test_both_algorithms_open_with_and_without_the_keys_name(
    keys: EncryptionKeys, alg: str, kid: bool
) -> None:
    key = given_out(keys)
    header = {"alg": alg, "enc": "A256GCM", "cty": "text/csv"} | ({"kid": key["kid"]} if kid else {})
    made = jwe.encrypt_compact(header, CANARY, ECKey.import_key(key), algorithms=[alg, "A256GCM"])

    assert keys.opened("Application/JOSE; x=y", made.encode()) == ("text/csv", CANARY)


def test_media_type_without_a_slash_is_an_application(keys: EncryptionKeys) -> None:
    """RFC 7515 4.1.10."""
    assert keys.opened(JOSE, by_hand(given_out(keys), b"{}", cty="json"))[0] == JSON


def test_what_is_not_encrypted_passes_as_it_is(keys: EncryptionKeys) -> None:
    assert keys.opened("text/csv; header=present", b"a") == ("text/csv; header=present", b"a")


REFUSED: dict[str, tuple[str, Callable[[dict[str, Any]], bytes]]] = {
    "plain": ("", lambda key: CANARY),
    "empty": ("", lambda key: b""),
    "dots": ("", lambda key: b"...."),
    "a part more": ("", lambda key: by_hand(key, CANARY) + b"."),
    "cut": ("", lambda key: by_hand(key, CANARY)[:-4]),
    "cut in the middle": ("", lambda key: by_hand(key, CANARY)[:300]),
    "changed": ("", lambda key: by_hand(key, CANARY)[:-24] + b"A" + by_hand(key, CANARY)[-23:]),
    "header is no JSON": ("", lambda key: by_hand(key, CANARY).replace(b"e", b"f", 1)),
    "header is a list": ("", lambda key: put_together([])),
    "header is deep": ("", lambda key: text(b"[" * 1500).encode() + b"...."),
    "header is long": ("", lambda key: by_hand(key, CANARY, apu="A" * 4000)),
    "header says more": ("", lambda key: by_hand(key, CANARY, jku="https://example.nz/keys")),
    "critical": ("", lambda key: by_hand(key, CANARY, crit=["x"], x=1)),
    "another hub's key": ("kid", lambda key: by_hand({**key, "kid": "x"}, CANARY)),
    "key's name is no text": ("kid", lambda key: by_hand(key, CANARY, kid=["x"])),
    "made for another": ("", lambda key: by_hand({**other_key(), "kid": key["kid"]}, CANARY)),
    "unnamed, for another": ("", lambda key: by_hand(other_key(), CANARY, kid=None)),
    "compressed": ("zip", lambda key: by_hand(key, bomb(), zip="DEF")),
    "alg none": ("alg", lambda key: by_hand(key, CANARY, alg="none")),
    "alg dir": ("alg", lambda key: by_hand(key, CANARY, alg="dir")),
    "alg RSA1_5": ("alg", lambda key: put_together({"alg": "RSA1_5", "enc": "A256GCM"})),
    "alg PBES2": ("alg", lambda key: by_hand(key, CANARY, alg="PBES2-HS512+A256KW", p2c=2**31)),
    "alg missing": ("alg", lambda key: by_hand(key, CANARY, alg=None)),
    "alg is a list": ("alg", lambda key: by_hand(key, CANARY, alg=["ECDH-ES"])),
    "enc CBC": ("enc", lambda key: by_hand(key, CANARY, enc="A256CBC-HS512")),
    "enc missing": ("enc", lambda key: by_hand(key, CANARY, enc=None)),
    "epk missing": ("epk", lambda key: by_hand(key, CANARY, epk=None)),
    "epk on another curve": ("epk", lambda key: by_hand(key, CANARY, epk=other_curve())),
    "epk off the curve": ("", lambda key: by_hand(key, CANARY, epk=off_the_curve())),
    "epk is a text": ("epk", lambda key: by_hand(key, CANARY, epk="x")),
    "cty missing": ("cty", lambda key: by_hand(key, CANARY, cty=None)),
    "cty is a number": ("cty", lambda key: by_hand(key, CANARY, cty=7)),
    "cty is empty": ("cty", lambda key: by_hand(key, CANARY, cty="")),
    "a JWE in a JWE": ("cty", lambda key: by_hand(key, by_hand(key, CANARY), cty="jose")),
}


def other_key() -> dict[str, Any]:
    return {**ECKey.generate_key("P-256").as_dict(private=False), "kid": "other"}


def other_curve() -> dict[str, Any]:
    return dict(OKPKey.generate_key("X25519").as_dict(private=False))


def off_the_curve() -> dict[str, Any]:
    return {"kty": "EC", "crv": "P-256", "x": text(b"\1" * 32), "y": text(b"\2" * 32)}


def bomb() -> bytes:
    """40 kB that unpack to 40 MB."""
    packing = zlib.compressobj(9, wbits=-15)
    return packing.compress(bytes(40_000_000)) + packing.flush()


@pytest.mark.parametrize(("pointer", "made"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_taken_is_refused_with_where_and_how(
    keys: EncryptionKeys, pointer: str, made: Callable[[dict[str, Any]], bytes]
) -> None:
    with pytest.raises(Unreadable) as caught:
        keys.opened(JOSE, made(given_out(keys)))

    [problem] = caught.value.problems
    assert (problem.pointer, bool(problem.detail), bool(problem.fix)) == (pointer, True, True)
    assert "Rangik" not in json.dumps(caught.value.as_json(), ensure_ascii=False)


def test_too_much_is_refused_before_and_after_it_is_opened(keys: EncryptionKeys) -> None:
    key = given_out(keys)
    whole = by_hand(key, bytes(MAX_BODY))
    assert len(keys.opened(JOSE, whole)[1]) == MAX_BODY
    for body in (by_hand(key, bytes(MAX_BODY + 1)), bytes(MAX_ENCRYPTED + 1)):
        with pytest.raises(TooLarge):
            keys.opened(JOSE, body)


@settings(deadline=None)
@given(st.data())
def test_whatever_comes_is_opened_whole_or_refused_as_unreadable(
    keys: EncryptionKeys, data: st.DataObject
) -> None:
    """Bytes of all kinds, and good JWEs with some of their bytes changed."""
    good = bytearray(by_hand(given_out(keys), CANARY))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.sampled_from(b".AZaz09-_={}\0\xff"))
    body = bytes(good) if data.draw(st.booleans()) else data.draw(st.binary(max_size=200))
    try:
        assert keys.opened(JOSE, body) == (JSON, CANARY)
    except Unreadable:
        return


def test_key_is_for_the_hub_alone_and_its_public_half_for_everybody(tmp_path: Path) -> None:
    keys = encryption_keys(Settings(data=tmp_path))
    key = given_out(keys)

    assert (tmp_path / "encryption.jwks").stat().st_mode & 0o777 == 0o600
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use"}
    assert key["kid"] == ECKey.import_key(key).thumbprint()
    assert given_out(encryption_keys(Settings(data=tmp_path))) == key


def test_renewed_key_is_given_out_at_once_and_the_one_before_it_still_opens(tmp_path: Path) -> None:
    """Also by a process that read the file before."""
    keys, running = (encryption_keys(Settings(data=tmp_path)) for _ in range(2))
    first = given_out(keys)
    keys.renew()
    second = given_out(keys)
    assert second["kid"] != first["kid"]
    assert running.opened(JOSE, by_hand(second, CANARY)) == (JSON, CANARY)
    assert keys.opened(JOSE, by_hand(first, CANARY)) == (JSON, CANARY)
    assert (tmp_path / "encryption.jwks").stat().st_mode & 0o777 == 0o600
    keys.renew()

    assert keys.opened(JOSE, by_hand(second, CANARY)) == (JSON, CANARY)
    with pytest.raises(Unreadable):
        keys.opened(JOSE, by_hand(first, CANARY))
    assert os.listdir(tmp_path) == ["encryption.jwks"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"keys": []}', b'{"keys": [{}]}', b'{"keys": 1}', b"[]"], ids=repr
)
def test_keys_that_cannot_be_used_are_an_error_with_a_fix(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "encryption.jwks").write_bytes(content)
    with pytest.raises(BadSettings) as caught:
        encryption_keys(Settings(data=tmp_path))
    assert caught.value.problems[0].line().startswith("encryption.jwks: is no set of private P-256 keys")


def test_public_half_alone_is_no_key_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "encryption.jwks").write_text(json.dumps({"keys": [other_key()]}), "utf-8")
    with pytest.raises(BadSettings):
        encryption_keys(Settings(data=tmp_path))


# --- to parties


@pytest.mark.parametrize(
    "private",
    [ECKey.generate_key("P-256"), ECKey.generate_key("P-384"), OKPKey.generate_key("X25519")],
    ids=["P-256", "P-384", "X25519"],
)
@pytest.mark.parametrize(
    "more", [{}, {"use": "enc", "alg": "ECDH-ES+A256KW"}, {"kid": "aviva-1", "key_ops": []}]
)
def test_party_opens_what_the_hub_encrypts_to_it(private: ECKey | OKPKey, more: dict[str, Any]) -> None:
    key, _ = party_key(json.dumps({**private.as_dict(private=False), **more}).encode())
    assert key is not None
    made = closed(key, "text/csv", CANARY)

    found = jwe.decrypt_compact(made, private, algorithms=["ECDH-ES", "A256GCM"])
    assert found.plaintext == CANARY
    assert (found.protected["cty"], found.protected["kid"]) == (
        "text/csv",
        more.get("kid", private.thumbprint()),
    )


@pytest.mark.parametrize(
    "jwk",
    [
        b"",
        b"[]",
        b"{}",
        b"-----BEGIN PUBLIC KEY-----",
        json.dumps({**other_key(), "use": "sig"}).encode(),
        json.dumps({**other_key(), "alg": "ES256"}).encode(),
        json.dumps({**other_key(), "x": "AAAA"}).encode(),
        json.dumps({**other_key(), "x": 7}).encode(),
        json.dumps({**other_key(), "kid": 7}).encode(),
        json.dumps({**other_key(), "kty": "OKP"}).encode(),
        json.dumps(off_the_curve()).encode(),
        json.dumps(ECKey.generate_key("P-521").as_dict(private=False)).encode(),
        json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=False)).encode(),
        json.dumps({"kty": "oct", "crv": "P-256", "k": "AAAA"}).encode(),
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        b"\xff" * 10,
    ],
)
def test_what_is_no_public_key_for_encryption_is_no_partys_key(jwk: bytes) -> None:
    key, wrong = party_key(jwk)
    assert key is None
    assert wrong.detail == "holds no public key for encryption"


def test_private_key_of_a_party_is_refused() -> None:
    key, wrong = party_key(json.dumps(ECKey.generate_key("P-256").as_dict(private=True)).encode())
    assert key is None
    assert wrong.detail.startswith("holds a private key")


# --- at the doors


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with small_hub(tmp_path / "hub") as hub:
        yield hub


def published(hub: Hub, *inputs: tuple[str, bytes]) -> None:
    """*inputs* as Police publish them by AMQP: content type and body."""
    headers = [({"party": "police", "media-type": kind}, body) for kind, body in inputs]
    hub.broker.publish([Outgoing(DOOR, body, header) for header, body in headers])
    assert take_in(hub) == len(inputs)


def set_aside(hub: Hub) -> list[tuple[str, str]]:
    """Code and fix of every dead letter."""
    return [(d.error["code"], d.error["problems"][0]["fix"]) for d in hub.broker.dead_letters()]


def test_amqp_door_takes_what_is_encrypted_and_what_is_not(hub: Hub) -> None:
    content, key = json.dumps(episode()).encode(), given_out(hub.encryption)
    published(hub, (JOSE, by_hand(key, content)), (JSON, content))

    assert set_aside(hub) == []
    assert hub.broker.depth("submissions") == 2


def test_amqp_door_takes_batches_out_of_their_envelope(hub: Hub) -> None:
    body = b"[" + b",".join([json.dumps(episode()).encode()] * 3) + b"]"
    kind = "application/cloudevents-batch+json"
    published(hub, (JOSE, by_hand(given_out(hub.encryption), body, cty=kind)))

    assert len(hub.broker.dead_letters()) == 3  # each read and judged alone: they are no CloudEvents


def test_amqp_door_sets_aside_what_does_not_open_and_goes_on(hub: Hub) -> None:
    content, key = json.dumps(episode()).encode(), given_out(hub.encryption)
    bad = [(JOSE, made(key)) for _, made in REFUSED.values() if made(key)]
    published(hub, *bad, (JOSE, bytes(MAX_ENCRYPTED + 1)), (JOSE, by_hand(key, content)))

    codes = [code for code, fix in set_aside(hub) if fix]
    assert codes == ["unreadable"] * len(bad) + ["too-large"]
    assert hub.broker.depth("submissions") == 1


def test_amqp_door_takes_nothing_unencrypted_in_production(tmp_path: Path) -> None:
    content = json.dumps(episode()).encode()
    with small_hub(tmp_path / "hub", production=True) as hub:
        key = given_out(hub.encryption)
        published(hub, (JSON, content), ("", content), (JOSE, by_hand(key, content)))

        assert [code for code, _ in set_aside(hub)] == ["unencrypted"] * 2
        assert all("/v1/encryption-key" in fix for _, fix in set_aside(hub))
        assert hub.broker.depth("submissions") == 1


def test_what_was_set_aside_because_a_key_was_missing_goes_on_when_it_is_back(hub: Hub) -> None:
    file, content = hub.settings.data / "encryption.jwks", json.dumps(episode()).encode()
    right = file.read_bytes()
    body = by_hand(given_out(hub.encryption), content)
    file.write_bytes(EncryptionKeys.made())
    hub.encryption.public()
    published(hub, (JOSE, body))
    [letter] = hub.broker.dead_letters()
    assert letter.error["problems"][0]["pointer"] == "kid"
    assert [e.code for e in hub.exchange.send_again(letter.number).rejected] == ["unreadable"]
    file.write_bytes(right)

    [letter] = hub.broker.dead_letters()
    receipt = hub.exchange.send_again(letter.number)

    assert (len(receipt.accepted), receipt.rejected, hub.broker.dead_letters()) == (1, [], [])


def test_http_door_takes_what_is_encrypted_and_gives_out_the_key(hub: Hub) -> None:
    content = json.dumps(episode()).encode()
    with serving(hub) as client:
        key = client.get("/v1/encryption-key").json()["keys"][0]
        answers = [
            client.post(
                "/v1/messages",
                content=body,
                headers={**bearer(hub, "police"), "Content-Type": JOSE},
            )
            for body in (by_hand(key, content), b"x", by_hand(key, bytes(MAX_BODY)), bytes(MAX_ENCRYPTED + 1))
        ]

    assert [a.status_code for a in answers] == [202, 400, 413, 413]
    assert answers[0].json()["rejected"] == []


def test_command_prints_the_key_and_renews_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*more: str) -> str:
        assert main(["encryption-key", "--data", str(tmp_path), *more]) == 0
        return str(json.loads(capsys.readouterr().out)["keys"][0]["kid"])

    first = printed()
    assert printed("--json") == first
    assert printed("--renew") != first
    assert printed() != first


# --- as the page for developers shows


def test_developers_example_is_understood_on_both_sides(tmp_path: Path, keys: EncryptionKeys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "agency-developer.md").read_text("utf-8")
    shown: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M):
        exec(block, shown)

    assert keys.opened(JOSE, shown["encrypted"](CANARY, JSON, keys.public())) == (JSON, CANARY)
    private, public = tmp_path / "private.jwk", tmp_path / "public.jwk"
    shown["make_pair"](str(private), str(public))
    key, _ = party_key(public.read_bytes())
    assert key is not None
    assert shown["opened"](closed(key, "text/csv", CANARY * 10_000), str(private)) == (
        "text/csv",
        CANARY * 10_000,
    )
    assert private.stat().st_mode & 0o777 == 0o600
    assert b'"d"' not in public.read_bytes()
