"""Errors as they are answered over HTTP (RFC 9457): the only table from an error to a status.

A problem holds a type, a title, a status, the sentence for the operator and one object per finding; it never
holds an input value, and nothing in it differs between two callers who asked in vain (no `instance`, no
request id), so that an answer cannot be told from another by anything but its meaning.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from schemas.errors import (
    AlreadyDecided,
    BadAgreement,
    BadCatalogue,
    BadProof,
    BadSettings,
    CaseUnknown,
    Exhausted,
    HubError,
    IdentityReused,
    InvalidMessage,
    LedgerContradiction,
    NotAuthenticated,
    NotAuthorised,
    NotFound,
    NotSent,
    NotSigned,
    OutOfTurn,
    Problem,
    RefusedByRecipient,
    TooLarge,
    Unconfirmed,
    Unencrypted,
    UnknownType,
    Unproved,
    Unreadable,
    Unsealed,
    UnsupportedMediaType,
)

CONTENT_TYPE = "application/problem+json"
TYPES = "https://isr-hub.example.nz/problems/"
RETRY_SECONDS = 5  # what a sender waits at least before it tries again

_STATUS: dict[type[HubError], int] = {
    HubError: 500,
    Unreadable: 400,
    InvalidMessage: 422,
    UnknownType: 422,
    TooLarge: 413,
    UnsupportedMediaType: 415,
    Unencrypted: 400,
    Unsealed: 500,
    Unproved: 500,
    IdentityReused: 409,
    CaseUnknown: 422,
    BadCatalogue: 500,
    BadAgreement: 500,
    NotSent: 502,
    NotSigned: 503,
    RefusedByRecipient: 502,
    Unconfirmed: 503,
    AlreadyDecided: 409,
    OutOfTurn: 409,
    Exhausted: 500,
    LedgerContradiction: 500,
    BadProof: 500,
    NotAuthenticated: 401,
    NotAuthorised: 403,
    NotFound: 404,
    BadSettings: 500,
}
# Whoever may not see something reads this and nothing else, whatever the reason was (promise: refused, not
# found
# and restricted look the same).
_HIDDEN = {NotFound.code: "There is nothing here that you may see."}
_INTERNAL = "The hub could not do this; its operators have been told."


def status_of(error: HubError) -> int:
    """The status of *error*: that of its class or of the nearest class above it."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def problem(error: HubError) -> dict[str, Any]:
    """*error* as an RFC 9457 object: `type`, `title`, `status`, `detail`, and `errors` with one
    {pointer, detail, fix} per finding.

    What went wrong inside the hub (status 500) is not described to the caller.
    """
    status = status_of(error)
    said: dict[str, Any] = {"type": TYPES + error.code, "title": _title(error), "status": status}
    if status == 500:
        said["detail"] = _INTERNAL
        return said
    said["detail"] = _HIDDEN.get(error.code, error.detail)
    if error.problems and error.code not in _HIDDEN:
        said["errors"] = [finding(p) for p in error.problems]
    return said


def finding(found: Problem) -> dict[str, str]:
    """One finding of a problem's `errors`."""
    return {"pointer": found.pointer, "detail": found.detail, "fix": found.fix}


def none_accepted(errors: Sequence[HubError]) -> dict[str, Any]:
    """The problem for an input of which nothing was accepted: that of the only error, else one that holds
    each under `rejected`.

    Its status is the one that all *errors* share, else 422.
    """
    problems = [problem(e) for e in errors]
    if len(problems) == 1:
        return problems[0]
    statuses = {p["status"] for p in problems}
    return {
        "type": TYPES + "none-accepted",
        "title": "None of the messages was accepted.",
        "status": statuses.pop() if len(statuses) == 1 else 422,
        "detail": f"{len(problems)} messages were rejected; each says why.",
        "rejected": problems,
    }


def respond(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """The HTTP response for a problem *body*."""
    return Response(
        orjson.dumps(body),
        status_code=body["status"],
        media_type=CONTENT_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def answer(error: HubError) -> Response:
    """The HTTP response for *error*; says when to come back where coming back helps."""
    retry = {"Retry-After": str(RETRY_SECONDS)} if error.retryable else {}
    return respond(problem(error), retry)


def bare(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """The response for what the web framework itself refuses: an unknown path, a method not offered."""
    titles = {404: _title(NotFound()), 405: "This method is not offered here."}
    body = {
        "type": "about:blank",
        "title": titles.get(status, "The request cannot be served."),
        "status": status,
    }
    if status == 404:
        body = problem(NotFound())
    return respond(body, headers)


def _title(error: HubError) -> str:
    # The class's docstring is the title: the same for every occurrence, as RFC 9457 §3.1.3 asks.
    documented = type(error).__doc__ or HubError.__doc__ or ""
    return " ".join(documented.split("\n\n")[0].split())
