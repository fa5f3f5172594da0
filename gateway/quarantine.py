"""How native input that was set aside is kept: whole, with the files that belong to it, so that it can be
sent again.
"""

import base64
from typing import Any

import orjson

from adapters.adapter import Native
from broker.broker import ACCEPT, DeadLetter, Outgoing
from schemas.message import CONTENT_TYPE, Message


def canonical_native(message: Message) -> Native:
    """A message in canonical form, as input that can be sent again."""
    return Native(message.encode(), CONTENT_TYPE, f"{message.id}.json")


def packed(party: str, native: Native) -> Outgoing:
    """Native bytes as the dead letter of the accept step, with the files that belong to them."""
    body = {
        "content": base64.b64encode(native.content).decode(),
        "media_type": native.media_type,
        "name": native.name,
        "companions": {
            name: base64.b64encode(content).decode() for name, content in native.companions.items()
        },
    }
    return Outgoing(ACCEPT, orjson.dumps(body), {"party": party, "media_type": native.media_type})


def unpacked(letter: DeadLetter) -> tuple[str, Native]:
    """The party and the native bytes of a dead letter of the accept step."""
    body: dict[str, Any] = orjson.loads(letter.body)
    companions = {name: base64.b64decode(content) for name, content in body["companions"].items()}
    return letter.headers["party"], Native(
        base64.b64decode(body["content"]), body["media_type"], body["name"], companions
    )
