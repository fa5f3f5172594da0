"""What verifying a ledger came to, for a program and for a person."""

from collections import Counter
from dataclasses import dataclass, field

from consent.merkle import EMPTY_ROOT

_MAX_FINDINGS = 100  # of one kind: a report that names a hundred entries has made its point


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong: *place* (`entry 17`, `checkpoint 400`, `tile 1/0`, `head`) and what is wrong there."""

    place: str
    detail: str


@dataclass(slots=True)
class Report:
    """What verifying came to. *size* entries were read, *signed* of them are under a signed checkpoint
    with *root*.

    *unsigned* entries follow it: appended, not yet signed; that is no fault.
    """

    target: str
    origin: str = ""
    size: int = 0
    signed: int = 0
    root: bytes = EMPTY_ROOT
    note: str = ""  # the newest checkpoint that the entries confirm
    checkpoints: int = 0
    witnesses: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0
    opened: list[tuple[int, str]] = field(default_factory=list)  # what a salt showed of which entry
    proved: str = ""  # what was shown instead of the whole ledger
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def unsigned(self) -> int:
        """How many entries no checkpoint covers yet."""
        return max(0, self.size - self.signed)

    def add(self, place: str, detail: str) -> None:
        """Notes something wrong at *place*."""
        kind = place.split(maxsplit=1)[
            0
        ]  # a thousand entries must not hide what is said about the checkpoints
        if sum(finding.place.startswith(kind) for finding in self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(place, detail))
        else:
            self.more_findings += 1

    def as_json(self) -> dict[str, object]:
        """The report for a program."""
        return {
            "ok": self.ok,
            "target": self.target,
            "origin": self.origin,
            "entries": self.size,
            "signed": self.signed,
            "unsigned": self.unsigned,
            "root": self.root.hex(),
            "checkpoints": self.checkpoints,
            "witnesses": self.witnesses,
            "kinds": dict(sorted(self.kinds.items())),
            "findings": [{"place": f.place, "detail": f.detail} for f in self.findings],
            "more_findings": self.more_findings,
            "opened": [{"entry": index, "shows": shows} for index, shows in self.opened],
            "proved": self.proved,
            "seconds": round(self.seconds, 3),
        }

    def lines(self) -> list[str]:
        """The report for a person."""
        rate = f" ({self.size / self.seconds:,.0f} entries/s)" if self.seconds and self.size > 1 else ""
        lines = [
            f"{'VERIFIED' if self.ok else 'NOT VERIFIED'}  {self.origin or self.target}",
            f"  {self.size:,} entries read, {self.signed:,} of them signed, in {self.seconds:.2f} s{rate}",
            f"  root {self.root.hex()}",
            f"  {self.checkpoints:,} checkpoint signatures verified"
            + (f", cosigned by {', '.join(self.witnesses)}" if self.witnesses else ""),
        ]
        if self.kinds:
            lines.append("  " + ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common()))
        if self.unsigned:
            lines.append(f"  the last {self.unsigned:,} entries are not signed yet")
        lines += [f"  {self.proved}"] if self.proved and self.ok else []
        lines += [f"  {shows}: {_entries(found)}" for shows, found in self._by_what_it_shows().items()]
        lines += [f"  {finding.place}: {finding.detail}" for finding in self.findings]
        if self.more_findings:
            lines.append(f"  and {self.more_findings:,} more")
        return lines

    def _by_what_it_shows(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for index, shows in sorted(self.opened):
            found.setdefault(shows, []).append(index)
        return found


def _entries(indices: list[int]) -> str:
    """*indices* in order as `entry 3` or `entries 3 to 7, 9`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    said = ", ".join(f"{first} to {last}" if first != last else f"{first}" for first, last in runs)
    return f"entry {said}" if len(indices) == 1 else f"entries {said}"
