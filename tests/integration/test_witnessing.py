"""Witnesses as processes of their own, and a hub that waits for enough of them."""

import contextlib
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from adapters.adapter import Native
from broker.broker import deliveries_to
from consent.copies import open_copy
from consent.ledger import Checkpoint, Signer
from consent.merkle import CompactRange, consistency_proof, leaf_hash
from consent.monitor import Alarm, watch
from consent.note import Key, open_note
from consent.tiles import Edge, node_reader
from consent.verify import verify
from consent.witness import request
from gateway.auth import AUDIT, OPERATE, mint_session
from gateway.command import main
from gateway.console import COOKIE
from gateway.hub import Hub
from gateway.sandbox.last_will import ended_with_us
from gateway.witness_door import init, open_witness
from tests.servers import free_ports
from tests.serving import episode, now, sent, serving, small_hub

PATIENCE_SECONDS = 60.0
CLIENT = httpx.Client(timeout=PATIENCE_SECONDS)
ORIGIN = "isr.test/ledger"
LOG = Signer(ORIGIN, bytes(range(32)))


@pytest.fixture(scope="module", autouse=True)
def client() -> Iterator[None]:
    yield
    CLIENT.close()


class Process:
    """A witness's process on a port of its own."""

    def __init__(self, folder: Path, vkey: str, port: int) -> None:
        self.folder, self.vkey, self.port = folder, vkey, port
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._will = contextlib.ExitStack()

    def start(self) -> None:
        program = [sys.executable, "-m", "gateway.command", "witness", "serve", str(self.folder)]
        self._process = subprocess.Popen(
            [*program, "--listen", f"127.0.0.1:{self.port}", "--json"],
            cwd=Path(__file__).parents[2],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self._will.enter_context(ended_with_us(self._process.pid))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE_SECONDS)
        self._will.close()

    def post(self, body: bytes) -> httpx.Response:
        return CLIENT.post(f"{self.url}/add-checkpoint", content=body)


@contextlib.contextmanager
def witnesses(
    folder: Path, log: str, count: int = 1, *, algorithms: Sequence[str] = ()
) -> Iterator[list[Process]]:
    made = []
    for number, port in enumerate(free_ports(count)):
        algorithm = algorithms[number] if algorithms else "ed25519"
        place = folder / f"witness{number}"
        made.append(Process(place, init(place, f"witness{number}.test", [log], algorithm), port))
    try:
        for process in made:
            process.start()
        yield made
    finally:
        for process in made:
            process.kill()


class History:
    """A log of its own making, which can say anything about itself that its key signs."""

    def __init__(self, salt: str, count: int = 400) -> None:
        self.leaves = [leaf_hash(f"{salt if i >= 5 else ''}{i}".encode()) for i in range(count)]
        tiles = Edge().extend(self.leaves)
        self._read = node_reader(lambda level, number: tiles[level, number])

    def checkpoint(self, size: int, signer: Signer = LOG) -> Checkpoint:
        tree = CompactRange()
        tree.extend(self.leaves[:size])
        return Checkpoint(signer.name, size, tree.root()).signed_by(signer)

    def body(self, old: int, new: int, signer: Signer = LOG) -> bytes:
        return request(old, consistency_proof(old, new, self._read), self.checkpoint(new, signer))


def test_witness_process_answers_as_its_specification_says(tmp_path: Path) -> None:
    history, other = History("a"), Signer("other.test", bytes(range(5, 37)))
    thief = Signer(ORIGIN, bytes(range(7, 39)))
    with witnesses(tmp_path, LOG.vkey()) as (process,):
        assert process.post(history.body(0, 5)).status_code == 200
        done = process.post(history.body(5, 300))
        assert (done.status_code, done.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        key = Key.from_vkey(process.vkey)
        assert [k for k, _ in open_note(history.checkpoint(300).note + done.text, [key])[1]] == [key]
        conflict = process.post(history.body(5, 300))
        assert (conflict.status_code, conflict.text) == (409, "300\n")
        assert conflict.headers["content-type"] == "text/x.tlog.size"
        wrong = history.body(300, 400).split(b"\n")
        wrong[1] = wrong[2]
        assert process.post(b"\n".join(wrong)).status_code == 422
        assert process.post(history.body(0, 5, other)).status_code == 404
        assert process.post(history.body(300, 400, thief)).status_code == 403
        assert process.post(b"old 400\n\n" + history.checkpoint(300).note.encode()).status_code == 400
        for body in (b"", b"old\n", b"\xff", b"old 0\n" + b"A" * 2000):
            assert process.post(body).status_code == 400
        assert process.post(b"a" * 1_100_000).status_code == 413
        assert httpx.get(f"{process.url}/add-checkpoint").status_code == 405
        assert httpx.get(f"{process.url}/").status_code == 404
        assert process.post(history.body(300, 400)).status_code == 200


def test_witness_killed_again_and_again_never_cosigns_two_histories(tmp_path: Path) -> None:
    """Two forks push at once while the process is killed: every answer ever given is of one history."""
    histories, cosigned = [History("a"), History("b")], [set[int](), set[int]()]
    with witnesses(tmp_path, LOG.vkey()) as (process,):
        assert process.post(histories[0].body(0, 5)).status_code == 200
        stop = threading.Event()

        def push(which: int) -> None:
            old = 5
            while not stop.is_set() and old < 390:
                try:
                    answer = process.post(histories[which].body(old, old + 1))
                except httpx.HTTPError:
                    continue
                if answer.status_code == 200:
                    cosigned[which].add(old + 1)
                    old += 1
                elif answer.status_code == 409:
                    old = max(old, int(answer.text))

        with ThreadPoolExecutor() as pool:
            pushing = [pool.submit(push, which) for which in (0, 1, 0)]
            deadline = time.monotonic() + PATIENCE_SECONDS
            for goal in (4, 8, 12):
                while len(cosigned[0] | cosigned[1]) < goal and time.monotonic() < deadline:
                    stop.wait(0.01)
                process.kill()
                if goal < 12:
                    process.start()
            stop.set()
            for one in pushing:
                one.result()
    assert max(len(cosigned[0]), len(cosigned[1])) > 5
    assert min(len(cosigned[0]), len(cosigned[1])) == 0
    latest = open_witness(process.folder).latest(ORIGIN)
    assert latest is not None
    assert latest.size >= max(cosigned[0] | cosigned[1])
    winner = histories[0] if cosigned[0] else histories[1]
    assert latest == winner.checkpoint(latest.size)


def test_two_witnesses_shown_different_histories_never_both_cosign_either(tmp_path: Path) -> None:
    one, two = History("a"), History("b")
    with witnesses(tmp_path, LOG.vkey(), 2) as (first, second):
        assert first.post(one.body(0, 300)).status_code == 200
        assert second.post(two.body(0, 300)).status_code == 200
        assert first.post(two.body(300, 400)).status_code == 422
        assert second.post(one.body(300, 400)).status_code == 422
        assert first.post(two.body(300, 300)).status_code == 409
    kept = open_witness(first.folder).evidence()
    assert [(note, against) for note, against, _ in kept] == [
        (two.checkpoint(400).note, one.checkpoint(300).note),
        (two.checkpoint(300).note, one.checkpoint(300).note),
    ]
    command = [sys.executable, "-m", "gateway.command", "witness", "evidence", str(first.folder)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "two roots for one tree size" in done.stdout


def policy(path: Path, processes: Sequence[Process], quorum: str) -> Path:
    lines = [f"witness w{i} {p.vkey} {p.url}" for i, p in enumerate(processes)]
    members = " ".join(f"w{i}" for i in range(len(processes)))
    path.write_text("\n".join([*lines, f"group enough {quorum} {members}", "quorum enough\n"]))
    return path


def made_key(folder: Path) -> str:
    """The public key of the hub that will run in *folder*."""
    with small_hub(folder) as hub:
        return hub.ledger.keys()


def delivered(hub: Hub) -> float:
    return sum(
        sample.value
        for metric in hub.telemetry.deliveries.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


def answers(hub: Hub, outcome: str) -> float:
    return sum(
        sample.value
        for metric in hub.telemetry.witness_answers.collect()
        for sample in metric.samples
        if sample.labels["outcome"] == outcome and sample.name.endswith("_total")
    )


def settle(hub: Hub) -> None:
    """What the exchange's process does in its loops, until nothing moves."""
    assert hub.witnessing is not None
    hub.exchange.finish()
    while hub.witnessing.ask(0.0):
        hub.exchange.finish()


def test_hub_holds_releases_until_enough_witnesses_have_cosigned(tmp_path: Path) -> None:
    vkey = made_key(tmp_path / "hub")
    with witnesses(tmp_path, vkey, 3, algorithms=["ed25519", "ml-dsa-44", "ed25519"]) as processes:
        processes[1].kill()
        processes[2].kill()
        path = policy(tmp_path / "policy", processes, "2")
        with small_hub(tmp_path / "hub", witnesses=path, unwitnessed="hold") as hub:
            assert hub.witnessing is not None
            sent(hub, "police", episode())
            settle(hub)
            assert delivered(hub) == 0
            assert hub.exchange.releasable(100) == 0
            assert answers(hub, "cosigned") == 1
            assert answers(hub, "away") == 2

            processes[1].start()
            hub.witnessing._failures.clear()  # it would be asked again in seconds
            settle(hub)
            assert delivered(hub) > 0
            newest = hub.ledger.checkpoint()
            assert newest is not None
            keys = [Key.from_vkey(process.vkey) for process in processes[:2]]
            assert {key for key, _ in open_note(newest.note, keys)[1]} == set(keys)
            assert hub.telemetry.witnessed._value.get() == newest.size
        assert verify(tmp_path / "hub", vkey, witnesses=[p.vkey for p in processes[:2]]).ok
        assert watch(tmp_path / "hub", vkey, tmp_path / "state", int(time.time()), witnesses=keys).checked


def test_hub_that_may_release_without_witnesses_shows_that_it_did(tmp_path: Path) -> None:
    vkey = made_key(tmp_path / "hub")
    process = Process(tmp_path / "w", init(tmp_path / "w", "w.test", [vkey]), free_ports(1)[0])
    path = policy(tmp_path / "policy", [process], "all")
    with small_hub(tmp_path / "hub", witnesses=path, unwitnessed="release") as hub:
        sent(hub, "police", episode())
        settle(hub)
        assert delivered(hub) > 0
        assert hub.telemetry.witnessed._value.get() == 0
        assert answers(hub, "away") == 1
        looking = {"officer": "0" * 32, "party": "police", "purpose": "ADM-AUDIT", "reference": ""}
        cookie = f"{COOKIE}={mint_session(hub.settings, [AUDIT, OPERATE], 60, now, looking)}"
        with serving(hub) as client:
            page = client.get("/console/ledger", headers={"Cookie": cookie}).text
        assert "Too few witnesses have cosigned" in page
        assert "<td>w0</td><td>0</td><td>never</td>" in page


def test_hub_whose_database_was_rolled_back_learns_it_from_its_witness(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The backup is sound in itself, and the hub starts on it: the witness remembers more."""
    folder = tmp_path / "hub"
    vkey = made_key(folder)
    with witnesses(tmp_path, vkey) as processes:
        path = policy(tmp_path / "policy", processes, "all")
        with small_hub(folder, witnesses=path) as hub:
            settle(hub)
        with contextlib.closing(sqlite3.connect(folder / "hub.db")) as connection:
            connection.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
        with small_hub(folder, witnesses=path) as hub:
            sent(hub, "police", episode())
            settle(hub)
            assert delivered(hub) > 0
        hub_files = list(folder.glob("hub.db*"))
        for file in hub_files:
            file.unlink()
        shutil.copy(tmp_path / "backup.db", folder / "hub.db")
        with small_hub(folder, witnesses=path) as hub:
            sent(hub, "police", episode())
            settle(hub)
            assert answers(hub, "contradiction") > 0
            assert delivered(hub) == 0
            assert "rolled back" in caplog.text


def test_served_log_is_walked_by_a_monitor_that_has_nothing_else(tmp_path: Path) -> None:
    with small_hub(tmp_path / "hub") as hub:
        sent(hub, "police", episode())
        newest = hub.ledger.sign()
        with serving(hub) as client:
            address = f"{client.base_url}/ledger".replace("//ledger", "/ledger")
            kept = tmp_path / "state"
            assert watch(address, hub.ledger.keys(), kept, 1).checked == newest.size
            assert open_copy(address).keys() == hub.ledger.keys()
            sent(hub, "police", {**episode()})
            assert watch(address, hub.ledger.keys(), kept, 1).checked == hub.ledger.sign().size
        with pytest.raises(Alarm):
            watch(address, hub.ledger.keys(), kept, 1)


def test_processes_of_the_hub_ask_the_witnesses_and_release_what_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands as an operator uses them; the key is rotated on the way, and the witness is told."""
    folder = tmp_path / "hub"
    vkey = made_key(folder)
    with witnesses(tmp_path, vkey) as processes:
        path = policy(tmp_path / "policy", processes, "all")
        with small_hub(folder) as hub:  # submitted, and not yet decided
            record = Native(json.dumps(episode()).encode(), "application/json", "in.json")
            assert hub.exchange.accept("police", [record])[0].accepted
        monkeypatch.setenv("ISR_HUB_DATA", str(folder))
        monkeypatch.setenv("ISR_HUB_WITNESSES", str(path))
        assert main(["run", "all", "--until-idle"]) == 0
        capsys.readouterr()
        assert main(["witness", "status", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["witnessed"] == shown["signed"] == shown["releasable"] > 0
        with small_hub(folder) as hub:
            kinds = [json.loads(raw)["kind"] for raw in hub.ledger.entries(0, hub.ledger.head().size)]
        assert "delivery" in kinds

        assert main(["keys", "rotate", "--without-old", "--json"]) == 0
        capsys.readouterr()
        assert main(["run", "all", "--until-idle"]) == 0
        assert main(["witness", "status"]) == 1  # it does not know the new key
        init(processes[0].folder, "witness0.test", [str(folder / "ledger.vkey")])
        processes[0].kill()
        processes[0].start()
        assert main(["run", "all", "--until-idle"]) == 0
        assert main(["witness", "status"]) == 0
    assert main(["monitor", str(folder), "--key", str(folder / "ledger.vkey"), "--state", str(tmp_path / "s"),
                 "--policy", str(path)]) == 0  # fmt: skip


def test_delivery_that_no_witness_has_covered_does_not_leave_the_queue_for_the_agency(tmp_path: Path) -> None:
    """As if the key were stolen: published under a good signature, which no witness has seen."""
    folder = tmp_path / "hub"
    vkey = made_key(folder)
    process = Process(tmp_path / "w", init(tmp_path / "w", "w.test", [vkey]), free_ports(1)[0])
    path = policy(tmp_path / "policy", [process], "all")
    with small_hub(folder) as hub:
        record = Native(json.dumps(episode()).encode(), "application/json", "in.json")
        assert hub.exchange.accept("police", [record])[0].accepted
        assert hub.exchange.carry() == 1
        waiting = sum(hub.broker.depth(deliveries_to(party)) for party in hub.agreements.parties)
        assert waiting > 0
    with small_hub(folder, witnesses=path, unwitnessed="hold") as hub:
        hub.exchange.finish()
        assert delivered(hub) == 0
        assert [letter.error["code"] for letter in hub.broker.dead_letters()] == ["unproved"] * waiting
