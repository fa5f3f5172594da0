"""The `isr-hub` command. Exit 0: good; 1: something is wrong; 2: used wrongly. Every command has `--json`."""

import argparse
import json
import logging
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from consent.verify import add_arguments
from consent.verify import run as verify_ledger
from gateway import ledger_commands, officers, outsiders
from gateway.settings import Settings, from_environment
from schemas.errors import BadSettings, HubError

GOOD, WRONG, MISUSED = 0, 1, 2
# What `isr-hub agreements` tells before an agreement is signed, and the words that each takes.
FORESIGHT = {
    "diff": "A B",
    "what-if": "DRAFT",
    "who-can-learn": "CLASS about ROLE",
    "unused": "",
    "prove": "",
    "text": "[AGREEMENT]",
    "odrl": "[AGREEMENT]",
}
# What it does to the life of one, and the words that each takes.
STEPS = {
    "propose": "FILE --by PARTY --officer NAME",
    "approve": "AGREEMENT[@VERSION] --by PARTY --officer NAME [--content HASH]",
    "suspend": "AGREEMENT[@VERSION] --by PARTY --officer NAME",
    "resume": "AGREEMENT[@VERSION] --by PARTY --officer NAME",
    "revoke": "AGREEMENT[@VERSION] --by PARTY --officer NAME",
    "supersede": "OLD[@VERSION] NEW[@VERSION] --by PARTY --officer NAME",
    "history": "[AGREEMENT[@VERSION]]",
    "schema": "",
}
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The broker says itself, in one line, when RabbitMQ is away; pika adds a page for every attempt.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    try:
        status: int = given.run(given)
    except HubError as error:
        if given.json:
            print(json.dumps({"error": error.as_json()}))
        else:
            err.print(f"[red]{error.code}[/]: {error.detail}", soft_wrap=True)
            for problem in error.problems:
                err.print("  " + problem.line(), markup=False, soft_wrap=True)
        return WRONG
    except BrokenPipeError:
        return GOOD
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="isr-hub", description="The information-sharing hub of the Integrated Safety Response."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, text: str, run: Callable[[argparse.Namespace], int], *, data: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="answer in JSON")
        if data:
            sub.add_argument("--data", type=Path, help="data folder (default: ISR_HUB_DATA, else var/hub)")
        sub.set_defaults(run=run)
        return sub

    demo = add("demo", "one ISR day: simulated, decided, delivered, proved", _demo, data=False)
    demo.add_argument(
        "--data", type=Path, default=Path("var/demo"), help="folder to make anew (default: var/demo)"
    )
    demo.add_argument("--episodes", type=_count, default=119)
    demo.add_argument("--releases", type=_count, default=10)
    demo.add_argument("--seed", type=int, default=7)
    demo.add_argument("--engine", choices=("embedded", "real"), default="embedded")
    serve = add("serve", "the hub with its console", _serve)
    serve.add_argument("--listen", help="address and port (default 127.0.0.1:8080)")
    token = add("token", "an access token of the sandbox issuer, to try the HTTP door", _token)
    token.add_argument("party")
    token.add_argument("--scope", default="messages:submit messages:read")
    verify = add("verify", "prove a ledger: every leaf, the tree, every signature", verify_ledger, data=False)
    add_arguments(verify)
    export = add("export", "write the ledger as static files that anybody can verify", _export)
    export.add_argument("folder", type=Path)
    ledger_commands.register(add)
    explain = add("explain", "what every party got of a message, and why", _explain)
    explain.add_argument("message")
    outsiders.say_who_looks(explain)
    outsiders.add_commands(add, out)
    officers.add_commands(add, out)
    _agreement_commands(add)
    _bench_options(add("bench", "speed as ratios, measured in one run", _bench, data=False))
    run = add("run", "the hub's processes", _run)
    run.add_argument("part", choices=("gateway", "exchange", "adapters", "all"))
    run.add_argument("--until-idle", action="store_true", help="end when nothing can be moved any more")
    add("migrate", "bring the database to this version", _migrate)
    _topology_options(add("topology", "the hub's queues in RabbitMQ, and one user for each party", _topology))
    add("recipients", "which way each party's deliveries go", _recipients)
    key = add("encryption-key", "the key that agencies encrypt to, as a JWK set", _encryption_key)
    key.add_argument("--renew", action="store_true", help="make a new one; the one before it still opens")
    letters = add("dead-letters", "what was set aside: list it, send it again", _dead_letters)
    letters.add_argument("action", choices=("list", "retry"))
    letters.add_argument("number", nargs="?", help="with retry: the number, or `all`")
    return parser


def _bench_options(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("what", nargs="?", choices=("year",), help="year: a year of episodes, start to end")
    bench.add_argument("--quick", action="store_true", help="seconds instead of minutes, embedded only")
    bench.add_argument("--only", type=_names, default=[], help="some of the measurements: R4,R8,latency")
    bench.add_argument("--queued", type=_count, help="messages queued and stored for R7 (default 100000)")
    bench.add_argument("--episodes", type=_count, default=101_981, help="of the year")
    bench.add_argument("--engine", choices=("embedded", "real"), default="real", help="of the year")


def _agreement_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    agreements = add("agreements", "what the agreements grant, and would do", _agreements, data=False)
    agreements.add_argument("action", choices=("check", "matrix", *FORESIGHT, *STEPS))
    agreements.add_argument("--folder", type=Path, help="default: the agreements in force")
    agreements.add_argument("--csv", action="store_true", help="matrix as CSV")
    agreements.add_argument("--html", action="store_true", help="matrix as a page of HTML")
    agreements.add_argument(
        "words",
        nargs="*",
        help="; ".join(f"{action} {words}" for action, words in {**FORESIGHT, **STEPS}.items() if words),
    )
    agreements.add_argument("--data", type=Path, help="data folder, for what-if and unused")
    agreements.add_argument("--day", type=_day, help="day to ask about, YYYY-MM-DD (default: today)")
    agreements.add_argument("--days", type=_count, default=90, help="unused: how far back to look")
    _who(agreements)
    agreements.add_argument("--content", help="approve: how the hash begins of the content that was read")
    recalls = add("recalls", "what was recalled after later knowledge, and who still has to act", _recalls)
    recalls.add_argument("action", choices=("list", "settle"))
    recalls.add_argument("disclosure", nargs="?", help="with settle: which")
    _who(recalls)


def _who(parser: argparse.ArgumentParser) -> None:
    """Who acts: for commands that take a step in somebody's name."""
    parser.add_argument("--by", metavar="PARTY", help="the party that takes the step")
    parser.add_argument("--officer", metavar="NAME", help="who of the party; kept as a keyed digest only")


def _topology_options(topology: argparse.ArgumentParser) -> None:
    topology.add_argument("action", choices=("export", "declare"))
    topology.add_argument(
        "--passwords",
        type=Path,
        help="with export: file of the parties' passwords (JSON); missing ones are made and written there",
    )


def _day(text: str) -> date:
    """A day, for argparse."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("is not a day as YYYY-MM-DD") from None


def _names(text: str) -> list[str]:
    """Names between commas, for argparse."""
    return [name for name in text.split(",") if name]


def _count(text: str) -> int:
    """A number of things, for argparse."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError("is not a whole number from 0")
    return int(text)


def _settings(given: argparse.Namespace, **more: Any) -> Settings:
    return from_environment(data=given.data, **more)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _demo(given: argparse.Namespace) -> int:
    from gateway.sandbox.day import run_day
    from gateway.sandbox.summary import print_summary

    try:
        report = run_day(
            given.data,
            episodes=given.episodes,
            releases=given.releases,
            seed=given.seed,
            engine=given.engine,
            show_progress=not given.json,
        )
    except FileExistsError as error:  # the folder is somebody else's
        err.print(str(error), markup=False, soft_wrap=True)
        return MISUSED
    if given.json:
        _print_json(report)
    else:
        print_summary(report, out)
    return GOOD if report["ledger"]["verified"] and report["unlogged"] == 0 else WRONG


def _serve(given: argparse.Namespace) -> int:
    from gateway.serve import serve

    return serve(_settings(given, listen=given.listen), out)


def _token(given: argparse.Namespace) -> int:
    from gateway.auth import mint

    text = mint(_settings(given), given.party, given.scope.split(), seconds=3600)
    _print_json({"access_token": text, "expires_in": 3600}) if given.json else print(text)
    return GOOD


def _export(given: argparse.Namespace) -> int:
    given.action, given.words = "export", [str(given.folder)]
    return outsiders.run_ledger(given, out)


def _explain(given: argparse.Namespace) -> int:
    from gateway.access import AccessLog, Look, message_id, viewer_of
    from gateway.explain import explain, print_explanation
    from gateway.hub import open_hub

    with open_hub(_settings(given), alone=False) as hub:
        viewer = viewer_of(given, hub.keys, hub.agreements.parties)
        look = Look("explain", message=message_id(given.message))
        AccessLog(hub.engine, hub.ledger, hub.keys, hub.clock).record(viewer, look)
        found = explain(hub, given.message)
    if given.json:
        _print_json(found)
    else:
        print_explanation(found, out)
    return GOOD


def _agreements(given: argparse.Namespace) -> int:
    from consent.agreement import Agreements
    from consent.matrix import check, matrix_csv, matrix_html, matrix_rows
    from gateway.hub import agreements_folder
    from schemas.classes import SUBJECT_ROLES

    if given.action in FORESIGHT:
        from gateway import foresight

        return foresight.run(given, FORESIGHT[given.action], out, err)
    if given.action in STEPS:
        from gateway import steps

        return steps.run(given, STEPS[given.action], out, err)
    if given.words:
        err.print(f"use it as: isr-hub agreements {given.action} [--folder FOLDER]", markup=False)
        return MISUSED
    folder = given.folder or agreements_folder(from_environment())
    if given.action == "check":
        findings = check(folder)
        if given.json:
            _print_json(
                [{"level": f.level, "where": f.where, "detail": f.detail, "fix": f.fix} for f in findings]
            )
        else:
            for finding in findings:
                out.print(
                    f"{finding.level}: {finding.where}: {finding.detail} — {finding.fix}",
                    markup=False,
                    soft_wrap=True,
                )
            out.print(f"{len(findings)} findings in {folder}", markup=False)
        return WRONG if any(f.level == "error" for f in findings) else GOOD
    rows = matrix_rows(Agreements.load(folder))
    if given.json:
        _print_json([row._asdict() for row in rows])
    elif given.csv:
        print(matrix_csv(rows), end="")
    elif given.html:
        print(matrix_html(rows, SUBJECT_ROLES), end="")
    else:
        out.print(_matrix_table(rows))
    return GOOD


def _recalls(given: argparse.Namespace) -> int:
    from gateway.steps import run_recalls

    return run_recalls(given, out, err)


def _matrix_table(rows: Sequence[Any]) -> Table:
    """data class × recipient, each cell the views by role."""
    recipients = sorted({row.recipient for row in rows})
    cells: dict[tuple[str, str], set[str]] = {}
    marks = {"full": "A", "reduced": "R", "refer": "H"}
    for row in rows:
        cells.setdefault((row.data_class, row.recipient), set()).add(marks.get(row.view, row.view))
    table = Table(
        title="What the agreements grant: A in full, R reduced, H by a person of the holder; empty: nothing"
    )
    table.add_column("class")
    for recipient in recipients:
        table.add_column(recipient)
    for name in sorted({row.data_class for row in rows}):
        table.add_row(name, *("".join(sorted(cells.get((name, r), ()))) for r in recipients))
    return table


def _bench(given: argparse.Namespace) -> int:
    from gateway.bench.report import print_bench, print_year
    from gateway.bench.run import QUICK, Size, bench, names

    if given.what == "year":
        from gateway.bench.year import year

        found = year(given.episodes, engine=given.engine, show_progress=not given.json)
        _print_json(found) if given.json else print_year(found, out)
        return GOOD if found["complete"] else WRONG
    if unknown := set(given.only) - set(names()):
        err.print(f"{len(unknown)} of the names are none: --only takes {', '.join(names())}", markup=False)
        return MISUSED
    size = QUICK if given.quick else Size()
    if given.queued is not None:
        size = replace(size, queued=given.queued)
    found = bench(size=size, only=given.only, real=not given.quick, show_progress=not given.json)
    _print_json(found) if given.json else print_bench(found, out)
    return GOOD


def _run(given: argparse.Namespace) -> int:
    from gateway.serve import run

    return run(_settings(given), given.part, until_idle=given.until_idle, as_json=given.json)


def _migrate(given: argparse.Namespace) -> int:
    from gateway.hub import migrate

    revision = migrate(_settings(given))
    _print_json({"revision": revision}) if given.json else out.print(f"database at revision {revision}")
    return GOOD


def _topology(given: argparse.Namespace) -> int:
    from broker.topology import declare_at, definitions, hashed, virtual_host_of
    from consent.agreement import Agreements
    from gateway.hub import agreements_folder

    settings = _settings(given)
    parties = sorted(Agreements.load(agreements_folder(settings)).parties)
    if given.action == "export":
        hashes = hashed(_passwords(given.passwords, parties)) if given.passwords else {}
        _print_json(definitions(parties, hashes, virtual_host_of(settings.broker_url)))
        return GOOD
    if settings.embedded_broker:
        raise BadSettings("ISR_HUB_BROKER_URL names no RabbitMQ")
    declare_at(settings.broker_url, parties)
    _print_json({"parties": parties}) if given.json else out.print(f"declared for {len(parties)} parties")
    return GOOD


def _passwords(path: Path, parties: Sequence[str]) -> dict[str, str]:
    """The parties' passwords in *path*, after the missing ones were made and written there (mode 0600)."""
    known: dict[str, str] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    missing = {party: secrets.token_urlsafe(24) for party in parties if party not in known}
    if missing:
        known |= missing
        # Whole or not at all: with half of it, agencies would be locked out.
        part = path.with_name(path.name + ".new")
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        part.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    return {party: known[party] for party in parties}


def _recipients(given: argparse.Namespace) -> int:
    from consent.agreement import Agreements
    from gateway.hub import agreements_folder, recipients_of

    settings = _settings(given)
    found = recipients_of(settings, Agreements.load(agreements_folder(settings)).parties)
    if given.json:
        _print_json(found.way)
    else:
        for party, way in sorted(found.way.items()):
            key = found.encrypt_to.get(party)
            told = f", encrypted to {key.kid or key.thumbprint()}" if key else ""
            out.print(f"{party}: {way}{told}", markup=False, soft_wrap=True)
    return GOOD


def _encryption_key(given: argparse.Namespace) -> int:
    from gateway.hub import encryption_keys

    settings = _settings(given)
    settings.data.mkdir(parents=True, exist_ok=True)
    keys = encryption_keys(settings)
    if given.renew:
        keys.renew()
    _print_json(keys.public())
    return GOOD


def _dead_letters(given: argparse.Namespace) -> int:
    from gateway.hub import open_hub

    with open_hub(_settings(given), alone=given.action == "retry") as hub:
        letters = hub.broker.dead_letters()
        if given.action == "list":
            if given.json:
                _print_json(
                    [
                        {
                            "number": d.number,
                            "queue": d.queue,
                            "at": d.at,
                            "headers": dict(d.headers),
                            **d.error,
                        }
                        for d in letters
                    ]
                )
            else:
                out.print(_letters_table(letters))
            return GOOD
        wanted = [d.number for d in letters] if given.number == "all" else [given.number]
        if wanted == [None]:
            err.print("say which: a number, or all")
            return MISUSED
        results = {number: hub.exchange.send_again(number) for number in wanted}
        if hub.settings.embedded_broker:  # else the hub's processes are at work
            hub.exchange.finish()
    if given.json:
        _print_json(
            {
                n: {"accepted": r.accepted, "rejected": [e.as_json() for e in r.rejected]}
                for n, r in results.items()
            }
        )
    else:
        for number, receipt in results.items():
            out.print(f"{number}: {len(receipt.accepted)} accepted, {len(receipt.rejected)} set aside again")
    return WRONG if any(r.rejected for r in results.values()) else GOOD


def _letters_table(letters: Sequence[Any]) -> Table:
    table = Table(title=f"Set aside: {len(letters)}")
    for heading in ("number", "at", "queue", "from", "why", "where", "fix"):
        table.add_column(heading, overflow="fold")
    for letter in letters:
        problems = letter.error.get("problems") or [{}]
        table.add_row(
            letter.number,
            letter.at,
            letter.queue,
            letter.headers.get("party", letter.headers.get("source", "")),
            letter.error.get("detail", letter.error.get("code", "")),
            problems[0].get("pointer", ""),
            problems[0].get("fix", ""),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
