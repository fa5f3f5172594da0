"""What a release obliges somebody to do afterwards or before: tell the individual that information about them
was collected from somebody else (IPP 3A, Privacy Act 2020 s 22), and ask the child (Oranga Tamariki Act 1989
s 66K). Pure.

One duty for each recipient, case and role, and not for each release: an individual is told once that an
agency collects about them in this case, and what follows they are aware of.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from schemas.errors import InvalidMessage, Problem

NOTIFY, CONSULT = "ipp3a", "s66k"
IPP3A_BEGINS = "2026-05-01"  # information collected from this day on, in New Zealand
NOTIFY_WORKING_DAYS = 20
CONSULT_WORKING_DAYS = 5


class Disposition(NamedTuple):
    """How a duty ended: what it *says*, and whether the notice must first pass the safe-contact gate (safety
    rule V6).
    """

    says: str
    notice: bool = False


DISPOSITIONS: dict[str, dict[str, Disposition]] = {
    NOTIFY: {
        "notified": Disposition("the individual was told, by a channel that is safe", notice=True),
        "already-aware": Disposition("the individual had been told, or knows of it"),
        "exception-threat": Disposition("telling would likely threaten somebody's life or health"),
        "exception-purpose": Disposition("telling would prejudice the purpose of the collection"),
        "exception-law": Disposition("telling would prejudice the maintenance of the law"),
        "exception-impracticable": Disposition("telling is not reasonably practicable"),
        "exception-no-prejudice": Disposition("not telling does not prejudice the individual"),
    },
    CONSULT: {
        "views-taken": Disposition("the child was told who would receive it and why, and gave views"),
        "views-against": Disposition("the child did not want it; it was shared in the child's interests"),
        "representative": Disposition("the child's representative, not the perpetrator, gave views"),
        "not-practicable": Disposition("there was no time, or no safe way, to ask the child"),
        "not-appropriate": Disposition("asking would not be appropriate at the child's age or state"),
    },
}
CHANNELS = ("in-person", "safe-phone", "through-specialist")


def require_disposition(kind: str, code: str, channel: str) -> None:
    """Raises `InvalidMessage` when *code* does not end a duty of *kind*, or when a notice names no safe
    *channel*: a letter or a shared telephone could tell the perpetrator.
    """
    known = DISPOSITIONS.get(kind)
    if known is None:
        raise _wrong("/kind", DISPOSITIONS)
    if code not in known:
        raise _wrong("/code", known)
    if known[code].notice != bool(channel):
        raise InvalidMessage(
            "a notice names the channel by which it was given, and nothing else does",
            Problem("/channel", "is missing or not wanted", "use one of: " + ", ".join(CHANNELS)),
        )
    if channel and channel not in CHANNELS:
        raise _wrong("/channel", CHANNELS)


def _wrong(pointer: str, words: Iterable[str]) -> InvalidMessage:
    return InvalidMessage(
        "the word is not known",
        Problem(pointer, "is not one of the words", "use one of: " + ", ".join(words)),
    )


def is_overdue(state: str, due: datetime, now: datetime) -> bool:
    """Whether nobody recorded in time how the duty ended."""
    return state == "" and now > due
