"""Which way each party's deliveries go: a folder, an HTTPS service of the party, or its mailbox in RabbitMQ.

One YAML file says it for every party (`ISR_HUB_RECIPIENTS`, docs/recipients.md). It is read whole or not at
all: a party whose line cannot be understood must not get its deliveries by another way than it asked for.
Whichever the way, a delivery was decided, minimised and logged before it comes here, and its outcome is an
entry afterwards.
"""

import contextlib
import ssl
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

from adapters.adapter import Native, Transport
from adapters.transport import HttpRecipient, HttpTransport
from broker.broker import Broker, Outgoing
from broker.topology import mailbox_of
from consent.strict_yaml import Place, line_of, read
from gateway.encrypted import closed, party_key
from gateway.intake import JOSE
from schemas.errors import BadAgreement, BadSettings, HubError, NotSent, Problem, Unconfirmed

FOLDER, HTTPS, MAILBOX = "folder", "https", "mailbox"
_REQUIRED = (HTTPS, "token_endpoint", "client_id", "key")
_OPTIONAL = ("key_id", "audience", "scope", "authority", "timeout_seconds")
# Each curve has one algorithm: RFC 7518 3.4, RFC 9864.
_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "Ed25519"}
_TIMEOUT_SECONDS = 10
_ENCRYPT_TO = "encrypt_to"


@dataclass(frozen=True, slots=True)
class Service:
    """A party's HTTPS service, as the file describes it."""

    recipient: HttpRecipient
    timeout_seconds: float
    tls: ssl.SSLContext | None  # None: the system's authorities are trusted


@dataclass(frozen=True, slots=True)
class Recipients:
    """The *way* of each party by its name, with the *services* of those that have one, and the keys that
    mailboxes are encrypted to (*encrypt_to*).
    """

    way: Mapping[str, str]
    services: Mapping[str, Service] = field(default_factory=dict)
    encrypt_to: Mapping[str, ECKey | OKPKey] = field(default_factory=dict)

    def mailboxes(self) -> list[str]:
        """The parties that collect from RabbitMQ themselves."""
        return sorted(party for party, way in self.way.items() if way == MAILBOX)


def read_recipients(
    path: Path | None, parties: Iterable[str], *, has_mailboxes: bool, production: bool = False
) -> Recipients:
    """What the file *path* says of *parties*; without a file, everybody has a folder.

    Raises `BadSettings` with one `Problem` for each finding (`file:line`, what, fix): a word that is not
    known, a party that no agreement knows or that the file forgets, a key that cannot be read or that others
    can, a mailbox where there is no RabbitMQ (*has_mailboxes*), and in *production* one that is not
    encrypted.
    """
    known = sorted(set(parties))
    if path is None:
        return Recipients(dict.fromkeys(known, FOLDER))
    try:
        value, lines = read(path.read_text(encoding="utf-8"), path.name)
    except BadAgreement as error:
        raise BadSettings(error.detail, *error.problems) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(
            "the recipients cannot be read",
            Problem("ISR_HUB_RECIPIENTS", type(error).__name__, "name a file of UTF-8 text that exists"),
        ) from None
    file = _File(path, lines, [], has_mailboxes, production)
    read_ways = _ways(file, value, known)
    if file.problems:
        raise BadSettings("the recipients cannot be used", *file.problems)
    return read_ways


class _File(NamedTuple):
    path: Path
    lines: dict[Place, int]
    problems: list[Problem]
    has_mailboxes: bool
    production: bool

    def find(self, place: Place, detail: str, fix: str) -> None:
        self.problems.append(Problem(f"{self.path.name}:{line_of(self.lines, place)}", detail, fix))


def _ways(file: _File, value: Any, known: Sequence[str]) -> Recipients:
    if not isinstance(value, dict) or not isinstance(value.get("recipients", {}), dict):
        file.find((), "is not a list of recipients by party", "begin with `recipients:` and a line a party")
        return Recipients({})
    for name in sorted(value.keys() - {"recipients", "others"}):
        file.find((name,), f"{name} is not a known key", "use recipients and others")
    way: dict[str, str] = {}
    services: dict[str, Service] = {}
    encrypt_to: dict[str, ECKey | OKPKey] = {}
    for party, said in value.get("recipients", {}).items():
        place: Place = ("recipients", party)
        if party not in known:
            file.find(place, "names a party of no agreement", "correct the name: isr-hub agreements matrix")
        elif said == MAILBOX or (isinstance(said, dict) and MAILBOX in said):
            way[party] = MAILBOX
            if (key := _mailbox(file, place, said)) is not None:
                encrypt_to[party] = key
        elif isinstance(said, dict):
            way[party] = HTTPS
            if (service := _service(file, place, said)) is not None:
                services[party] = service
        elif said == FOLDER:
            way[party] = FOLDER
        else:
            file.find(place, "is no way to a recipient", f"write {FOLDER}, {MAILBOX}: or {HTTPS}: with keys")
    return Recipients(way | _others(file, value, known), services, encrypt_to)


def _others(file: _File, value: Mapping[str, Any], known: Sequence[str]) -> dict[str, str]:
    forgotten = [party for party in known if party not in value.get("recipients", {})]
    if "others" in value and value["others"] != FOLDER:
        file.find(("others",), "can only have a folder", "write others: folder, or name each party")
    elif forgotten and "others" not in value:
        file.find((), f"forgets {', '.join(forgotten)}", "name them, or write others: folder")
    return dict.fromkeys(forgotten, FOLDER)


def _mailbox(file: _File, place: Place, said: Any) -> ECKey | OKPKey | None:
    """The key that a mailbox is encrypted to; None when it is not, or when it cannot be used."""
    if not file.has_mailboxes:
        file.find(place, "has a mailbox, and there is no RabbitMQ", "set ISR_HUB_BROKER_URL, or folder")
    if said == MAILBOX:
        if file.production:
            fix = f"write under it {MAILBOX}: and {_ENCRYPT_TO}: with the party's key"
            file.find(place, "has a mailbox that RabbitMQ's operators can read", fix)
        return None
    for name in sorted(said.keys() - {MAILBOX}):
        file.find((*place, name), f"{name} does not go with a mailbox", f"write {MAILBOX}: alone")
    place, box = (*place, MAILBOX), said[MAILBOX]
    if not isinstance(box, dict) or not isinstance(box.get(_ENCRYPT_TO), str) or not box[_ENCRYPT_TO]:
        file.find(place, f"lacks {_ENCRYPT_TO}", "name the file of the party's public key (JWK)")
        return None
    for name in sorted(box.keys() - {_ENCRYPT_TO}):
        file.find((*place, name), f"{name} is not a known key", f"use {_ENCRYPT_TO}")
    try:
        key, wrong = party_key((file.path.parent / box[_ENCRYPT_TO]).read_bytes())
    except OSError:
        key, wrong = (
            None,
            Problem("", "cannot be read", "name a JWK file, beside this file, that the hub may read"),
        )
    if key is None:
        file.find((*place, _ENCRYPT_TO), wrong.detail, wrong.fix)
    return key


def _service(file: _File, place: Place, said: Mapping[str, Any]) -> Service | None:
    before = len(file.problems)
    for name in said:
        if name not in (*_REQUIRED, *_OPTIONAL):
            fix = f"use {', '.join((*_REQUIRED, *_OPTIONAL))}"
            file.find((*place, name), f"{name} is not a known key", fix)
        elif type(said[name]) is not (int if name == "timeout_seconds" else str) or not said[name]:
            file.find((*place, name), f"{name} has no usable value", "write text, or seconds as a number")
    if missing := [name for name in _REQUIRED if name not in said]:
        file.find(place, f"lacks {', '.join(missing)}", "add it")
    if len(file.problems) > before:
        return None
    key = _key(file, (*place, "key"), file.path.parent / said["key"])
    tls = None
    if "authority" in said:
        try:
            tls = ssl.create_default_context(cafile=file.path.parent / said["authority"])
        except (OSError, ssl.SSLError):
            file.find(
                (*place, "authority"), "holds no certificates", "name a PEM file, from this file's folder"
            )
    if key is None:
        return None
    recipient = HttpRecipient(
        url=said[HTTPS],
        token_endpoint=said["token_endpoint"],
        client_id=said["client_id"],
        private_key=key,
        key_id=said.get("key_id", key.thumbprint()),
        algorithm=_ALGORITHMS[key.curve_name],
        audience=said.get("audience", ""),
        scope=said.get("scope"),
    )
    try:
        HttpTransport({"": recipient}).close()
    except BadSettings as error:
        for problem in error.problems:
            name = HTTPS if problem.pointer == "url" else problem.pointer
            file.find((*place, name), problem.detail, problem.fix)
    return Service(recipient, float(said.get("timeout_seconds", _TIMEOUT_SECONDS)), tls)


def _key(file: _File, place: Place, path: Path) -> ECKey | OKPKey | None:
    try:
        key, mode = _read_key(path.read_bytes()), stat.S_IMODE(path.stat().st_mode)
    except OSError:
        file.find(place, "cannot be read", "name a PEM file, from this file's folder, that the hub may read")
        return None
    if key is None or not key.is_private or key.curve_name not in _ALGORITHMS:
        file.find(place, "holds no private key for signing", f"use one of {', '.join(_ALGORITHMS)}, as PEM")
    elif mode & (stat.S_IRWXO | stat.S_IWGRP):
        file.find(place, "is open to others", "chmod 0640 it, or stricter")
    else:
        return key
    return None


def _read_key(pem: bytes) -> ECKey | OKPKey | None:
    kinds: tuple[type[ECKey | OKPKey], ...] = (ECKey, OKPKey)
    for kind in kinds:
        with contextlib.suppress(ValueError, TypeError, JoseError, UnsupportedAlgorithm):
            return kind.import_key(pem)
    return None


class Ways:
    """Sends each party's deliveries its own way."""

    def __init__(self, recipients: Recipients, folders: Transport, broker: Broker) -> None:
        mailbox = Mailbox(broker, recipients.encrypt_to)
        self._services = {
            party: HttpTransport({party: service.recipient}, service.timeout_seconds, service.tls)
            for party, service in recipients.services.items()
        }
        self._by_party: dict[str, Transport] = {
            **{party: folders for party, way in recipients.way.items() if way == FOLDER},
            **dict.fromkeys(recipients.mailboxes(), mailbox),
            **self._services,
        }

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        """As the transport of *party* answers; `NotSent` for a party that came after the file was read."""
        if (transport := self._by_party.get(party)) is not None:
            return transport.send(party, deliveries)
        problem = Problem("party", "has no way in the recipients' file", "name it there, and start again")
        return [NotSent("the recipient has no way", problem) for _ in deliveries]

    def close(self) -> None:
        """Closes the connections to the parties' services."""
        for transport in self._services.values():
            transport.close()


class Mailbox:
    """Puts deliveries into `mailbox.<party>` on *broker*, where the party's own user collects them.

    The message id is the delivery id. The body is the native bytes in a JWE for the key that *encrypt_to* has
    for the party, or, where it has none, the native bytes themselves under their own content type. A batch
    that was not confirmed whole is put again under the same ids, so a party drops what it has by message id,
    as it does with files and over HTTPS. Companions stay behind, as over HTTPS.
    """

    def __init__(self, broker: Broker, encrypt_to: Mapping[str, ECKey | OKPKey]) -> None:
        self._broker, self._encrypt_to = broker, encrypt_to

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        """None for each once RabbitMQ has confirmed all, else `NotSent` for each."""
        try:
            self._broker.publish(list(self._letters(party, deliveries)))
        except Unconfirmed:
            problem = Problem("mailbox", "RabbitMQ did not confirm", "it will be tried again")
            return [NotSent("the mailbox could not be filled", problem) for _ in deliveries]
        # ‖ The mailbox has them. A crash here puts them there again, under the same message ids.
        return [None] * len(deliveries)

    def _letters(self, party: str, deliveries: Iterable[tuple[str, Native]]) -> Iterator[Outgoing]:
        key = self._encrypt_to.get(party)
        for delivery, native in deliveries:
            media_type, body = native.media_type, native.content
            if key is not None:
                media_type, body = JOSE, closed(key, media_type, body)
            yield Outgoing(mailbox_of(party), body, {"id": delivery, "media-type": media_type})
