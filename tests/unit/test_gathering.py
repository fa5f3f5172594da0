"""Requests that wait together are accepted together, and each hears only of itself."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from adapters.adapter import Native
from gateway.exchange import Receipt
from gateway.gathering import Gathering
from schemas.errors import InvalidMessage, Unconfirmed, Unreadable

KIND = "application/json"


class Accepting:
    """An exchange that accepts by echo. It waits with its first batch for *held*, and fails with a party or a
    body that says so.
    """

    def __init__(self, held: bool = False) -> None:
        self.batches: list[tuple[str, list[bytes]]] = []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def accept(self, party: str, natives: Sequence[Native]) -> list[Receipt]:
        assert self.go.wait(10)
        contents = [native.content for native in natives]
        self.batches.append((party, contents))
        if party == "unconfirmed":
            raise Unconfirmed("no confirm")
        if b"poison" in contents:
            raise RuntimeError
        return [Receipt(accepted=[content.decode()]) for content in contents]


def sent(accepting: Accepting, requests: Sequence[tuple[str, str, bytes]]) -> list[Any]:
    """What each of *requests* (party, type, body), all waiting at once, hears."""

    async def all_at_once() -> list[Any]:
        gathering = Gathering(accepting)
        first = asyncio.create_task(gathering.submit("police", KIND, b"first"))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(gathering.submit(*request)) for request in requests]
        await asyncio.sleep(0.01)
        accepting.go.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    _, *heard = asyncio.run(all_at_once())
    return [each if isinstance(each, Exception) else [r.accepted for r in each] for each in heard]


def test_requests_that_wait_are_one_batch_for_each_party() -> None:
    accepting = Accepting(held=True)
    requests = [("police", KIND, b"p%d" % n) for n in range(50)] + [("msd", KIND, b"m")]

    heard = sent(accepting, requests)

    assert heard == [[[body.decode()]] for _, _, body in requests]
    assert [(party, len(contents)) for party, contents in accepting.batches] == [
        ("police", 1),
        ("police", 50),
        ("msd", 1),
    ]


def test_batch_of_a_request_comes_back_to_that_request() -> None:
    batch = ("police", "application/cloudevents-batch+json", b'["a","b"]')

    heard = sent(Accepting(held=True), [("police", KIND, b"one"), batch, ("police", KIND, b"two")])

    assert heard == [[["one"]], [['"a"'], ['"b"']], [["two"]]]


def test_request_that_cannot_be_read_holds_up_nobody() -> None:
    empty = ("police", KIND, b"")

    before, wrong, after = sent(Accepting(held=True), [("police", KIND, b"a"), empty, ("police", KIND, b"b")])

    assert (before, after) == ([["a"]], [["b"]])
    assert isinstance(wrong, Unreadable | InvalidMessage)


def test_request_that_breaks_the_hub_breaks_alone() -> None:
    accepting = Accepting(held=True)

    before, broken, after = sent(accepting, [("police", KIND, body) for body in (b"a", b"poison", b"b")])

    assert (before, after) == ([["a"]], [["b"]])
    assert isinstance(broken, RuntimeError)


def test_nobody_is_told_of_success_without_a_confirm() -> None:
    heard = sent(Accepting(held=True), [("unconfirmed", KIND, b"a"), ("unconfirmed", KIND, b"b")])

    assert [type(each) for each in heard] == [Unconfirmed, Unconfirmed]


def test_caller_that_is_gone_holds_up_nobody() -> None:
    accepting = Accepting(held=True)

    async def leaving() -> list[Receipt]:
        gathering = Gathering(accepting)
        gone = asyncio.create_task(gathering.submit("police", KIND, b"gone"))
        stays = asyncio.create_task(gathering.submit("police", KIND, b"stays"))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        accepting.go.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    assert asyncio.run(leaving())[0].accepted == ["stays"]
