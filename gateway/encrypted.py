"""What passes through the queues that agencies share with the hub, encrypted between the two: an agency
encrypts what it publishes to the hub's key, the hub what it puts into a mailbox to the party's.

Both are JWEs in compact form (RFC 7516) with ECDH-ES or ECDH-ES+A256KW and A256GCM (RFC 7518), content type
`application/jose`; `cty` names the media type of what is inside. A JWE says nothing about who made it: for
that RabbitMQ's users vouch, or the access token.
"""

import base64
import binascii
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

from gateway.intake import JOSE, MAX_BODY, MAX_ENCRYPTED, media_type_of
from schemas.errors import BadSettings, HubError, Problem, TooLarge, Unreadable

ALGORITHMS, CONTENT = ("ECDH-ES", "ECDH-ES+A256KW"), "A256GCM"
CURVES = ("P-256", "P-384", "X25519")  # of parties' keys; the hub's own is P-256
_HUB_CURVE = "P-256"
_KEPT = 2  # the hub's keys: the one that is given out, and the one before it
_MAX_HEADER = 2048  # characters; with a key in it, one has about 400
_HEADER = frozenset({"alg", "enc", "kid", "epk", "apu", "apv", "cty", "typ"})
_AGAIN = "encrypt it again, as docs/agency-developer.md shows"


class _Sizes(jwe.JWERegistry):
    max_protected_header_length = _MAX_HEADER
    max_ciphertext_length = MAX_ENCRYPTED


_REGISTRY = _Sizes(algorithms=(*ALGORITHMS, CONTENT))


class EncryptionKeys:
    """The hub's own keys in the file *path* (a private JWK set, newest first). Safe for several threads.

    The file is read again for a key that is not known yet: renewing needs no restart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = self._read()

    @staticmethod
    def made(former: Sequence[ECKey] = ()) -> bytes:
        """The content of a file with a new key, before it the newest of *former* as the one that still
        opens.
        """
        kept = [ECKey.generate_key(_HUB_CURVE), *former][:_KEPT]
        return orjson.dumps({"keys": [key.as_dict(private=True) for key in kept]})

    def public(self) -> dict[str, Any]:
        """The key to encrypt to, as a JWK set (RFC 7517); its `kid` is its thumbprint (RFC 7638)."""
        self._keys = self._read()
        newest = next(iter(self._keys))
        return {"keys": [{**self._keys[newest].as_dict(private=False), "kid": newest, "use": "enc"}]}

    def renew(self) -> None:
        """Puts a new key in front; the one before it goes on opening, any older one is gone for good."""
        self._keys = self._read()
        with tempfile.NamedTemporaryFile(dir=self._path.parent, delete=False) as file:  # mode 0600
            file.write(self.made(list(self._keys.values())))
            file.flush()
            os.fsync(file.fileno())
        # ‖ Whole or not at all; a crash before this leaves a temporary file that nobody reads.
        Path(file.name).replace(self._path)
        self._keys = self._read()

    def opened(self, content_type: str, body: bytes) -> tuple[str, bytes]:
        """The media type and the content in *body* when *content_type* says that it is a JWE, else both as
        they are.

        Raises `Unreadable` for what does not open, was compressed or names no media type, and `TooLarge`.
        Nothing is ever unpacked to more than came.
        """
        if media_type_of(content_type) != JOSE:
            return content_type, body
        if len(body) > MAX_ENCRYPTED:
            raise TooLarge("the input is too large", _too_long(MAX_ENCRYPTED))
        header = _header_of(body)
        content = self._decrypted(header, body)
        if len(content) > MAX_BODY:
            raise TooLarge("the input is too large", _too_long(MAX_BODY))
        inside = header["cty"] if "/" in header["cty"] else f"application/{header['cty']}"
        if media_type_of(inside) == JOSE:
            raise _unreadable("cty", "is a JWE again", "encrypt once")
        return inside, content

    def _decrypted(self, header: Mapping[str, Any], body: bytes) -> bytes:
        for key in self._candidates(header.get("kid")):
            try:
                return jwe.decrypt_compact(body, key, registry=_REGISTRY).plaintext or b""
            # Whatever a library raises at a stranger's bytes: they do not open, and nobody is held up by it.
            except Exception:  # noqa: S112  # its text may repeat the input
                continue
        raise _unreadable("", "does not open: it was cut, changed, or made for another key", _AGAIN)

    def _candidates(self, kid: object) -> list[ECKey]:
        if kid is None:
            return list(self._keys.values())
        if isinstance(kid, str):
            if kid not in self._keys:
                self._keys = self._read()
            if kid in self._keys:
                return [self._keys[kid]]
        fix = "fetch GET /v1/encryption-key anew, and encrypt again"
        raise _unreadable("kid", "names no key of the hub", fix)

    def _read(self) -> dict[str, ECKey]:
        try:
            keys = [ECKey.import_key(key) for key in orjson.loads(self._path.read_bytes())["keys"]]
            if keys and all(key.is_private and key.curve_name == _HUB_CURVE for key in keys):
                return {key.thumbprint(): key for key in keys}
        except (OSError, ValueError, KeyError, TypeError, JoseError):
            pass
        raise BadSettings(
            "the hub's encryption keys cannot be used",
            Problem(self._path.name, f"is no set of private {_HUB_CURVE} keys", "restore it from its backup"),
        )


def closed(key: ECKey | OKPKey, media_type: str, content: bytes) -> bytes:
    """*content* as a JWE that only the holder of the private half of *key* opens."""
    header = {"alg": ALGORITHMS[0], "enc": CONTENT, "kid": key.kid or key.thumbprint(), "cty": media_type}
    return jwe.encrypt_compact(header, content, key, registry=_REGISTRY).encode("ascii")


def party_key(content: bytes) -> tuple[ECKey | OKPKey | None, Problem]:
    """The public key in *content*, a party's JWK; when there is none that can be used, None and the problem
    that says why (without a pointer).
    """
    fix = f"use a public JWK on {', '.join(CURVES[:-1])} or {CURVES[-1]}, with use enc or none"
    wrong = Problem("", "holds no public key for encryption", fix)
    try:
        said = orjson.loads(content)
        if said["crv"] not in CURVES or said.get("use", "enc") != "enc":
            return None, wrong
        if said.get("alg", ALGORITHMS[0]) not in ALGORITHMS:
            return None, wrong
        used = {name: said[name] for name in ("kty", "crv", "x", "y", "d", "kid") if name in said}
        key = (ECKey if said["kty"] == "EC" else OKPKey).import_key(used)
        closed(key, "text/plain", b"")
    except (ValueError, KeyError, TypeError, AttributeError, JoseError):
        return None, wrong
    if key.is_private:
        fix = "have the party make a new pair, and take its public half alone"
        return None, Problem("", "holds a private key, which only the party may have", fix)
    return key, wrong


def _header_of(body: bytes) -> dict[str, Any]:
    """The header of the JWE *body*, after everything in it was found to be as the hub takes it."""
    parts = body.split(b".", 5)
    if len(parts) != 5 or len(parts[0]) > _MAX_HEADER:
        raise _unreadable("", "is no JWE in compact form", _AGAIN)
    try:
        header = orjson.loads(base64.b64decode(parts[0] + b"=" * (-len(parts[0]) % 4), b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise _unreadable("", "has no header that can be read", _AGAIN) from None
    if not isinstance(header, dict):
        raise _unreadable("", "has no header that can be read", _AGAIN)
    if "zip" in header:
        raise _unreadable("zip", "is compressed", "encrypt it as it is")
    if header.get("alg") not in ALGORITHMS:
        raise _unreadable("alg", "is no algorithm that the hub takes", f"use {' or '.join(ALGORITHMS)}")
    if header.get("enc") != CONTENT:
        raise _unreadable("enc", "is no algorithm that the hub takes", f"use {CONTENT}")
    if not header.keys() <= _HEADER:
        fix = f"use {', '.join(sorted(_HEADER))} and no other"
        raise _unreadable("", "has a header parameter that the hub does not take", fix)
    epk = header.get("epk")
    if not isinstance(epk, dict) or epk.get("crv") != _HUB_CURVE:
        raise _unreadable("epk", f"is no public key on {_HUB_CURVE}", _AGAIN)
    if not isinstance(header.get("cty"), str) or not header["cty"]:
        raise _unreadable("cty", "names no media type", "put your system's own media type there")
    return header


def _unreadable(pointer: str, detail: str, fix: str) -> HubError:
    return Unreadable("the encrypted input cannot be opened", Problem(pointer, detail, fix))


def _too_long(limit: int) -> Problem:
    return Problem("", f"has more than {limit} bytes", "send parts")


__all__ = ["ALGORITHMS", "CONTENT", "CURVES", "EncryptionKeys", "closed", "party_key"]
