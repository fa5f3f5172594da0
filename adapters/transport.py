"""Taking native bytes to an agency's system: a folder that the agency collects from, or an HTTPS service of
the agency.

Both answer per delivery and neither tries twice: when to try again is decided by whoever holds the queue.
Answers name a status, a rule or an operating system's error, never what the recipient wrote back, which may
repeat a person's details.
"""

import os
import re
import secrets
import ssl
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client, oauth2_client
from authlib.oauth2.rfc7523 import PrivateKeyJWT, private_key_jwt_sign
from joserfc.jwk import ECKey, OKPKey

from adapters.adapter import Native
from schemas.errors import BadSettings, HubError, NotSent, Problem, RefusedByRecipient

_PARTY = re.compile(r"[a-z][a-z0-9.-]{1,59}(#[a-z]{2,12})?")
_DELIVERY = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"
)  # no dot, so that `<id>.part` and `<id>.csv` cannot be another's id
_EXTENSIONS = {
    "application/json": "json",
    "application/cloudevents+json": "json",
    "application/fhir+json": "json",
    "application/hl7-v2+er7": "hl7",
    "x-application/hl7-v2+er7": "hl7",
    "text/csv": "csv",
}
# RFC 9110 says what a client may cure by waiting: a stale token, a timeout, a request with the same key in
# progress, too many requests.
_TEMPORARY = frozenset({401, 408, 409, 421, 423, 425, 429})
# Authlib speaks through httpx2 where that is installed, else through httpx: two libraries with errors of the
# same names, of which only its own reach us.
_HTTP_ERROR: type[Exception] = oauth2_client.httpx2.HTTPError


class FileDrop:
    """Puts deliveries as files under *root*, one folder a party:

        <root>/<party>/received/<delivery id>.<ext>   what the agency collects (companions as <delivery
        id>.<their name>) <root>/<party>/sent/<delivery id>             an empty mark: this delivery was
        there once <root>/<party>/parts/                         files being written; nobody collects them

    The mark keeps a delivery from coming back after the agency has collected and deleted its file. Nothing
    is ever seen half-written: a file gets its name in `received` by rename, after its content is on the
    disk.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable: set[str] = set()  # parties whose folders this process has synced

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        """Answers each delivery with None once its file and name survive a power cut, else `NotSent`. Safe
        to repeat and to run twice at once.

        Raises `ValueError` for a *party* or delivery id that is no name of the hub: it would become a path.
        """
        if not _PARTY.fullmatch(party) or not all(_DELIVERY.fullmatch(d) for d, _ in deliveries):
            raise ValueError("a party or delivery id does not have the form of one")
        if not deliveries:
            return []
        home = self._root / party
        received, sent, parts = home / "received", home / "sent", home / "parts"
        try:
            if party not in self._durable:
                for folder in (received, sent, parts):
                    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
                # A crash before this leaves folders that may vanish, with nothing in them that anybody was
                # told of. Whoever starts next cannot see whether they were synced, and syncs them again.
                for folder in (self._root, home):
                    _sync_folder(folder)
                self._durable.add(party)
            # Left by a crash, mostly none. A second sender at work on the same delivery now fails, and is
            # told to try again.
            ours = {delivery for delivery, _ in deliveries}
            for stale in os.listdir(parts):
                if stale.partition(".")[0] in ours:
                    (parts / stale).unlink(missing_ok=True)
        except OSError as error:
            return [_not_sent(error) for _ in deliveries]
        answers = [self._put(received, sent, parts, delivery, native) for delivery, native in deliveries]
        try:
            # The files' names become durable here, once for the batch. A crash before this may lose some or
            # all of them; nobody was told that they arrived, and the next send puts back what is missing.
            _sync_folder(received)
            # Only now the marks: on a disk that had kept a mark and lost its file, the next send would
            # believe in a file that never was. A crash between leaves files without marks. The next send
            # finds the files; only one that the agency has collected meanwhile appears again, under the same
            # name, which is the agency's key for dropping repetitions.
            for (delivery, _), answer in zip(deliveries, answers, strict=True):
                if answer is None:
                    os.close(os.open(sent / delivery, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o640))
            # A crash before this may lose marks, which is as if they had not been made.
            _sync_folder(sent)
        except OSError as error:
            return [answer or _not_sent(error) for answer in answers]
        return answers

    def _put(self, received: Path, sent: Path, parts: Path, delivery: str, native: Native) -> HubError | None:
        try:
            name = f"{delivery}.{_EXTENSIONS.get(native.media_type.partition(';')[0].strip().lower(), 'bin')}"
            if (sent / delivery).exists() or (received / name).exists():
                return None
            # Companions first: whoever sees the file finds its manifest beside it.
            for own, content in sorted(native.companions.items()):
                part = parts / f"{delivery}.{secrets.token_hex(4)}"
                _publish(part, received / f"{delivery}.{Path(own).name}", content)
            _publish(parts / f"{delivery}.{secrets.token_hex(4)}", received / name, native.content)
        except OSError as error:
            return _not_sent(error)
        return None


def _publish(part: Path, target: Path, content: bytes) -> None:
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o640)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        # A crash before this leaves a part that nobody collects; the next send of the same delivery removes
        # it.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    # A crash before this leaves a whole part under a name that nobody collects; removed likewise.
    os.replace(part, target)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_sent(error: OSError) -> NotSent:
    # strerror, never str(error): the latter holds the path.
    return NotSent(
        "the folder could not be written",
        Problem("folder", os.strerror(error.errno or 0), "see to the disk or its permissions"),
    )


@dataclass(frozen=True, slots=True)
class HttpRecipient:
    """An agency's HTTPS service and how the hub shows it who it is (RFC 7523 private_key_jwt, RFC 6749
    client credentials).

    *audience* is what the assertion is made out to: the issuer of the authorisation server (FAPI 2.0);
    empty for *token_endpoint*.
    """

    url: str
    token_endpoint: str
    client_id: str
    private_key: ECKey | OKPKey
    key_id: str
    algorithm: str = "ES256"
    audience: str = ""
    scope: str | None = None


class _Assertion(PrivateKeyJWT):  # type: ignore[misc]  # Authlib ships no types
    """A fresh assertion per token request: lives a minute (Authlib's default is an hour), new `jti` each
    time, names its key."""

    def __init__(self, recipient: HttpRecipient) -> None:
        super().__init__(recipient.token_endpoint, alg=recipient.algorithm)
        self._recipient = recipient

    def sign(self, auth: Any, token_endpoint: str) -> str:
        return str(
            private_key_jwt_sign(
                auth.client_secret,
                client_id=auth.client_id,
                token_endpoint=self._recipient.audience or token_endpoint,
                alg=self.alg,
                header={"kid": self._recipient.key_id},
                expires_in=60,
            )
        )


class HttpTransport:
    """Posts deliveries to the services of *recipients*, by party, one by one over a kept connection.

    `Idempotency-Key` is the delivery id, the same at every attempt: the recipient's service drops
    repetitions by it. Companions stay behind; what a manifest proves of a file, HTTP's own framing and TLS
    prove of a request.
    """

    def __init__(
        self,
        recipients: Mapping[str, HttpRecipient],
        timeout_seconds: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Raises `BadSettings` when an address is neither HTTPS nor on this machine."""
        self._lines = {
            party: _Line(recipient, timeout_seconds, tls) for party, recipient in recipients.items()
        }

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        """Answers each delivery: None for 2xx; `RefusedByRecipient` for a 4xx that waiting does not cure;
        `NotSent` for everything else, a timeout after the request was written included: the recipient may
        have it, and knows it again by its key."""
        line = self._lines.get(party)
        if line is None:
            problem = Problem(
                "party",
                "has no HTTP service in the settings",
                "add its address, or take its queue away from this transport",
            )
            return [NotSent("the recipient has no address", problem) for _ in deliveries]
        return line.send(deliveries)

    def close(self) -> None:
        """Closes the kept connections."""
        for line in self._lines.values():
            line.close()


class _Line:
    """One recipient's connection and access token. One batch at a time: Authlib's client is not safe for
    several threads."""

    def __init__(self, recipient: HttpRecipient, timeout_seconds: float, tls: ssl.SSLContext | None) -> None:
        for name, url in (("url", recipient.url), ("token_endpoint", recipient.token_endpoint)):
            if not _confidential(url):
                raise BadSettings(
                    "a recipient's address is not confidential",
                    Problem(name, "is neither HTTPS nor loopback", "use https://"),
                )
        self._recipient = recipient
        self._lock = threading.Lock()
        self._client = OAuth2Client(
            client_id=recipient.client_id,
            client_secret=recipient.private_key,
            token_endpoint_auth_method="private_key_jwt",  # noqa: S106  # the name of a method
            token_endpoint=recipient.token_endpoint,
            grant_type="client_credentials",
            leeway=0,  # _authorise looks ahead itself, and looks at what it got
            scope=recipient.scope,
            timeout=timeout_seconds,
            # Where deliveries go is set in one place: neither a redirect nor a proxy variable of the
            # environment takes them elsewhere.
            follow_redirects=False,
            trust_env=False,
            verify=tls if tls is not None else True,
        )
        self._client.register_client_auth_method(_Assertion(recipient))

    def send(self, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        with self._lock:
            answers: list[HubError | None] = []
            for delivery, native in deliveries:
                answers.append(self._post(delivery, native))
            return answers

    def _post(self, delivery: str, native: Native) -> HubError | None:
        headers = {"Content-Type": native.media_type, "Idempotency-Key": delivery}
        try:
            self._authorise()
            with self._client.stream(
                "POST", self._recipient.url, content=native.content, headers=headers
            ) as response:
                status = int(response.status_code)
                _drain(response.iter_raw())
        except (OAuthError, KeyError, TypeError, ValueError, AttributeError):
            # The token endpoint refused us or sent something that is no token (Authlib reads it unchecked).
            # Credentials can be mended: wait.
            self._client.token = None
            return NotSent(
                "no access token",
                Problem(
                    "token endpoint",
                    "did not give an access token",
                    "check the client's registration and key",
                ),
            )
        except _HTTP_ERROR as error:
            return NotSent(
                "the recipient did not answer",
                Problem("connection", type(error).__name__, "it will be tried again"),
            )
        if 200 <= status < 300:
            return None
        if status == 401:
            self._client.token = None  # revoked before its time; the next attempt asks for another
        problem = Problem("status", f"the recipient answered {status}", "see the recipient's service")
        if 400 <= status < 500 and status not in _TEMPORARY:
            return RefusedByRecipient("the recipient refused the delivery", problem)
        return NotSent("the recipient could not take the delivery now", problem)

    def _authorise(self) -> None:
        """Leaves the client with a token that is good for a minute. Raises what Authlib raises, or
        `ValueError`."""
        token = self._client.token
        if token is None or token.is_expired(leeway=60):
            self._client.token = None
            got = self._client.fetch_token(self._recipient.token_endpoint, grant_type="client_credentials")
            # Authlib takes what comes: without this, "Bearer None" would go out with somebody's details
            # behind it.
            if not isinstance(got.get("access_token"), str) or str(got.get("token_type")).lower() != "bearer":
                raise ValueError("no bearer token")

    def close(self) -> None:
        self._client.close()


def _drain(chunks: Iterable[bytes]) -> None:
    """Reads a short answer to its end, so that the connection can be kept; leaves a long one. The status
    has said all there is to know."""
    size = 0
    for count, chunk in enumerate(chunks):
        size += len(chunk)
        if size > 65_536 or count > 64:
            return


def _confidential(url: str) -> bool:
    try:
        parsed = urlsplit(url)
        host = parsed.hostname or ""
        if parsed.scheme == "https":
            return bool(host)
        return parsed.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False
