"""How many witnesses, and which, must have cosigned a checkpoint before it counts: a policy file as
c2sp.org/tlog-policy lays it down.

    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <name>...
    quorum <name>|none

Needs nothing but the note reader, so that a verifier far from the hub holds a checkpoint to the same file.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from consent.merkle import ProofError
from consent.note import Key, open_note, read_number

__all__ = ["Quorum", "Witnessed"]

_MAX_BYTES = 1_000_000
_NONE = "none"


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A witness of the policy: its *name* there, its *key*, and the *url* under which it takes checkpoints,
    "" when the file names none.
    """

    name: str
    key: Key
    url: str = ""


@dataclass(frozen=True, slots=True)
class Quorum:
    """The *witnesses* of a policy by name, the *groups* (how many of which names), and the *name* that must
    have witnessed: a witness, a group, or `none`.
    """

    witnesses: Mapping[str, Witnessed] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    name: str = _NONE
    logs: tuple[Key, ...] = ()

    @classmethod
    def from_file(cls, path: Path) -> "Quorum":
        """The policy in the file at *path*. Raises `ProofError` with the line that is wrong."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ProofError("the witness policy cannot be read") from error
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> "Quorum":
        """The policy in *text*. Raises `ProofError` with the line that is wrong."""
        if len(text) > _MAX_BYTES:
            raise ProofError("the witness policy is too large")
        reader = _Reader()
        for number, line in enumerate(text.split("\n"), 1):
            words = line.replace("\t", " ").strip(" ")
            if words and not words.startswith("#"):
                try:
                    reader.read([word for word in words.split(" ") if word])
                except ProofError as error:
                    raise ProofError(f"line {number} of the witness policy: {error}") from None
        if reader.quorum is None:
            raise ProofError("the witness policy has no quorum line")
        return cls(reader.witnesses, reader.groups, reader.quorum, tuple(reader.logs))

    def cosigners(self, note: str) -> dict[str, int]:
        """The names of the witnesses whose cosignature on *note* verifies, with its time (POSIX seconds). A
        line that does not verify counts as none, and spoils no other.
        """
        found: dict[str, int] = {}
        for witness in self.witnesses.values():
            try:
                ((_, moment),) = open_note(note, [witness.key])[1]
            except ProofError:
                continue
            found[witness.name] = moment or 0
        return found

    def met(self, names: Iterable[str]) -> bool:
        """Whether the witnesses *names* together are enough."""
        have = set(names) & set(self.witnesses)
        # A group names only what stands before it, so one pass in the order of the file is enough.
        for name, (count, members) in self.groups.items():
            if sum(member in have for member in members) >= count:
                have.add(name)
        return self.name == _NONE or self.name in have


class _Reader:
    def __init__(self) -> None:
        self.witnesses: dict[str, Witnessed] = {}
        self.groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.logs: list[Key] = []
        self.quorum: str | None = None
        self._lines: dict[str, Callable[[list[str]], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }

    def read(self, words: list[str]) -> None:
        if words[0] not in self._lines:
            raise ProofError("it begins with none of log, witness, group, quorum")
        self._lines[words[0]](words[1:])

    def _log(self, words: list[str]) -> None:
        if len(words) not in (1, 2):
            raise ProofError("write: log VKEY [URL]")
        key = Key.from_vkey(words[0])
        if any(key.public == other.public for other in self.logs):
            raise ProofError("this key stands in the file already")
        self.logs.append(key)

    def _witness(self, words: list[str]) -> None:
        if len(words) not in (2, 3):
            raise ProofError("write: witness NAME VKEY [URL]")
        key, url = Key.from_vkey(words[1]), words[2] if len(words) == 3 else ""
        if not key.cosigns:
            raise ProofError("this is not the key of a witness")
        if any(key.public == other.key.public for other in self.witnesses.values()):
            raise ProofError("this key stands in the file already")
        if url and not url.startswith(("http://", "https://")):
            raise ProofError("a witness is asked over http or https")
        self.witnesses[self._new(words[0])] = Witnessed(words[0], key, url.rstrip("/"))

    def _group(self, words: list[str]) -> None:
        if len(words) < 3:
            raise ProofError("write: group NAME all|any|NUMBER NAME...")
        name, wanted, *members = words
        if len(set(members)) != len(members) or any(self._unknown(member) for member in members):
            raise ProofError("a group lists names defined above it, each once")
        if any(m in others for m in members for _, others in self.groups.values()):
            raise ProofError("a member is in another group already")
        counts = {"all": len(members), "any": 1}
        count = counts[wanted] if wanted in counts else read_number(wanted, "the number of a group")
        if not 1 <= count <= len(members):
            raise ProofError("the number of a group is from 1 to that of its members")
        self.groups[self._new(name)] = (count, tuple(members))

    def _quorum(self, words: list[str]) -> None:
        if len(words) != 1 or self.quorum is not None:
            raise ProofError("write one line: quorum NAME")
        if words[0] != _NONE and self._unknown(words[0]):
            raise ProofError("the quorum is a witness or group defined above it, or none")
        self.quorum = words[0]

    def _unknown(self, name: str) -> bool:
        return name not in self.witnesses and name not in self.groups

    def _new(self, name: str) -> str:
        if name == _NONE or not self._unknown(name):
            raise ProofError("this name is taken")
        return name
