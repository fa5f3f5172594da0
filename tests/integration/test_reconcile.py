"""What recipients say they received against the ledger: each kind of difference is found, nothing else."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import command, queries
from gateway.hub import Hub
from gateway.queries import between
from gateway.reconcile import KINDS, Difference, Reconciled, reconcile
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from schemas.errors import InvalidMessage
from tests.serving import small_hub

AT = "2026-11-22T18:00:00+13:00"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.exchange.accept("police", [five_f(i.family, i.episode) for i in stream(15, 4, days=1)])
        hub.exchange.finish()
        yield hub


@pytest.fixture(scope="module")
def released(hub: Hub) -> list[dict[str, Any]]:
    rows = between(hub.engine, 0, hub.ledger.head().size)
    return [{**row.body, "index": row.index} for row in rows if row.body["kind"] == "disclosure"]


def receipts_of(released: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What everybody says when everything went well."""
    return [
        {"delivery": r["disclosure"], "party": r["party"], "time": AT, "digest": r["content"]}
        for r in released
    ]


def compared(
    hub: Hub, folder: Path, rows: list[dict[str, str]], *, start: int = 0, as_csv: bool = False
) -> tuple[Reconciled, list[Difference]]:
    path = folder / ("r.csv" if as_csv else "r.ndjson")
    if as_csv:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["party", "time", "delivery", "digest"])
        writer.writeheader()
        writer.writerows(rows)
        path.write_text("\ufeff" + text.getvalue(), "utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    told: list[Difference] = []
    return reconcile(hub, [path], start, hub.ledger.head().size, told.append), told


@pytest.mark.parametrize("as_csv", [False, True])
def test_what_agrees_is_no_difference(
    hub: Hub, released: list[dict[str, Any]], tmp_path: Path, as_csv: bool
) -> None:
    found, told = compared(hub, tmp_path, receipts_of(released), as_csv=as_csv)
    assert told == []
    assert (found.released, found.receipts, found.agreed) == (len(released),) * 3
    assert len(released) > 10


def change(rows: list[dict[str, str]], key: str, value: str) -> list[dict[str, str]]:
    return [{**rows[0], key: value}, *rows[1:]]


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        pytest.param(lambda rows: rows[1:], {"released-not-received"}, id="not received"),
        pytest.param(
            lambda rows: change(rows, "delivery", "00000000-0000-5000-8000-000000000000"),
            {"released-not-received", "received-not-released"},
            id="of another id",
        ),
        pytest.param(
            lambda rows: change(rows, "party", "somebody"),
            {"released-not-received", "received-by-other"},
            id="by somebody else",
        ),
        pytest.param(
            lambda rows: [*rows, {**rows[0], "party": "somebody"}],
            {"received-by-other"},
            id="by another, too",
        ),
        pytest.param(lambda rows: change(rows, "digest", "0" * 64), {"digest-differs"}, id="another content"),
        pytest.param(
            lambda rows: [*rows, {**rows[0], "digest": "0" * 64}],
            {"digest-differs", "received-twice"},
            id="twice, not the same",
        ),
        pytest.param(lambda rows: [*rows, rows[0]], set(), id="twice, the same"),
        pytest.param(lambda rows: change(rows, "digest", ""), set(), id="without a digest"),
        pytest.param(lambda rows: change(rows, "digest", rows[0]["digest"].upper()), set(), id="in capitals"),
        pytest.param(lambda rows: [], set(), id="nobody handed in anything"),
    ],
)
def test_each_difference_is_found_with_its_kind(
    hub: Hub,
    released: list[dict[str, Any]],
    tmp_path: Path,
    make: Callable[[list[dict[str, str]]], list[dict[str, str]]],
    kinds: set[str],
) -> None:
    found, told = compared(hub, tmp_path, make(receipts_of(released)))
    assert {one.kind for one in told} == kinds == set(found.kinds)
    assert kinds <= KINDS.keys()
    known = {released[0]["disclosure"], "00000000-0000-5000-8000-000000000000"}
    assert {one.delivery for one in told} <= known
    assert {one.entry for one in told} <= {released[0]["index"], None}
    assert len(told) == len(kinds)


def test_only_who_handed_in_receipts_is_asked(
    hub: Hub, released: list[dict[str, Any]], tmp_path: Path
) -> None:
    party = released[0]["party"]
    mine = [row for row in receipts_of(released) if row["party"] == party]
    found, told = compared(hub, tmp_path, mine)
    assert told == []
    assert (found.agreed, found.released) == (len(mine), len(released))


def test_receipts_from_outside_the_period_are_no_difference(
    hub: Hub, released: list[dict[str, Any]], tmp_path: Path
) -> None:
    later = released[3]["index"]
    found, told = compared(hub, tmp_path, receipts_of(released), start=later)
    assert told == []
    assert found.released == len(released) - 3
    wrong = change(receipts_of(released), "party", "somebody")
    assert [one.kind for one in compared(hub, tmp_path, wrong, start=later)[1]] == ["received-by-other"]


@pytest.mark.parametrize(
    ("later", "kinds", "waiting"),
    [
        pytest.param([{"kind": "delivery", "outcome": "refused"}], ["refused-yet-received"], 0, id="refused"),
        pytest.param([{"kind": "stopped"}], ["stopped-yet-received"], 0, id="stopped"),
        pytest.param([], ["received-not-recorded"], 1, id="on its way"),
        pytest.param(
            [{"kind": "narrowed", "content": "0" * 64}, {"kind": "delivery", "outcome": "delivered"}],
            ["digest-differs"],
            0,
            id="narrowed",
        ),
    ],
)
def test_what_became_of_a_release_counts(
    hub: Hub,
    released: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    later: list[dict[str, str]],
    kinds: list[str],
    waiting: int,
) -> None:
    afterwards = queries.afterwards
    first = released[0]["disclosure"]

    def changed(*given: Any) -> dict[str, list[queries.Row]]:
        found = afterwards(*given)
        return {**found, first: [queries.Row(0, body) for body in later]} if first in found else found

    monkeypatch.setattr(queries, "afterwards", changed)
    rows = receipts_of(released)
    assert [one.kind for one in compared(hub, tmp_path, rows)[1]] == kinds
    if later and later[-1].get("outcome") != "delivered":
        assert compared(hub, tmp_path, rows[1:])[1] == []
    if kinds == ["digest-differs"]:
        assert compared(hub, tmp_path, change(rows, "digest", "0" * 64))[1] == []
    assert compared(hub, tmp_path, rows[1:])[0].waiting == waiting


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        pytest.param("a.csv", b"delivery,party\nx,y\n", "a.csv row 1", id="a column is missing"),
        pytest.param("a.csv", b"", "a.csv row 1", id="empty"),
        pytest.param("a.csv", b"delivery,party,time\nx,y\n", "a.csv row 2", id="a short row"),
        pytest.param("a.csv", b"delivery,party,time\nx,y,yesterday\n", "row 2, column time", id="no time"),
        pytest.param("a.csv", b"delivery,party,time\nx,y,2026-11-22T09:30\n", "column time", id="no offset"),
        pytest.param("a.csv", b"delivery,party,time\n,y,2026-11-22T09:30Z\n", "column delivery", id="no id"),
        pytest.param(
            "a.csv", b"delivery,party,time,digest\nx,y,2026-11-22T09:30Z,abc\n", "column digest", id="digest"
        ),
        pytest.param("a.csv", b'delivery,party,time\nx,"y,z\n', "a.csv", id="an open quote"),
        pytest.param("a.csv", b"delivery,party,time\n\xff,y,z\n", "a.csv", id="no UTF-8"),
        pytest.param("a.csv", b"delivery,party,time\n" + b"x" * 20_000, "row 2", id="a long row"),
        pytest.param("a", b"{}\n", "a row 1, column delivery", id="an empty object"),
        pytest.param("a", b"{\n", "a row 1", id="no object"),
        pytest.param("a", b'{"delivery": 1, "party": "y", "time": "z"}', "column delivery", id="a number"),
        pytest.param("a", b'{"a": ' + b"[" * 9000, "a row 1", id="deep"),
    ],
)
def test_receipts_that_cannot_be_read_say_where(
    hub: Hub, tmp_path: Path, name: str, content: bytes, place: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidMessage) as caught:
        reconcile(hub, [tmp_path / name], 0, 1, lambda _: None)
    (problem,) = caught.value.problems
    assert place in problem.pointer
    assert problem.fix
    assert "yesterday" not in problem.line()


def test_command(
    hub: Hub, released: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.ndjson"
    run = ["reconcile", str(path), "--data", str(hub.settings.data), "--purpose", "ADM-AUDIT"]
    path.write_text("".join(json.dumps(row) + "\n" for row in receipts_of(released)))
    assert command.main([*run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreed"] == len(released)
    path.write_text("".join(json.dumps(row) + "\n" for row in receipts_of(released)[1:]))
    assert command.main([*run, "--json"]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert json.loads(first)["delivery"] == released[0]["disclosure"]
    assert json.loads(last)["differences"] == {"released-not-received": 1}
    assert command.main(run) == 1
    assert "released-not-received" in capsys.readouterr().out
    assert command.main([*run, "--since", "2026-11-30"]) == 0
    kinds = [row.body["what"] for row in between(hub.engine, 0, hub.ledger.head().size)
             if row.body["kind"] == "access"]  # fmt: skip
    assert kinds == ["reconcile"] * 4
