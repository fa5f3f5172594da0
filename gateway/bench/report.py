"""What a run of the bench found, as a person reads it."""

from typing import Any

from rich.console import Console
from rich.table import Table

_COLOURS = {"goal": "green", "hold": "green", "short": "red", "not measured": "dim"}


def print_bench(found: dict[str, Any], out: Console) -> None:
    """Prints what `bench` returned: the ratios, then the figures beside them."""
    machine = found["machine"]
    out.print(
        f"{machine['cores']} cores, Python {machine['python']}, load before {machine['load_before']}, "
        f"fdatasync {machine['fdatasync_ms']} ms; {', '.join(found['engines'])}; medians",
        markup=False,
    )
    if found["ratios"]:
        out.print(_ratios(found["ratios"]))
    if found["figures"]:
        out.print(_figures(found["figures"]))
    out.print(f"{found['seconds']} s in all", markup=False)


def _ratios(ratios: list[dict[str, Any]]) -> Table:
    table = Table(title="Ratios, each side measured in turns with the other")
    table.add_column("")
    table.add_column("ratio")
    for heading in ("here", "to hold", "goal"):
        table.add_column(heading, justify="right", no_wrap=True)
    for ratio in ratios:
        sign = "≥" if ratio["better"] == "more" else "≤"
        colour = _COLOURS[ratio["verdict"]]
        here = "–" if ratio["value"] is None else number(ratio["value"])
        table.add_row(
            ratio["id"].replace("-", "\n"),
            f"{ratio['name']}\n[dim]{ratio.get('why') or _sides(ratio)}[/]",
            f"[{colour}]{here}[/]",
            f"{sign} {number(ratio['hold'])}",
            f"{sign} {number(ratio['goal'])}",
        )
    return table


def _sides(ratio: dict[str, Any]) -> str:
    return ", beside ".join(
        f"{number(side['value'])} {side['unit']} ({side['name']})"
        for side in (ratio["ours"], ratio["beside"])
        if side is not None
    )


def _figures(figures: list[dict[str, Any]]) -> Table:
    table = Table(title="Figures")
    table.add_column("", no_wrap=True)
    table.add_column("what")
    table.add_column("here", justify="right")
    table.add_column("unit", no_wrap=True)
    for figure in figures:
        if figure["value"] is None:
            table.add_row(figure["topic"], figure["why"], "–", "")
        else:
            table.add_row(figure["topic"], figure["name"], number(figure["value"]), figure["unit"])
    return table


def print_year(found: dict[str, Any], out: Console) -> None:
    """Prints what `year` returned."""
    table = Table(title=f"A year: {found['episodes']:,} episodes through {found['engine']}")
    table.add_column("what")
    table.add_column("here", justify="right")
    for name, value in found.items():
        if isinstance(value, dict):
            for inner, each in value.items():
                table.add_row(f"{name.replace('_', ' ')}: {inner}", _shown(each))
        elif name not in ("episodes", "engine"):
            table.add_row(name.replace("_", " "), _shown(value))
    out.print(table)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{number(each)} {name}" for name, each in value.items())
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def number(value: float) -> str:
    """*value* with thousands apart, and no more digits than it has."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"
