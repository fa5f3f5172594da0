"""What a person sees after the demo: who was told what, what was withheld and why, what was refused, and the
proof.
"""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.explain import in_order, reason_says


def print_summary(report: dict[str, Any], out: Console) -> None:
    """Prints *report* (of `gateway.sandbox.day.run_day`) for a person."""
    decisions = report["decisions"]
    total = sum(decisions.values())
    out.print(
        f"\n[bold]One ISR day[/]: {report['episodes']} episodes and {report['releases']} prison releases, "
        f"{report['people']:,} invented people, {report['plans']} plans, {report['tasks']:,} tasks."
    )
    out.print(
        f"{report['submitted']:,} messages came in, {report['quarantined']} were set aside. "
        f""
        f"Each was decided for every party that it could concern: {total:,} decisions, "
        f"{decisions['permit']:,} in full, {decisions['reduced']:,} reduced, "
        f"{decisions['refer']:,} referred to a person, {decisions['refuse']:,} refused.",
        soft_wrap=True,
    )
    asked = report["requests"]
    out.print(
        f"{asked['answered']:,} of {asked['asked']:,} information requests were answered; "
        f"{report['schools_told']} schools told.\n"
    )
    out.print(_recipients(report))
    out.print(_withheld(report))
    guards = ", ".join(f"{name} {count:,}×" for name, count in report["guards_held"].items())
    out.print(f"\n[bold]Guards that held[/] (nothing overrides them): {guards}", soft_wrap=True)
    for name in in_order(report["guards_held"]):
        out.print(f"  {name:<6} {reason_says(name)}", style="dim", soft_wrap=True)
    ledger = report["ledger"]
    proved = (
        "[green]proved from outside with the public key[/]"
        if ledger["verified"]
        else "[red]DOES NOT VERIFY[/]"
    )
    out.print(f"\n[bold]Ledger[/]: {ledger['size']:,} entries, root {ledger['root'][:16]}…, {proved}.")
    out.print(
        f"{report['deliveries']:,} deliveries made, {report['unlogged']} without an entry, "
        f"{report['undelivered']} not yet delivered."
    )
    out.print(f"decisions_digest {report['decisions_digest']}", soft_wrap=True)
    out.print(f"The day took {report['day_seconds']} s, everything {report['seconds']} s.\n")
    folder, hub = report["folder"], sys.argv[0] if sys.argv[0].endswith("isr-hub") else "isr-hub"
    out.print("[bold]Look further[/]")
    for command, what in (
        (f"{hub} verify {folder}", "prove the ledger yourself"),
        (f"{hub} explain --data {folder} {report['example']}", "one episode: who got what, and why"),
        (f"{hub} agreements matrix", "what the agreements grant"),
        (f"ls {folder}/agencies/*/received", "what each agency has, in its own format"),
    ):
        out.print(f"  {command}\n      {what}", markup=False, soft_wrap=True)


def _recipients(report: dict[str, Any]) -> Table:
    table = Table(title="Who was told what", title_justify="left")
    table.add_column("party")
    for heading in ("in full", "reduced", "referred", "refused"):
        table.add_column(heading, justify="right")
    for party, counts in report["by_recipient"].items():
        table.add_row(party, *(f"{counts.get(o, 0):,}" for o in ("permit", "reduced", "refer", "refuse")))
    return table


def _withheld(report: dict[str, Any]) -> Table:
    table = Table(title="What was withheld most, and why", title_justify="left")
    table.add_column("data class")
    table.add_column("reason")
    table.add_column("times", justify="right")
    for name, reason, count in report["withheld_why"][:12]:
        table.add_row(name, reason_says(reason), f"{count:,}")
    return table
