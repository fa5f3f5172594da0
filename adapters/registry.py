"""Which adapter speaks for which party.

A party id is an agency, perhaps one of its providers after a dot, perhaps a capacity after `#`:
`ngo.aviva#ivs`, `corrections#em`. The agency decides the format; general practices read what Health reads.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from adapters import acc, corrections, education, fss, health, justice, msd, ngo, oranga_tamariki, police
from adapters.adapter import Adapter
from schemas.errors import NotFound, Problem

ADAPTERS: Mapping[str, Adapter] = MappingProxyType(
    {
        "acc": acc,
        "corrections": corrections,
        "education": education,
        "fss": fss,
        "health": health,
        "justice": justice,
        "msd": msd,
        "ngo": ngo,
        "oranga-tamariki": oranga_tamariki,
        "police": police,
    }
)
_SAME_FORMAT = {"gp": "health"}


def adapter_of(party_id: str) -> Adapter:
    """The adapter of the party *party_id*. Raises `NotFound` when no agency of that name has one."""
    agency = re.split(r"[.#]", party_id, maxsplit=1)[0]
    try:
        return ADAPTERS[_SAME_FORMAT.get(agency, agency)]
    except KeyError:
        raise NotFound(
            "no adapter speaks for this party",
            Problem("", "is of an agency without an adapter", "use an id of the register of parties"),
        ) from None
