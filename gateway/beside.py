"""Work that goes on beside the next: while one batch is being decided, the releases of the one before leave.

Deciding is this process's own work; signing, publishing and confirming is mostly the servers'. One piece at a
time, in order, so that what may be unfinished is bounded by one batch.
"""

import threading
from collections.abc import Callable

from broker.broker import Delivery


class Beside:
    """At most one piece of work on *deliveries* in a thread of its own. For one caller."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._deliveries: list[Delivery] = []
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], None], deliveries: list[Delivery]) -> None:
        """Begins *work*. Call `wait` first."""

        def guarded() -> None:
            try:
                work()
            except BaseException as failure:  # the caller's to handle, in its own thread
                self._failure = failure

        self._deliveries, self._failure = deliveries, None
        self._thread = threading.Thread(target=guarded, name="release")
        self._thread.start()

    def wait(self) -> tuple[list[Delivery], BaseException | None]:
        """Waits for the end of the work; returns the deliveries that it left unsettled, with its error."""
        thread, self._thread = self._thread, None
        if thread is None:
            return [], None
        thread.join()
        return (self._deliveries, self._failure) if self._failure is not None else ([], None)


__all__ = ["Beside"]
