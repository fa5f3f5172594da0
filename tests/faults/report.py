"""The report of the fault suite: one line a kind, and the sum."""

from collections.abc import Iterable, Iterator

from tests.faults.world import Row

_COUNTS = ("tried", "messages", "lost", "doubled", "unlogged")


def lines(rows: Iterable[Row], seed: int) -> Iterator[str]:
    """*rows* as a table, with their sum and the *seed*."""
    rows = list(rows)
    width = max(len(row.kind) for row in rows)
    yield f"{'kind of fault':{width}}" + "".join(f"{name:>10}" for name in _COUNTS)
    for row in rows:
        yield f"{row.kind:{width}}" + "".join(f"{getattr(row, name):>10}" for name in _COUNTS)
    sums = [sum(getattr(row, name) for row in rows) for name in _COUNTS]
    yield f"{'all':{width}}" + "".join(f"{count:>10}" for count in sums)
    yield f"seed {seed}"
