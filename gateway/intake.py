"""What a request body is: one message, a batch, an agency's own file, or such a file with those that belong
to it.

Bodies stay in memory and are bounded before they are read: nothing that an agency sends is written to a
temporary file.
"""

import re
from collections.abc import Iterator
from email.message import Message as Header
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser
from starlette.requests import ClientDisconnect, Request

from adapters.adapter import Native
from schemas.errors import InvalidMessage, Problem, TooLarge, Unreadable, UnsupportedMediaType
from schemas.message import CONTENT_TYPE, MAX_BYTES

BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
FORM_CONTENT_TYPE = "multipart/form-data"
JOSE = "application/jose"  # a JWE; what is inside is one of the others (gateway/encrypted.py)
MAX_BODY = 8 * 1_048_576  # a day's muster of every prison is about 4 MB
MAX_ENCRYPTED = MAX_BODY * 4 // 3 + 4096  # base64, and a JWE's other parts
MAX_BATCH = 1000
MAX_PARTS = 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
# A string is skipped whole, so that brackets and commas in it do not count. Possessive: an unterminated one
# fails at once instead of after every shorter try.
_JSON_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)


async def content_of(request: Request) -> bytes:
    """The body of *request*. Raises `TooLarge` as soon as it is known to be longer than its kind may be,
    without reading the rest, and `UnsupportedMediaType` for an encoded one (it could unfold to any size).
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType(
            "the body is encoded", Problem("", "has a Content-Encoding", "send the body as it is")
        )
    kind = media_type_of(request.headers.get("content-type", ""))
    limit = {CONTENT_TYPE: MAX_BYTES, JOSE: MAX_ENCRYPTED}.get(kind, MAX_BODY)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    length = 0
    try:
        async for part in request.stream():
            length += len(part)
            if length > limit:
                raise _too_large(limit)
            parts.append(part)
    except ClientDisconnect:
        raise Unreadable("the sender went away before the end of the body") from None
    return b"".join(parts)


def natives_of(content_type: str, body: bytes) -> list[Native]:
    """The native inputs in a *body* of *content_type*: one, or one for each message of a batch.

    Raises `UnsupportedMediaType` without a usable type, `Unreadable` or `InvalidMessage` when the parts
    cannot be told apart. What a part says is not looked at.
    """
    kind = media_type_of(content_type)
    if not kind:
        raise UnsupportedMediaType(
            "the body's format is not named",
            Problem("", "has no usable Content-Type", f"send {CONTENT_TYPE} or your system's own media type"),
        )
    if not body:
        raise Unreadable("the body is empty", Problem("", "is empty", "send a message"))
    if kind == BATCH_CONTENT_TYPE:
        return [Native(item, CONTENT_TYPE) for item in batch_items(body)]
    if kind == FORM_CONTENT_TYPE:
        return [_from_form(body, _boundary(content_type))]
    return [Native(body, kind)]


def batch_items(body: bytes) -> list[bytes]:
    """The items of the JSON array in *body*, each as the bytes it came as, so that each is read, judged and
    perhaps set aside alone (CloudEvents JSON format §4, batch). Raises `InvalidMessage` when it is no array
    of 1 to 1,000.
    """
    body = body.strip(b" \t\r\n")
    if not (body.startswith(b"[") and body.endswith(b"]")):
        raise _no_batch("is not a JSON array")
    items = [body[a:b].strip(b" \t\r\n") for a, b in _spans(body)]
    if len(items) > MAX_BATCH:
        raise TooLarge(
            "the batch is too large",
            Problem("", f"has more than {MAX_BATCH} messages", "send several batches"),
        )
    if not all(items):
        raise _no_batch("has an empty place" if len(items) > 1 else "is empty")
    return items


def _spans(body: bytes) -> Iterator[tuple[int, int]]:
    """Where the items of the array that *body* is begin and end."""
    depth, start = 0, 1
    for mark in _JSON_MARK.finditer(body):
        text = mark[0]
        if text in (b"[", b"{"):
            depth += 1
        elif text in (b"]", b"}"):
            depth -= 1
            if depth == 0:
                yield start, mark.start()
                if mark.end() != len(body):
                    raise _no_batch("goes on after its end")
                return
        elif text == b"," and depth == 1:
            yield start, mark.start()
            start = mark.end()
        elif text == b'"':
            raise _no_batch("has a text that does not end")
    raise _no_batch("does not end")


def _no_batch(detail: str) -> InvalidMessage:
    return InvalidMessage(
        "the body is no batch", Problem("", detail, "send a JSON array of CloudEvents objects")
    )


def _from_form(body: bytes, boundary: str) -> Native:
    """The native input in a form (RFC 7578): the part `message`, with its `companion` parts by file name."""
    message: Native | None = None
    companions: dict[str, bytes] = {}
    for header, content in _form_parts(body, boundary):
        field, name = header.get_param("name", "", "content-disposition"), header.get_filename("")
        if name and not _NAME.fullmatch(name):
            raise _no_form("has a file name with other signs than letters, digits, dot, dash and underscore")
        if field == "message" and message is None:
            kind = media_type_of(header.get("content-type", ""))
            if not kind:
                raise UnsupportedMediaType(
                    "the message's format is not named",
                    Problem("message", "has no usable Content-Type", "name your system's media type"),
                )
            message = Native(content, kind, name)
        elif field == "companion" and name and name not in companions:
            companions[name] = content
        else:
            raise _no_form("has a part that is neither the message nor a companion with a name of its own")
    if message is None:
        raise _no_form("has no part named message")
    return Native(message.content, message.media_type, message.name, companions)


def _form_parts(body: bytes, boundary: str) -> list[tuple[Header, bytes]]:
    parts: list[tuple[Header, bytearray]] = []
    line = [bytearray(), bytearray()]  # the header line being read: its name, its value
    ended = False

    def begin() -> None:
        if len(parts) == MAX_PARTS:
            raise _no_form(f"has more than {MAX_PARTS} parts")
        parts.append((Header(), bytearray()))

    def named(data: bytes, start: int, end: int) -> None:
        line[0] += data[start:end]

    def valued(data: bytes, start: int, end: int) -> None:
        line[1] += data[start:end]

    def line_end() -> None:
        parts[-1][0].add_header(line[0].decode("latin-1"), line[1].decode("utf-8", "replace"))
        line[:] = [bytearray(), bytearray()]

    def filled(data: bytes, start: int, end: int) -> None:
        parts[-1][1].extend(data[start:end])

    def finish() -> None:
        nonlocal ended
        ended = True

    callbacks: dict[str, Any] = {
        "on_part_begin": begin,
        "on_header_field": named,
        "on_header_value": valued,
        "on_header_end": line_end,
        "on_part_data": filled,
        "on_end": finish,
    }
    try:
        parser = MultipartParser(boundary.encode("latin-1", "replace"), callbacks)  # type: ignore[arg-type]  # its own keys
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError):
        raise _no_form("cannot be taken apart") from None
    if not ended:
        raise _no_form("does not end")
    return [(header, bytes(content)) for header, content in parts]


def _no_form(detail: str) -> Unreadable:
    return Unreadable(
        "the form cannot be read",
        Problem("", detail, "send one part `message` and, with a file name each, parts `companion`"),
    )


def media_type_of(content_type: str) -> str:
    """The media type in *content_type*, in lower case and without parameters; "" when it is none."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind if _MEDIA_TYPE.fullmatch(kind) else ""


def _boundary(content_type: str) -> str:
    header = Header()
    header["content-type"] = content_type.replace("\r", " ").replace("\n", " ")
    return dict(header.get_params([], "content-type")[1:]).get("boundary", "")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        "the body is too large",
        Problem("", f"is longer than {limit} bytes", "send less at a time"),
    )
