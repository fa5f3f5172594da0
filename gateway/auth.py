"""Who is calling: OAuth 2.0 access tokens as JWTs (RFC 9068), bound to a key by DPoP (RFC 9449) where the
issuer says so, and the sandbox's own issuer.

A token names a *party* and its scopes. Unknown means no: an algorithm, header, key, claim or confirmation
method that is not understood is refused. No token, and no part of one, is ever logged or repeated in an
answer.
"""

import copy
import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import ECKey, GuestProtocol, OKPKey, RSAKey, import_key
from joserfc.jws import JWSRegistry

from consent.agreement import Agreements
from gateway.settings import Settings
from schemas.clock import Clock, utc_now
from schemas.errors import BadSettings, HubError, NotAuthenticated, NotAuthorised

log = logging.getLogger("isr_hub.auth")

SUBMIT, READ, AUDIT, OPERATE = "messages:submit", "messages:read", "privacy:audit", "operate"
DECIDE, BREAK_GLASS = "referrals:decide", "overrides:open"  # a person of the holder; a person in an emergency
SCOPES = frozenset({SUBMIT, READ, AUDIT, OPERATE, DECIDE, BREAK_GLASS})
SANDBOX_ISSUER = "urn:isr-hub:sandbox"
LEEWAY_SECONDS = 10  # FAPI 2.0 §5.3.2.1: clocks up to 10 s ahead are accepted
PROOF_SECONDS = 60  # how old a DPoP proof may be
MAX_TOKEN = 8192
_ALGORITHMS = ("ES256", "PS256", "EdDSA", "Ed25519")  # FAPI 2.0 §5.4.1, and EdDSA's later name (RFC 9864)
_TOKEN_TYPES = ("at+jwt", "application/at+jwt")
_CACHED_TOKENS = 10_000
_CACHED_SECONDS = 300  # a key that its issuer withdrew is trusted no longer than this and _KEYS_SECONDS
_KEYS_SECONDS = 600
_REFETCH_SECONDS = 60  # at most one look for an unknown key in this time, however many tokens name one
_MAX_JWKS = 262_144
_REMEMBERED_PROOFS = 100_000
_RSA_BITS = 2048

Key = ECKey | OKPKey | RSAKey
FindKey = Callable[[str | None], Key | None]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the OAuth *client*, the *party* it acts for ("" for a person at the sandbox's console), its
    *scopes*.
    """

    client: str
    party: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Raises `NotAuthorised` when *scope* was not granted."""
        if scope not in self.scopes:
            raise NotAuthorised(f"the access token does not carry the scope {scope}")


class TrustedKeys:
    """The issuer's public keys, from a JWKS file or https URL *source*; read again when they are old, and, no
    more often than once a minute, when a token names one that is not there.
    """

    def __init__(self, source: str, clock: Clock, fetch: Callable[[str], bytes] | None = None) -> None:
        self._source, self._clock = source, clock
        remote = source.startswith("https://")
        if not remote and "://" in source:
            raise BadSettings(
                "ISR_HUB_JWKS is a file or an https URL; keys over plain http could be anybody's"
            )
        self._fetch = fetch or (_fetched if remote else _file)
        self._keys: dict[str, Key] = {}
        self._read_at = self._tried_at = float("-inf")
        self._lock = threading.Lock()

    def find(self, kid: str | None) -> Key | None:
        """The key named *kid*; without a name, the only key there is. None when there is no such key."""
        now = self._clock().timestamp()
        with self._lock:
            if now - self._read_at > _KEYS_SECONDS or not self._has(kid):
                self._refresh(now)
            if kid is None:
                return next(iter(self._keys.values())) if len(self._keys) == 1 else None
            return self._keys.get(kid)

    def _has(self, kid: str | None) -> bool:
        return bool(self._keys) if kid is None else kid in self._keys

    def _refresh(self, now: float) -> None:
        if now - self._tried_at < _REFETCH_SECONDS:
            return
        self._tried_at = now
        try:
            self._keys = usable_keys(self._fetch(self._source))
        except (OSError, ValueError, httpx2.HTTPError) as error:
            # The keys we have stay: an issuer that is down for an hour must not stop what its tokens still
            # cover.
            log.warning(
                "the issuer's keys could not be read (%s); the former ones stay", type(error).__name__
            )
            return
        self._read_at = now


def usable_keys(document: bytes) -> dict[str, Key]:
    """The keys of a JWKS *document* (RFC 7517) that may sign tokens, by `kid` (the RFC 7638 thumbprint where
    it is missing): P-256, Ed25519, or RSA from 2048 bits. Raises `ValueError` when it is no JWKS.
    """
    found: dict[str, Key] = {}
    read = json.loads(document)
    if not isinstance(read, dict) or not isinstance(read.get("keys"), list):
        raise ValueError("not a JWK set")  # noqa: TRY004  # one reason, one type
    for item in read["keys"]:
        if not isinstance(item, dict) or item.get("use", "sig") != "sig":
            continue
        if (key := public_key(item)) is not None:
            found[str(item.get("kid") or key.thumbprint())] = key
    return found


def public_key(jwk: Mapping[str, Any]) -> Key | None:
    """The key that *jwk* (RFC 7517) holds, when it is public and strong enough to sign for somebody; else
    None.
    """
    kind, curve, modulus = jwk.get("kty"), jwk.get("crv"), jwk.get("n")
    strong = (
        (kind == "EC" and curve == "P-256")
        or (kind == "OKP" and curve == "Ed25519")
        or (kind == "RSA" and isinstance(modulus, str) and len(modulus) * 6 >= _RSA_BITS)
    )
    if not strong or "d" in jwk:
        return None
    try:
        key = import_key(dict(jwk))
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if isinstance(key, ECKey | OKPKey | RSAKey) else None


class Gate:
    """Lets callers in, or does not. Safe for several threads; one a process, since it remembers used DPoP
    proofs.
    """

    def __init__(
        self,
        settings: Settings,
        agreements: Callable[[], Agreements],
        clock: Clock,
        fetch: Callable[[str], bytes] | None = None,
    ) -> None:
        """Raises `BadSettings` when nobody could be let in, or anybody could (production, no issuer)."""
        self.is_sandbox = not settings.issuer
        if self.is_sandbox:
            key = _sandbox_key(settings)
            self._find_key: Callable[[str | None], Key | None] = lambda kid: (
                key if kid == key.thumbprint() else None
            )
        elif not settings.jwks:
            raise BadSettings("ISR_HUB_JWKS must name the public keys of ISR_HUB_ISSUER")
        else:
            self._find_key = TrustedKeys(settings.jwks, clock, fetch).find
        self._issuer = settings.issuer or SANDBOX_ISSUER
        self._audience, self._agreements, self._clock = settings.audience, agreements, clock
        self._verified: OrderedDict[bytes, tuple[float, dict[str, Any]]] = OrderedDict()
        self._proofs: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, authorization: Sequence[str], proofs: Sequence[str], method: str, url: str) -> Principal:
        """Who sent a request with these `Authorization` and `DPoP` header values for *method* and *url*.

        Raises `NotAuthenticated` without a valid token (and proof, where the token asks for one),
        `NotAuthorised` when the token names no active party of the agreements.
        """
        if not authorization:
            raise NotAuthenticated("an access token is needed")
        scheme, _, token = authorization[0].partition(" ")
        if (
            len(authorization) != 1
            or scheme.lower() not in ("bearer", "dpop")
            or not 0 < len(token) <= MAX_TOKEN
        ):
            raise NotAuthenticated("send one Authorization header with one access token")
        claims = self._claims(token)
        self._check_binding(claims, scheme.lower(), token, proofs, method, url)
        party = self._agreements().parties.get(claims["party"])
        if party is None or not party.active:
            raise NotAuthorised("the access token names no active party of the agreements")
        return Principal(claims["client_id"], party.id, frozenset(claims["scope"].split()) & SCOPES)

    def remembers(self, authorization: Sequence[str]) -> bool:
        """Whether `admit` knows the token in these header values already, and so needs nobody's keys."""
        token = authorization[0].partition(" ")[2] if authorization else ""
        if not 0 < len(token) <= MAX_TOKEN:
            return False
        with self._lock:
            until, _ = self._verified.get(_digest(token), (0.0, {}))
        return self._clock().timestamp() < until

    def person(self, cookie: str) -> Principal | None:
        """The person whose console session *cookie* is; None when it is no valid session of the sandbox."""
        claims = self.session(cookie)
        return Principal(claims["sub"], "", frozenset(claims["scope"].split()) & SCOPES) if claims else None

    def session(self, cookie: str) -> Mapping[str, Any]:
        """The claims of the console session *cookie*, `viewer` among them once the person has said who looks
        and why; empty when it is no valid session of the sandbox.
        """
        if not self.is_sandbox or not 0 < len(cookie) <= MAX_TOKEN:
            return {}
        try:
            return self._verify(cookie, (_SESSION_TYPE,), f"{self._audience}/console")
        except NotAuthenticated:
            return {}

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a valid access *token*. Verified once; then found by its digest for as long as it
        lives.
        """
        now = self._clock().timestamp()
        digest = _digest(token)
        with self._lock:
            until, claims = self._verified.get(digest, (0.0, {}))
            if now < until:
                return claims
        claims = self._verify(token, _TOKEN_TYPES, self._audience)
        if not isinstance(claims.get("party"), str) or not isinstance(claims.get("client_id"), str):
            raise NotAuthenticated("the access token names no party and client")
        with self._lock:
            self._verified[digest] = (min(float(claims["exp"]), now + _CACHED_SECONDS), claims)
            while len(self._verified) > _CACHED_TOKENS:
                self._verified.popitem(last=False)
        return claims

    def _verify(self, token: str, types: Sequence[str], audience: str) -> dict[str, Any]:
        def key_of(header: Mapping[str, Any]) -> Key:
            kid = header.get("kid")
            key = self._find_key(kid) if kid is None or isinstance(kid, str) else None
            if key is None:
                raise NotAuthenticated("the access token was signed by no key of the issuer")
            return key

        claims = _decoded(token, types, key_of, "the access token")
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock().timestamp()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            jti={"essential": True},
        )
        try:
            registry.validate(claims)
        except ExpiredTokenError:
            raise NotAuthenticated("the access token has expired") from None
        except (JoseError, ValueError, TypeError):
            raise NotAuthenticated("the access token is not for this hub, or not valid now") from None
        if not isinstance(claims.get("scope", ""), str):
            raise NotAuthenticated("the access token's scope is no text")
        claims.setdefault("scope", "")
        return claims

    def _check_binding(
        self, claims: Mapping[str, Any], scheme: str, token: str, proofs: Sequence[str], method: str, url: str
    ) -> None:
        confirmation = claims.get("cnf")
        if confirmation is None:
            if scheme != "bearer":
                raise NotAuthenticated("the access token is bound to no key; send it as Bearer")
            return
        thumbprint = confirmation.get("jkt") if isinstance(confirmation, dict) else None
        if not isinstance(thumbprint, str) or len(confirmation) != 1:
            raise NotAuthenticated("the access token is bound in a way that this hub cannot check; use DPoP")
        if scheme != "dpop" or len(proofs) != 1:
            raise NotAuthenticated("the access token is bound to a key; send it as DPoP with one proof")
        self._check_proof(proofs[0], thumbprint, token, method, url)

    def _check_proof(self, proof: str, thumbprint: str, token: str, method: str, url: str) -> None:
        """Checks a DPoP *proof* as RFC 9449 §4.3 lists it. Raises `NotAuthenticated`."""
        now = self._clock().timestamp()

        def key_of(header: Mapping[str, Any]) -> Key:
            jwk = header.get("jwk")
            key = public_key(jwk) if isinstance(jwk, dict) else None
            if key is None or not hmac.compare_digest(key.thumbprint(), thumbprint):
                raise NotAuthenticated("the DPoP proof is by another key than the access token's")
            return key

        if len(proof) > MAX_TOKEN:
            raise NotAuthenticated("the DPoP proof is too long")
        claims = _decoded(proof, ("dpop+jwt",), key_of, "the DPoP proof")
        issued, name = claims.get("iat"), claims.get("jti")
        timely = (
            isinstance(issued, int | float)
            and not isinstance(issued, bool)
            and -PROOF_SECONDS <= issued - now <= LEEWAY_SECONDS
        )
        if not timely or not isinstance(name, str) or not 0 < len(name) <= 256:
            raise NotAuthenticated("the DPoP proof is too old, too new, or has no jti")
        hashed = urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        if (
            claims.get("htm") != method
            or claims.get("ath") != hashed
            or _address(claims.get("htu")) != _address(url)
        ):
            raise NotAuthenticated("the DPoP proof is for another request")
        self._use_once(hashlib.sha256(f"{thumbprint}\n{name}".encode()).digest(), now)

    def _use_once(self, proof: bytes, now: float) -> None:
        with self._lock:
            while self._proofs and next(iter(self._proofs.values())) < now:
                self._proofs.popitem(last=False)
            # Forgetting one that is still valid would allow its replay, so a full memory refuses.
            if proof in self._proofs or len(self._proofs) >= _REMEMBERED_PROOFS:
                raise NotAuthenticated("the DPoP proof was used before; make a new one for every request")
            self._proofs[proof] = now + PROOF_SECONDS + LEEWAY_SECONDS


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def challenge(error: HubError, tried: bool) -> dict[str, str]:
    """The `WWW-Authenticate` header for *error* (RFC 6750 §3, RFC 9449 §7.1); *tried*: a token was sent."""
    if isinstance(error, NotAuthorised):
        return {"WWW-Authenticate": 'Bearer realm="isr-hub", error="insufficient_scope"'}
    wrong = ', error="invalid_token"' if tried else ""
    return {"WWW-Authenticate": f'Bearer realm="isr-hub"{wrong}, DPoP algs="{" ".join(_ALGORITHMS)}"{wrong}'}


def mint(
    settings: Settings,
    party: str,
    scopes: Iterable[str],
    seconds: int = 3600,
    clock: Clock = utc_now,
    thumbprint: str = "",
) -> str:
    """An access token of the sandbox issuer for *party*, valid for *seconds*; bound to the DPoP key of RFC
    7638 *thumbprint* when one is given. Makes `issuer.key` in the data folder at the first call.

    Raises `BadSettings` where a real issuer decides who comes in, and for an unknown scope.
    """
    claims: dict[str, Any] = {"client_id": f"sandbox.{party}", "sub": f"sandbox.{party}", "party": party}
    if thumbprint:
        claims["cnf"] = {"jkt": thumbprint}
    return _issue(settings, _TOKEN_TYPES[0], settings.audience, claims, scopes, seconds, clock())


def mint_session(
    settings: Settings,
    scopes: Iterable[str],
    seconds: int,
    clock: Clock,
    viewer: Mapping[str, str] | None = None,
) -> str:
    """A console session of the sandbox, as a token that the HTTP door does not take, nor the console an
    access token. *viewer* is who looks, and why; without it the console asks.
    """
    claims: dict[str, Any] = {"sub": "sandbox.console", **({"viewer": dict(viewer)} if viewer else {})}
    return _issue(settings, _SESSION_TYPE, f"{settings.audience}/console", claims, scopes, seconds, clock())


_SESSION_TYPE = "isr-session+jwt"


def _issue(
    settings: Settings,
    kind: str,
    audience: str,
    claims: Mapping[str, Any],
    scopes: Iterable[str],
    seconds: int,
    now: datetime,
) -> str:
    if settings.issuer:
        raise BadSettings("access tokens come from ISR_HUB_ISSUER; the sandbox issuer is off")
    wanted = sorted(set(scopes))
    if unknown := set(wanted) - SCOPES:
        raise BadSettings(f"{len(unknown)} of the scopes do not exist; they are {', '.join(sorted(SCOPES))}")
    key = _sandbox_key(settings)
    issued = int(now.timestamp())
    return jwt.encode(
        {"alg": "ES256", "typ": kind, "kid": key.thumbprint()},
        {
            "iss": SANDBOX_ISSUER,
            "aud": audience,
            "iat": issued,
            "exp": issued + seconds,
            "jti": secrets.token_urlsafe(16),
            "scope": " ".join(wanted),
            **claims,
        },
        key,
        algorithms=["ES256"],
    )


def _sandbox_key(settings: Settings) -> ECKey:
    """The sandbox issuer's key: `issuer.key` (PEM, mode 0600) in the data folder, made at the first call."""
    if settings.production:
        raise BadSettings(
            "in production ISR_HUB_ISSUER and ISR_HUB_JWKS must name the issuer of access tokens"
        )
    path = settings.data / "issuer.key"
    if not path.exists():
        settings.data.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f"issuer.{secrets.token_hex(8)}.new")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(ECKey.generate_key("P-256").as_pem(private=True))
            file.flush()
            os.fsync(file.fileno())
        # A link, since it does not replace: of two processes that come here at once, both use the first one's
        # key. A crash before this leaves a file with another name, which is never read.
        try:
            os.link(made, path)
        except FileExistsError:
            pass
        finally:
            made.unlink()
    return ECKey.import_key(path.read_bytes())


class _Registry(JWSRegistry):
    """Our algorithms only. `EdDSA` is the name that FAPI 2.0 uses for what RFC 9864 calls `Ed25519`; the
    library warns of it at every use, which would drown the log.
    """

    max_header_length = 2048  # a DPoP proof carries its RSA key in the header
    algorithms = {name: copy.copy(JWSRegistry.algorithms[name]) for name in _ALGORITHMS}  # noqa: RUF012
    algorithms["EdDSA"].security_warning = None


_registry = _Registry(algorithms=list(_ALGORITHMS))


def _decoded(
    text: str, types: Sequence[str], key_of: Callable[[Mapping[str, Any]], Key], what: str
) -> dict[str, Any]:
    """The claims of the signed JWT *text* of one of *types*, verified by the key that *key_of* finds for its
    header.
    """

    def find(guest: GuestProtocol) -> Key:
        header = guest.headers()
        if str(header.get("typ", "")).lower() not in types:
            raise NotAuthenticated(f"{what} is not of the type {types[0]}")
        return key_of(header)

    try:
        return dict(jwt.decode(text, find, algorithms=list(_ALGORITHMS), registry=_registry).claims)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        # Not `from error`: the library's text may repeat parts of the token.
        raise NotAuthenticated(f"{what} cannot be verified") from None


def _address(url: object) -> tuple[str, str, int | None, str] | None:
    """*url* without query and fragment, as RFC 9449 §4.3 compares it; None when it is none."""
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return None
    return parts.scheme, (parts.hostname or ""), port, parts.path or "/"


def _file(source: str) -> bytes:
    return Path(source).read_bytes()


def _fetched(source: str) -> bytes:
    with httpx2.stream("GET", source, timeout=5.0, follow_redirects=False) as response:
        response.raise_for_status()
        content = b""
        for part in response.iter_bytes():
            content += part
            if len(content) > _MAX_JWKS:
                raise ValueError("the issuer's key set is too large")
    return content
