"""What a request body is taken for: batches are cut without being read, forms without touching a disk."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import intake
from gateway.intake import batch_items, natives_of
from schemas.errors import HubError, InvalidMessage, TooLarge, Unreadable, UnsupportedMediaType
from schemas.message import CONTENT_TYPE

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON, min_size=1, max_size=8), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_batch_items_are_what_the_array_holds(items: list[Any], ascii_only: bool, indent: Any) -> None:
    body = json.dumps(items, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert [json.loads(item.decode("utf-8", "surrogatepass")) for item in batch_items(body)] == items


@given(st.binary(max_size=60))
def test_batch_items_refuses_or_cuts_any_bytes(noise: bytes) -> None:
    body = b"[" + noise + b"]"
    try:
        items = batch_items(body)
    except HubError:
        return
    assert items
    assert all(item in body for item in items)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="no item"),
        pytest.param(b"{}", id="an object"),
        pytest.param(b"[1,]", id="an empty place"),
        pytest.param(b"[1", id="no end"),
        pytest.param(b"[1][2]", id="two arrays"),
        pytest.param(b'["a]', id="an open text"),
        pytest.param(b"[[1]", id="an open bracket"),
    ],
)
def test_batch_items_refuses_what_is_no_array_of_items(body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        batch_items(body)


def test_batch_items_leaves_brackets_and_commas_in_texts_alone() -> None:
    assert batch_items(b'[{"a": "],[\\"{"}, "\\\\"]') == [b'{"a": "],[\\"{"}', b'"\\\\"']


def test_batch_items_refuses_more_than_a_thousand() -> None:
    with pytest.raises(TooLarge):
        batch_items(b"[" + b"1," * 1000 + b"1]")


def test_batch_items_takes_a_body_of_the_greatest_size_with_one_open_text() -> None:
    with pytest.raises(InvalidMessage):
        batch_items(b'["' + b"\\\\" * (intake.MAX_BODY // 2) + b"]")


def test_natives_of_gives_each_item_of_a_batch_as_a_message() -> None:
    natives = natives_of("application/cloudevents-batch+json; charset=utf-8", b'[{"id": 1}, {"id": 2}]')
    assert [(n.content, n.media_type) for n in natives] == [
        (b'{"id": 1}', CONTENT_TYPE),
        (b'{"id": 2}', CONTENT_TYPE),
    ]


def test_natives_of_gives_other_types_as_they_are_without_parameters() -> None:
    (native,) = natives_of("Application/HL7-v2+er7; charset=utf-8", b"MSH|")
    assert (native.content, native.media_type, native.name) == (b"MSH|", "application/hl7-v2+er7", "")


@pytest.mark.parametrize(
    "kind", ["", "text", "text/", "te xt/csv", "text/csv\r\nX: y", "māori/csv", "/" * 99]
)
def test_natives_of_refuses_a_body_whose_format_is_not_named(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        natives_of(kind, b"x")


def test_natives_of_refuses_an_empty_body() -> None:
    with pytest.raises(Unreadable):
        natives_of("text/csv", b"")


def form(*parts: tuple[str, str, str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    """A form of (field, file name, media type, content)."""
    body = b""
    for field, name, kind, content in parts:
        file = f'; filename="{name}"' if name else ""
        typed = f"Content-Type: {kind}\r\n" if kind else ""
        body += f'--b\r\nContent-Disposition: form-data; name="{field}"{file}\r\n{typed}\r\n'.encode()
        body += content + b"\r\n"
    return body + end


FORM = "multipart/form-data; boundary=b"
FILE = ("message", "custody-20261122.csv", "text/csv", b"a,b\r\n1,2\r\n")
MANIFEST = ("companion", "custody-20261122.manifest.json", "application/json", b"{}")


def test_natives_of_gives_a_form_with_its_companions() -> None:
    (native,) = natives_of(FORM, form(FILE, MANIFEST))
    assert native.content == FILE[3]
    assert (native.media_type, native.name) == ("text/csv", "custody-20261122.csv")
    assert native.companions == {"custody-20261122.manifest.json": b"{}"}


@given(st.binary(max_size=200))
def test_natives_of_keeps_every_byte_of_a_part(content: bytes) -> None:
    if b"\r\n--b" in b"\r\n" + content:
        return
    (native,) = natives_of(FORM, form(("message", "x.bin", "application/octet-stream", content)))
    assert native.content == content


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(form(MANIFEST), FORM, id="no message"),
        pytest.param(form(FILE, FILE), FORM, id="two messages"),
        pytest.param(form(FILE, MANIFEST, MANIFEST), FORM, id="a companion twice"),
        pytest.param(form(FILE, ("companion", "", "", b"{}")), FORM, id="a companion without a name"),
        pytest.param(form(FILE, ("other", "", "", b"1")), FORM, id="another field"),
        pytest.param(form(("message", "../x.csv", "text/csv", b"1")), FORM, id="a path as name"),
        pytest.param(
            form(("message", "Aroha Ngārimu.csv", "text/csv", b"1")), FORM, id="a person's name as name"
        ),
        pytest.param(form(FILE, end=b""), FORM, id="no end"),
        pytest.param(form(FILE), "multipart/form-data", id="no boundary"),
        pytest.param(form(FILE), "multipart/form-data; boundary=other", id="another boundary"),
        pytest.param(
            form(FILE, *[("companion", f"{i}.x", "", b"") for i in range(20)]), FORM, id="too many parts"
        ),
        pytest.param(b"--b\r\n\xff\xfe: \x00\r\n\r\n--b--", FORM, id="no header"),
    ],
)
def test_natives_of_refuses_a_form_it_cannot_tell_apart(body: bytes, kind: str) -> None:
    with pytest.raises(Unreadable) as caught:
        natives_of(kind, body)
    assert "Ngārimu" not in str(caught.value.as_json())


def test_natives_of_refuses_a_form_whose_message_names_no_format() -> None:
    with pytest.raises(UnsupportedMediaType):
        natives_of(FORM, form(("message", "x.csv", "", b"1")))
