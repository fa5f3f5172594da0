"""Access tokens: what lets a party in, and everything that does not."""

import hashlib
import hmac
import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from consent.agreement import Agreements, Party
from gateway import auth
from gateway.auth import AUDIT, READ, SUBMIT, Gate, TrustedKeys, mint, mint_session, usable_keys
from gateway.settings import Settings
from schemas.errors import BadSettings, HubError, NotAuthenticated, NotAuthorised

NOW = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)
URL = "https://hub.example.nz/v1/messages"
ISSUER = "https://issuer.example.nz"
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
JWKS = json.dumps({"keys": [k.as_dict(private=False) for k in (EC, ED, RSA)]}).encode()


def party(id: str, active: bool = True) -> Party:
    return Party(id, id, "", "POL", id, frozenset({"christchurch"}), True, active)


AGREEMENTS = Agreements({p.id: p for p in (party("police"), party("gone", active=False))}, (), "0" * 64)


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at

    def pass_by(self, **amount: float) -> None:
        self.at += timedelta(**amount)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def gate(time: Time) -> Gate:
    settings = Settings(issuer=ISSUER, jwks="https://issuer.example.nz/jwks", production=True)
    return Gate(settings, lambda: AGREEMENTS, time, lambda _: JWKS)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, changed; None leaves one out."""
    issued = int(NOW.timestamp())
    good = {
        "iss": ISSUER, "aud": "isr-hub", "sub": "c1", "client_id": "c1", "party": "police", "jti": "1",
        "iat": issued, "exp": issued + 300, "scope": "messages:submit messages:read",
    }  # fmt: skip
    return {k: v for k, v in {**good, **changes}.items() if v is not None}


def signed(said: dict[str, Any], key: Any = EC, alg: str = "ES256", **header: Any) -> str:
    full = {"alg": alg, "typ": "at+jwt", "kid": key.kid, **header}
    registry = JWSRegistry(algorithms=[alg], strict_check_header=False)
    return jwt.encode({k: v for k, v in full.items() if v is not None}, said, key, registry=registry)


def admitted(gate: Gate, token: str, scheme: str = "Bearer", proofs: tuple[str, ...] = ()) -> auth.Principal:
    return gate.admit([f"{scheme} {token}"], proofs, "POST", URL)


@pytest.mark.parametrize(
    ("key", "alg"), [pytest.param(EC, "ES256"), pytest.param(RSA, "PS256"), pytest.param(ED, "Ed25519")]
)
def test_gate_admits_the_party_of_a_good_token(gate: Gate, key: Any, alg: str) -> None:
    who = admitted(gate, signed(claims(), key, alg))
    assert (who.client, who.party, who.scopes) == ("c1", "police", {SUBMIT, READ})


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # only the test's own signing warns
def test_gate_admits_eddsa_under_its_former_name_without_a_warning(gate: Gate) -> None:
    assert admitted(gate, signed(claims(), ED, "EdDSA")).party == "police"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"iss": "https://other.example.nz"}, id="another issuer"),
        pytest.param({"iss": None}, id="no issuer"),
        pytest.param({"aud": "another-hub"}, id="another audience"),
        pytest.param({"aud": None}, id="no audience"),
        pytest.param({"aud": 7}, id="audience is a number"),
        pytest.param({"exp": int(NOW.timestamp()) - 11}, id="expired beyond the leeway"),
        pytest.param({"exp": None}, id="no end"),
        pytest.param({"exp": "tomorrow"}, id="end is text"),
        pytest.param({"iat": int(NOW.timestamp()) + 11}, id="issued in the future"),
        pytest.param({"iat": None}, id="no beginning"),
        pytest.param({"nbf": int(NOW.timestamp()) + 60}, id="not yet valid"),
        pytest.param({"jti": None}, id="no name"),
        pytest.param({"sub": None}, id="no subject"),
        pytest.param({"client_id": None}, id="no client"),
        pytest.param({"party": None}, id="no party"),
        pytest.param({"party": ["police"]}, id="party is a list"),
        pytest.param({"scope": ["messages:submit"]}, id="scope is a list"),
        pytest.param({"cnf": {"x5t#S256": "x"}}, id="bound to a certificate"),
        pytest.param({"cnf": {"jkt": "x"}}, id="bound, without a proof"),
        pytest.param({"cnf": "x"}, id="bound to nothing known"),
    ],
)
def test_gate_refuses_a_token_whose_claims_are_not_all_right(gate: Gate, changes: dict[str, Any]) -> None:
    with pytest.raises(NotAuthenticated):
        admitted(gate, signed(claims(**changes)))


@pytest.mark.parametrize("seconds", [-9, 9])
def test_gate_forgives_a_clock_that_is_nine_seconds_off(gate: Gate, seconds: int) -> None:
    at = int(NOW.timestamp())
    assert admitted(
        gate, signed(claims(iat=at + seconds, exp=at + seconds + 1 if seconds < 0 else at + 60))
    ).party


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: signed(claims(), typ="JWT"), id="an id token's type"),
        pytest.param(lambda: signed(claims(), typ=None), id="no type"),
        pytest.param(lambda: signed(claims(), typ="isr-session+jwt"), id="a console session"),
        pytest.param(lambda: signed(claims(), kid="unknown"), id="an unknown key"),
        pytest.param(lambda: signed(claims(), kid="ed"), id="the name of another key"),
        pytest.param(lambda: signed(claims(), kid=None), id="no key named, several there"),
        pytest.param(lambda: signed(claims(), ECKey.generate_key("P-256", {"kid": "ec"})), id="a stranger"),
        pytest.param(lambda: signed(claims(), RSA, "RS256"), id="RS256"),
        pytest.param(lambda: _by_hand({"alg": "HS256", "kid": "ec"}, _mac), id="HS256 by the public key"),
        pytest.param(lambda: signed(claims()).rsplit(".", 1)[0] + ".", id="no signature"),
        pytest.param(lambda: _by_hand({"alg": "none", "kid": "ec"}, lambda _: b""), id="alg none"),
        pytest.param(
            lambda: _by_hand({"alg": "Ed25519", "kid": "ed", "crit": ["x"], "x": 1}, ED.private_key.sign),
            id="an unknown critical header",
        ),
        pytest.param(
            lambda: signed(claims(), jwk=EC.as_dict(private=False), kid=None), id="a key of its own"
        ),
    ],
)
def test_gate_refuses_a_token_that_is_not_signed_as_it_must_be(gate: Gate, make: Callable[[], str]) -> None:
    with pytest.raises(NotAuthenticated):
        admitted(gate, make())


def _by_hand(header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token that no library would make."""
    parts = [json.dumps(p).encode() for p in ({"typ": "at+jwt", **header}, claims())]
    text = ".".join(urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts)
    return f"{text}.{urlsafe_b64encode(sign(text.encode())).rstrip(b'=').decode()}"


def _mac(text: bytes) -> bytes:
    return hmac.digest(EC.as_pem(private=False), text, "sha256")


def test_gate_admits_a_token_made_by_hand_when_it_is_right(gate: Gate) -> None:
    assert admitted(gate, _by_hand({"alg": "Ed25519", "kid": "ed"}, ED.private_key.sign)).party == "police"


@given(
    st.text(max_size=80)
    | st.builds(".".join, st.lists(st.text("eyJhbGciOiJub25l0_-=", max_size=20), max_size=5))
)
def test_gate_refuses_any_text_as_a_token(text: str) -> None:
    gate = Gate(Settings(issuer=ISSUER, jwks="https://x"), lambda: AGREEMENTS, lambda: NOW, lambda _: JWKS)
    with pytest.raises(NotAuthenticated):
        admitted(gate, text)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no header"),
        pytest.param(["Bearer"], id="no token"),
        pytest.param(["Basic YTpi"], id="another scheme"),
        pytest.param(["Bearer " + "a" * 9000], id="a very long token"),
        pytest.param(["Bearer a.b.c", "Bearer a.b.c"], id="two headers"),
    ],
)
def test_gate_refuses_a_request_without_exactly_one_token(gate: Gate, headers: list[str]) -> None:
    with pytest.raises(NotAuthenticated):
        gate.admit(headers, (), "GET", URL)


@pytest.mark.parametrize("name", ["gone", "nobody", ""])
def test_gate_refuses_a_party_that_is_not_active_in_the_agreements(gate: Gate, name: str) -> None:
    with pytest.raises(NotAuthorised):
        admitted(gate, signed(claims(party=name)))


def test_gate_asks_the_agreements_again_for_a_token_it_has_verified(time: Time) -> None:
    current = [AGREEMENTS]
    gate = Gate(Settings(issuer=ISSUER, jwks="https://x"), lambda: current[0], time, lambda _: JWKS)
    token = signed(claims())
    admitted(gate, token)
    current[0] = Agreements({"police": party("police", active=False)}, (), "1" * 64)
    with pytest.raises(NotAuthorised):
        admitted(gate, token)


def test_gate_forgets_a_verified_token_when_it_expires(gate: Gate, time: Time) -> None:
    token = signed(claims(exp=int(NOW.timestamp()) + 60))
    admitted(gate, token)
    time.pass_by(seconds=71)
    with pytest.raises(NotAuthenticated, match="expired"):
        admitted(gate, token)


def test_gate_keeps_no_more_verified_tokens_than_it_may(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_CACHED_TOKENS", 3)
    for name in "abcdef":
        admitted(gate, signed(claims(jti=name)))
    assert len(gate._verified) == 3


def test_principal_lacks_a_scope_it_was_not_given_and_scopes_nobody_knows(gate: Gate) -> None:
    who = admitted(gate, signed(claims(scope="messages:submit everything:do")))
    assert who.scopes == {SUBMIT}
    with pytest.raises(NotAuthorised):
        who.require(READ)


# DPoP


def proof(key: Any = ED, alg: str = "Ed25519", token: str = "", typ: str = "dpop+jwt", **changes: Any) -> str:
    said = {
        "jti": "p1", "htm": "POST", "htu": URL, "iat": int(NOW.timestamp()),
        "ath": urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode(),
    }  # fmt: skip
    said = {k: v for k, v in {**said, **changes}.items() if v is not None}
    jwk = {k: v for k, v in key.as_dict(private=False).items() if k != "kid"}
    return signed(said, key, alg, typ=typ, jwk=jwk, kid=None)


BOUND = signed(claims(cnf={"jkt": ED.thumbprint()}))


def test_gate_admits_a_bound_token_with_its_proof(gate: Gate) -> None:
    assert admitted(gate, BOUND, "DPoP", (proof(token=BOUND),)).party == "police"


def test_gate_compares_the_address_of_a_proof_without_query_and_standard_port(gate: Gate) -> None:
    said = proof(token=BOUND, htu="HTTPS://Hub.example.nz:443/v1/messages")
    assert gate.admit([f"DPoP {BOUND}"], (said,), "POST", URL + "?x=1").party == "police"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: (), id="no proof"),
        pytest.param(lambda: (proof(token=BOUND), proof(token=BOUND, jti="p2")), id="two proofs"),
        pytest.param(lambda: (proof(token=BOUND, htm="GET"),), id="another method"),
        pytest.param(lambda: (proof(token=BOUND, htu="https://hub.example.nz/v1/other"),), id="another path"),
        pytest.param(
            lambda: (proof(token=BOUND, htu="http://hub.example.nz/v1/messages"),), id="another scheme"
        ),
        pytest.param(lambda: (proof(token=BOUND, htu="https://[broken"),), id="no address"),
        pytest.param(lambda: (proof(token="another"),), id="another token"),
        pytest.param(lambda: (proof(token=BOUND, ath=None),), id="no token named"),
        pytest.param(lambda: (proof(token=BOUND, iat=int(NOW.timestamp()) - 61),), id="too old"),
        pytest.param(lambda: (proof(token=BOUND, iat=int(NOW.timestamp()) + 11),), id="too new"),
        pytest.param(lambda: (proof(token=BOUND, iat=True),), id="time is a truth"),
        pytest.param(lambda: (proof(token=BOUND, jti=None),), id="no name"),
        pytest.param(lambda: (proof(token=BOUND, jti="x" * 257),), id="a very long name"),
        pytest.param(lambda: (proof(token=BOUND, typ="jwt"),), id="another type"),
        pytest.param(lambda: (proof(EC, "ES256", token=BOUND),), id="another key"),
        pytest.param(lambda: (signed({"jti": "1"}, ED, "Ed25519", typ="dpop+jwt"),), id="no key in it"),
        pytest.param(
            lambda: (signed({"jti": "1"}, ED, "Ed25519", typ="dpop+jwt", jwk=ED.as_dict(private=True)),),
            id="a private key in it",
        ),
        pytest.param(lambda: ("a.b.c",), id="no proof at all"),
        pytest.param(lambda: ("a" * 9000,), id="a very long proof"),
    ],
)
def test_gate_refuses_a_bound_token_without_its_proof(
    gate: Gate, make: Callable[[], tuple[str, ...]]
) -> None:
    with pytest.raises(NotAuthenticated):
        admitted(gate, BOUND, "DPoP", make())


def test_gate_refuses_a_bound_token_sent_as_bearer(gate: Gate) -> None:
    with pytest.raises(NotAuthenticated):
        admitted(gate, BOUND, "Bearer", (proof(token=BOUND),))


def test_gate_refuses_an_unbound_token_sent_as_dpop(gate: Gate) -> None:
    token = signed(claims())
    with pytest.raises(NotAuthenticated):
        admitted(gate, token, "DPoP", (proof(token=token),))


def test_gate_refuses_a_proof_that_was_used_before(gate: Gate) -> None:
    once = proof(token=BOUND)
    admitted(gate, BOUND, "DPoP", (once,))
    with pytest.raises(NotAuthenticated, match="before"):
        admitted(gate, BOUND, "DPoP", (once,))
    assert admitted(gate, BOUND, "DPoP", (proof(token=BOUND, jti="p2"),)).party == "police"


def test_gate_forgets_used_proofs_once_they_are_too_old_and_refuses_rather_than_forget_sooner(
    gate: Gate, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_REMEMBERED_PROOFS", 2)
    for name in "ab":
        admitted(gate, BOUND, "DPoP", (proof(token=BOUND, jti=name),))
    with pytest.raises(NotAuthenticated):
        admitted(gate, BOUND, "DPoP", (proof(token=BOUND, jti="c"),))
    time.pass_by(seconds=71)
    later = proof(token=BOUND, jti="d", iat=int(time().timestamp()))
    assert admitted(gate, BOUND, "DPoP", (later,)).party == "police"


# the issuer's keys


def test_usable_keys_are_strong_public_signing_keys_only() -> None:
    weak = {**RSA.as_dict(private=False), "n": RSA.as_dict(private=False)["n"][:171], "kid": "weak"}  # type: ignore[index]
    document = {
        "keys": [
            EC.as_dict(private=False),
            ED.as_dict(private=True),
            weak,
            {**EC.as_dict(private=False), "use": "enc", "kid": "enc"},
            ECKey.generate_key("P-384", {"kid": "p384"}).as_dict(private=False),
            {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"},
            {"kty": "EC", "crv": "P-256", "kid": "broken"},
            "no key",
        ]
    }
    assert list(usable_keys(json.dumps(document).encode())) == ["ec"]


@pytest.mark.parametrize("document", [b"[]", b"{}", b'{"keys": {}}', b"not json", b"\xff"])
def test_usable_keys_refuses_what_is_no_key_set(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # JSON's own errors are such, and as good as ours
        usable_keys(document)


def test_trusted_keys_look_again_for_an_unknown_key_once_a_minute_only(time: Time) -> None:
    asked: list[str] = []
    sets = [json.dumps({"keys": [EC.as_dict(private=False)]}).encode(), JWKS]

    def fetch(source: str) -> bytes:
        asked.append(source)
        return sets[min(len(asked), len(sets)) - 1]

    keys = TrustedKeys("https://issuer/jwks", time, fetch)
    assert keys.find("ec") is not None
    for _ in range(5):
        assert keys.find("ed") is None
    assert len(asked) == 1
    time.pass_by(seconds=61)
    assert keys.find("ed") is not None
    assert len(asked) == 2


def test_trusted_keys_drop_a_withdrawn_key_within_ten_minutes(time: Time) -> None:
    sets = [JWKS, json.dumps({"keys": [ED.as_dict(private=False)]}).encode()]
    keys = TrustedKeys("https://issuer/jwks", time, lambda _: sets.pop(0))
    assert keys.find("ec") is not None
    time.pass_by(seconds=601)
    assert keys.find("ec") is None


def test_trusted_keys_keep_what_they_have_when_the_issuer_is_away(time: Time) -> None:
    answers: list[bytes | Exception] = [JWKS, OSError("away"), ValueError("not JSON")]

    def fetch(_: str) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    keys = TrustedKeys("https://issuer/jwks", time, fetch)
    for _ in range(3):
        assert keys.find("ec") is not None
        time.pass_by(seconds=601)


def test_trusted_keys_are_read_from_a_file(tmp_path: Path, time: Time) -> None:
    (tmp_path / "jwks.json").write_bytes(json.dumps({"keys": [EC.as_dict(private=False)]}).encode())
    keys = TrustedKeys(str(tmp_path / "jwks.json"), time)
    assert keys.find(None) is not None


def test_trusted_keys_are_never_fetched_without_tls(time: Time) -> None:
    with pytest.raises(BadSettings):
        TrustedKeys("http://issuer/jwks", time)


# the sandbox's issuer


@pytest.fixture
def sandbox(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "hub")


def test_mint_makes_a_token_that_the_sandbox_admits_until_it_expires(sandbox: Settings, time: Time) -> None:
    token = mint(sandbox, "police", [SUBMIT], 60, time)
    gate = Gate(sandbox, lambda: AGREEMENTS, time)
    assert admitted(gate, token).scopes == {SUBMIT}
    time.pass_by(seconds=71)
    with pytest.raises(NotAuthenticated):
        admitted(gate, token)


def test_mint_binds_a_token_to_a_key_when_it_is_given_one(sandbox: Settings, time: Time) -> None:
    token = mint(sandbox, "police", [SUBMIT], clock=time, thumbprint=ED.thumbprint())
    gate = Gate(sandbox, lambda: AGREEMENTS, time)
    assert admitted(gate, token, "DPoP", (proof(token=token),)).party == "police"
    with pytest.raises(NotAuthenticated):
        admitted(gate, token)


def test_mint_keeps_its_key_to_the_owner_and_uses_it_again(sandbox: Settings, time: Time) -> None:
    mint(sandbox, "police", [SUBMIT])
    key = sandbox.data / "issuer.key"
    before = key.read_bytes()
    mint(sandbox, "police", [SUBMIT])
    assert key.read_bytes() == before
    assert key.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in sandbox.data.iterdir()] == ["issuer.key"]


def test_mint_uses_one_key_when_two_make_it_at_once(sandbox: Settings, time: Time) -> None:
    tokens: list[str] = []
    threads = [
        threading.Thread(target=lambda: tokens.append(mint(sandbox, "police", [SUBMIT], clock=time)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate = Gate(sandbox, lambda: AGREEMENTS, time)
    assert [admitted(gate, token).party for token in tokens] == ["police"] * 8


def test_mint_refuses_where_a_real_issuer_decides_and_scopes_that_do_not_exist(sandbox: Settings) -> None:
    for settings in (replace(sandbox, issuer=ISSUER), replace(sandbox, production=True)):
        with pytest.raises(BadSettings):
            mint(settings, "police", [SUBMIT])
    with pytest.raises(BadSettings):
        mint(sandbox, "police", ["everything:do"])


def test_gate_does_not_open_in_production_without_an_issuer(sandbox: Settings) -> None:
    with pytest.raises(BadSettings):
        Gate(replace(sandbox, production=True), lambda: AGREEMENTS, lambda: NOW)
    with pytest.raises(BadSettings):
        Gate(replace(sandbox, issuer=ISSUER), lambda: AGREEMENTS, lambda: NOW)


def test_session_opens_the_console_and_nothing_else(sandbox: Settings, time: Time) -> None:
    gate = Gate(sandbox, lambda: AGREEMENTS, time)
    session, token = mint_session(sandbox, [AUDIT], 60, time), mint(sandbox, "police", [AUDIT], 60, time)
    person = gate.person(session)
    assert person is not None
    assert (person.party, person.scopes) == ("", {AUDIT})
    assert gate.person(token) is None
    with pytest.raises(NotAuthenticated):
        admitted(gate, session)
    time.pass_by(seconds=71)
    assert gate.person(session) is None


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "ā.ā.ā", "x" * 9000])
def test_session_is_none_for_any_other_cookie(sandbox: Settings, cookie: str) -> None:
    assert Gate(sandbox, lambda: AGREEMENTS, lambda: NOW).person(cookie) is None


def test_session_is_none_where_a_real_issuer_is_set(gate: Gate, sandbox: Settings, time: Time) -> None:
    assert gate.person(mint_session(sandbox, [AUDIT], 60, time)) is None


def test_no_error_repeats_a_part_of_the_token(gate: Gate) -> None:
    token = signed(claims(party="Ngārimu", scope=7))
    with pytest.raises(HubError) as caught:
        admitted(gate, token)
    assert not any(part in str(caught.value.as_json()) for part in (*token.split("."), "Ngārimu"))
