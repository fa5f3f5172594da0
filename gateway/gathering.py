"""Requests that wait at the same time are accepted together: one look at the inbox and one round of confirms
for all, and nobody waits for others to come.

One batch is in hand at a time; what arrives meanwhile is the next. Each request gets its own receipts, or its
own error.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from starlette.concurrency import run_in_threadpool

from adapters.adapter import Native
from gateway.exchange import Receipt
from gateway.intake import natives_of
from schemas.errors import HubError, Unconfirmed

_Found = list[Receipt] | Exception
# Beyond this nothing is gained, and whoever came first waits for whoever came last.
_REQUESTS, _BYTES = 200, 8 * 1_048_576


class Accepting(Protocol):
    """What a `Gathering` needs of the exchange."""

    def accept(self, party: str, natives: Sequence[Native]) -> list[Receipt]:
        """See `Exchange.accept`."""
        ...


class _Request(NamedTuple):
    party: str
    content_type: str
    body: bytes
    answer: "asyncio.Future[list[Receipt]]"


class Gathering:
    """Hands *exchange* what requests of one event loop bring; *read* makes natives of a media type and a body
    (see `natives_of`).
    """

    def __init__(self, exchange: Accepting, read: Callable[[str, bytes], list[Native]] = natives_of) -> None:
        self._exchange, self._read = exchange, read
        self._waiting: deque[_Request] = deque()  # touched on the event loop only, like the task
        self._task: asyncio.Task[None] | None = None

    async def submit(self, party: str, content_type: str, body: bytes) -> list[Receipt]:
        """The receipts of what *party* sent, once it is durable. Raises what *read* and `Exchange.accept`
        raise.
        """
        answer: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(party, content_type, body, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._take_turns())
        return await answer

    async def _take_turns(self) -> None:
        while self._waiting:
            batch = self._next()
            try:
                found = await run_in_threadpool(self._together, batch)
            except BaseException as error:  # nobody may be left waiting, whatever happened
                found = [error if isinstance(error, Exception) else HubError() for _ in batch]
                if not isinstance(error, Exception):
                    self._answer(batch, found)
                    raise
            self._answer(batch, found)

    def _next(self) -> list[_Request]:
        batch: list[_Request] = []
        size = 0
        while self._waiting and len(batch) < _REQUESTS and (size < _BYTES or not batch):
            batch.append(self._waiting.popleft())
            size += len(batch[-1].body)
        return batch

    def _answer(self, batch: Iterable[_Request], found: Iterable[_Found]) -> None:
        for request, each in zip(batch, found, strict=True):
            if request.answer.done():  # the caller is gone
                continue
            if isinstance(each, Exception):
                request.answer.set_exception(each)
            else:
                request.answer.set_result(each)

    def _together(self, batch: Sequence[_Request]) -> list[_Found]:
        """What comes of each request of *batch*, in a thread of its own."""
        natives: list[list[Native]] = []
        found: list[_Found] = []
        parties: dict[str, list[int]] = {}
        for at, request in enumerate(batch):
            try:
                natives.append(self._read(request.content_type, request.body))
            except HubError as error:
                natives.append([])
                found.append(error)
            else:
                found.append([])
                parties.setdefault(request.party, []).append(at)
        for party, places in parties.items():
            self._for_party(party, places, natives, found)
        return found

    def _for_party(
        self, party: str, places: Sequence[int], natives: Sequence[list[Native]], found: list[_Found]
    ) -> None:
        try:
            receipts = self._exchange.accept(party, [native for at in places for native in natives[at]])
        except Unconfirmed as error:  # nothing is certain of any of them, and each may send again
            for at in places:
                found[at] = error
        except Exception as error:
            # One of them breaks us. Alone, it harms nobody else; what is taken twice is carried once.
            if len(places) == 1:
                found[places[0]] = error
                return
            for at in places:
                self._for_party(party, [at], natives, found)
        else:
            taken = iter(receipts)
            for at in places:
                found[at] = [next(taken) for _ in natives[at]]
