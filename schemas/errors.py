"""Every error of the hub, in one tree.

A refusal to disclose is a value (`consent.policy.Decision`), never an error. An error says what failed, where
in the input (a JSON Pointer, or a native position such as `PID-3.1` or `row 7, column PRN`), and what would
mend it. It never repeats the input: a rejected value may be somebody's address.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: *pointer* says where, *detail* what, *fix* how to mend it; none holds a
    value.
    """

    pointer: str
    detail: str
    fix: str = ""

    def line(self) -> str:
        """The problem as one readable line."""
        return f"{self.pointer or '(whole message)'}: {self.detail}" + (f" — {self.fix}" if self.fix else "")


class HubError(Exception):
    """The hub could not do what was asked."""

    code = "hub-error"
    retryable = False

    def __init__(self, detail: str = "", *problems: Problem) -> None:
        super().__init__(detail or type(self).__doc__)
        self.problems = problems

    @property
    def detail(self) -> str:
        """The sentence for the operator."""
        return str(self)

    def as_json(self) -> dict[str, object]:
        """The error as it is stored with a dead letter and shown over HTTP; free of input values."""
        return {
            "code": self.code,
            "detail": self.detail,
            "problems": [{"pointer": p.pointer, "detail": p.detail, "fix": p.fix} for p in self.problems],
        }


class Unreadable(HubError):
    """The native bytes could not be read as the agency's format."""

    code = "unreadable"


class InvalidMessage(HubError):
    """The message does not meet its schema."""

    code = "invalid-message"


class UnknownType(HubError):
    """No schema is published for this message type and major version."""

    code = "unknown-type"


class TooLarge(HubError):
    """The input is larger or more deeply nested than the hub accepts."""

    code = "too-large"


class UnsupportedMediaType(HubError):
    """The input is in no format that the hub reads from this sender."""

    code = "unsupported-media-type"


class Unencrypted(HubError):
    """The input came through RabbitMQ without encryption to the hub's key."""

    code = "unencrypted"


class IdentityReused(HubError):
    """The same source and id arrived before with a different body."""

    code = "identity-reused"


class CaseUnknown(HubError):
    """The message belongs to a case that nobody has opened."""

    code = "case-unknown"


class BadCatalogue(HubError):
    """A published schema breaks the catalogue's rules."""

    code = "bad-catalogue"


class BadAgreement(HubError):
    """An agreement cannot be loaded; nothing is disclosed under it."""

    code = "bad-agreement"


class OutOfTurn(HubError):
    """This step cannot follow the agreement's present state, or is not this person's to take."""

    code = "out-of-turn"


class NotSent(HubError):
    """The recipient's system could not be reached; the delivery stays queued."""

    code = "not-sent"
    retryable = True


class RefusedByRecipient(HubError):
    """The recipient's system answered that it will never take this delivery."""

    code = "refused-by-recipient"


class Unconfirmed(HubError):
    """The broker did not confirm that it holds the messages; none of them may be treated as sent."""

    code = "unconfirmed"
    retryable = True


class Unsealed(HubError):
    """The message was not sealed for this queue by this hub; somebody else put it there, or changed it."""

    code = "unsealed"


class Unproved(HubError):
    """The delivery does not prove that it is in the ledger; it is not sent."""

    code = "unproved"


class AlreadyDecided(HubError):
    """A decision on this message and party is in the ledger; read it instead of deciding again."""

    code = "already-decided"
    retryable = True


class Exhausted(HubError):
    """Processes ended too often while they carried this message alone; it waits for a person."""

    code = "exhausted"


class LedgerContradiction(HubError):
    """The ledger's head, tiles and entries do not agree; the hub does not run on it."""

    code = "ledger-contradiction"


class NotSigned(HubError):
    """The ledger's signing key could not be used; nothing is released until it can."""

    code = "not-signed"
    retryable = True


class BadProof(HubError):
    """A signature, checkpoint or proof does not verify."""

    code = "bad-proof"


class NotAuthenticated(HubError):
    """The caller has not shown who it is."""

    code = "not-authenticated"


class NotAuthorised(HubError):
    """The caller has not shown that it may do this."""

    code = "not-authorised"


class NotFound(HubError):
    """There is nothing here that the caller may see."""

    code = "not-found"


class BadSettings(HubError):
    """A setting cannot be used."""

    code = "bad-settings"
