"""A delivery is sent on only when a signed checkpoint covers the entry that released exactly it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from adapters.adapter import Native
from broker.broker import Delivery, Outgoing, deliveries_to
from broker.sealed import Seal
from consent import proved as proved_module
from consent.merkle import ProofError, inclusion_proof, leaf_hash, perfect_root, root, verify_inclusion
from consent.note import Signer, TlogProof, write_path
from consent.proved import Prover, _Tree, proved
from gateway.hub import Hub, open_hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from schemas.errors import HubError, Unproved

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
PARTY = "corrections"


class Sent:
    """A transport that keeps what it was given."""

    def __init__(self) -> None:
        self.natives: list[tuple[str, str]] = []

    def send(self, party: str, deliveries: Any) -> list[HubError | None]:
        self.natives += [(party, id) for id, _ in deliveries]
        return [None] * len(deliveries)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def hub(tmp_path: Path, sent: Sent) -> Any:
    with open_hub(Settings(data=tmp_path / "hub"), clock=lambda: NOW, transport=sent) as hub:
        natives: list[Native] = [five_f(i.family, i.episode) for i in stream(5, 6, days=1)]
        hub.exchange.accept("police", natives)
        while hub.exchange.carry():
            pass
        yield hub


def waiting(hub: Hub, party: str = PARTY) -> list[Delivery]:
    deliveries = hub.broker.receive(deliveries_to(party), 100)
    hub.broker.requeue(deliveries)
    assert deliveries
    return deliveries


def put_back(hub: Hub, change: Callable[[dict[str, Any]], object], party: str = PARTY) -> str:
    """Takes the first delivery of *party* out of its queue and puts it back changed; returns its id."""
    first, *others = hub.broker.receive(deliveries_to(party), 100)
    carried = orjson.loads(first.body)
    change(carried)
    hub.broker.publish([Outgoing(first.queue, orjson.dumps(carried), first.headers)])
    hub.broker.ack([first])
    hub.broker.requeue(others)
    return first.headers["id"]


def settle(hub: Hub, party: str = PARTY) -> None:
    while hub.exchange.deliver(party):
        pass


def codes(hub: Hub) -> list[str]:
    return [letter.error["code"] for letter in hub.broker.dead_letters()]


def test_every_delivery_carries_a_proof_that_outsiders_verify(hub: Hub) -> None:
    for delivery in waiting(hub):
        carried = orjson.loads(delivery.body)
        proof = TlogProof.decode(carried["proof"])
        assert proof.extra is not None
        proof.verify(proof.extra, hub.ledger.keys_for(proof.checkpoint.size))
        assert orjson.loads(proof.extra)["disclosure"] == delivery.headers["id"]
        assert proof.index == int(delivery.headers["entry"])


def test_what_is_proved_is_sent(hub: Hub, sent: Sent) -> None:
    ids = {d.headers["id"] for d in waiting(hub)}
    settle(hub)
    assert {id for _, id in sent.natives} == ids
    assert codes(hub) == []


def _other_address(carried: dict[str, Any]) -> None:
    carried["message"]["data"]["people"][0]["gender"] = "changed"


def _flip(carried: dict[str, Any]) -> None:
    lines = carried["proof"].split("\n")
    lines[3] = lines[4]
    carried["proof"] = "\n".join(lines)


def _other_entry(carried: dict[str, Any]) -> None:
    head, rest = carried["proof"].split("\nindex ", 1)
    carried["proof"] = head.rsplit("extra ", 1)[0] + "extra e30=\nindex " + rest


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("proof"),
        lambda c: c.pop("salt"),
        lambda c: c.update(proof=""),
        lambda c: c.update(proof=7),
        lambda c: c.update(salt="zz"),
        lambda c: c.update(salt="00"),
        lambda c: c["message"].update(id="another"),
        lambda c: c.update(message=None),
        _other_address,
        _flip,
        _other_entry,
    ],
)
def test_a_delivery_that_does_not_prove_itself_does_not_reach_the_agency(
    hub: Hub, sent: Sent, change: Callable[[dict[str, Any]], object]
) -> None:
    id = put_back(hub, change)
    settle(hub)
    assert id not in {id for _, id in sent.natives}
    assert codes(hub) == ["unproved"]
    assert hub.telemetry.unproved.labels(PARTY)._value.get() == 1
    (letter,) = hub.broker.dead_letters()
    assert "changed" not in str(letter.error)
    # The others are not held up by it.
    assert sent.natives


def test_one_party_s_delivery_does_not_prove_itself_to_another(hub: Hub, sent: Sent) -> None:
    stolen = waiting(hub)[0]
    hub.broker.publish([Outgoing(deliveries_to("ngo.aviva#pos"), stolen.body, stolen.headers)])
    settle(hub, "ngo.aviva#pos")
    assert sent.natives == []
    assert codes(hub) == ["unproved"]


@pytest.mark.parametrize(
    "change",
    [{"id": "another"}, {"entry": "999999"}, {"entry": "-1"}, {"entry": "x"}, {"id": ""}, {"entry": None}],
    ids=str,
)
def test_a_delivery_under_other_headers_is_not_sent(
    hub: Hub, sent: Sent, change: dict[str, str | None]
) -> None:
    """Nothing seals them: a copy under another id would be sent twice, one under a later entry never be asked
    about again, one under none hold up the queue."""
    taken, *others = hub.broker.receive(deliveries_to(PARTY), 100)
    headers = {name: value for name, value in {**taken.headers, **change}.items() if value is not None}
    hub.broker.publish([Outgoing(deliveries_to(PARTY), taken.body, headers)])
    hub.broker.ack([taken])
    hub.broker.requeue(others)
    settle(hub)
    assert [id for _, id in sent.natives] == [d.headers["id"] for d in others]
    assert codes(hub) == ["unproved"]


def test_a_proof_under_another_key_is_none(hub: Hub) -> None:
    delivery = waiting(hub)[0]
    other = Signer.generate(hub.ledger.origin)
    prover = Prover(lambda _: [other.key], hub.ledger.origin)
    with pytest.raises(Unproved):
        prover.opened(PARTY, delivery.body, delivery.headers)
    assert Prover(lambda size: [other.key, *hub.ledger.keys_for(size)], hub.ledger.origin).opened(
        PARTY, delivery.body, delivery.headers
    )


def test_something_sealed_by_hand_without_an_entry_is_not_sent(hub: Hub, sent: Sent) -> None:
    """Even somebody with the hub's secret cannot make the adapters send what the ledger does not have."""
    event = orjson.loads(waiting(hub)[0].body)["message"] | {"id": "invented"}
    body = proved(b'{"salt":"00","message":%b}' % orjson.dumps(event), "c2sp.org/tlog-proof@v1\nindex 0\n\nx")
    assert Seal(hub.keys.queue).close("q", body)
    hub.broker.publish([Outgoing(deliveries_to("msd"), body, {"id": "invented", "type": "x", "entry": "0"})])
    settle(hub, "msd")
    assert sent.natives == []
    assert codes(hub) == ["unproved"]


class Counted:
    """`verify_inclusion`, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        monkeypatch.setattr(proved_module, "verify_inclusion", self._verify)

    def _verify(self, *given: Any) -> None:
        self.times += 1
        verify_inclusion(*given)


def grown(size: int) -> tuple[list[bytes], bytes, Callable[[int], list[str]]]:
    """The leaves and root of a tree of *size*, and the lines of each leaf's path."""
    leaves = [leaf_hash(b"entry %d" % n) for n in range(size)]
    read = lambda level, n: perfect_root(leaves[n << level : (n + 1) << level])  # noqa: E731  # of merkle's form
    return leaves, root(size, read), lambda n: write_path(inclusion_proof(n, size, read)).splitlines()


@pytest.mark.parametrize("size", [1, 63, 64, 65, 128, 300])
def test_paths_of_one_tree_are_verified_once_where_they_are_the_same(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All leaves of 64 share what is above them; at the right edge each path is verified whole."""
    leaves, top, path = grown(size)
    counted, tree = Counted(monkeypatch), _Tree(size, top)
    for n in range(size):
        tree.check(n, leaves[n], path(n))
    edge = size % 64 if size > 64 else size
    assert counted.times == (size // 64 if size > 64 else 0) + edge


def test_a_forged_path_is_refused_even_beside_its_sibling() -> None:
    """What was verified of one leaf lends nothing to a path that differs in any line, place or leaf."""
    size = 300
    leaves, top, path = grown(size)
    tree, true = _Tree(size, top), path(17)
    tree.check(16, leaves[16], path(16))
    tree.check(17, leaves[17], true)
    other = path(299)[0]
    for at in range(len(true)):
        for lines in ([*true[:at], other, *true[at + 1 :]], true[:at] + true[at + 1 :], true[: at + 1]):
            if lines == true:
                continue
            with pytest.raises(ProofError):
                tree.check(17, leaves[17], lines)
    for index, leaf, lines in (
        (17, leaves[18], true),
        (18, leaves[17], true),
        (17 + 64, leaves[17], true),
        (17, leaves[17], [*true, other]),
        (17, leaves[17], [true[0] + "=", *true[1:]]),
        (size, leaves[17], true),
    ):
        with pytest.raises(ProofError):
            tree.check(index, leaf, lines)
    with pytest.raises(ProofError):
        _Tree(size, leaves[0]).check(17, leaves[17], true)


def test_what_is_remembered_of_a_tree_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree of any size costs the same memory; what was forgotten is verified again."""
    monkeypatch.setattr(proved_module, "_SHARED", 2)
    leaves, top, path = grown(300)
    tree = _Tree(300, top)
    for n in (0, 64, 128, 192, 0):
        tree.check(n, leaves[n], path(n))
        assert len(tree._verified) <= 2
