"""Which failures are tried again, which are buried, and how long the pauses are."""

import pika.exceptions
import pytest
import sqlalchemy.exc
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from broker import retry
from schemas import errors

AFTER_DAYS = 10_000


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(errors.NotSent(), id="recipient away"),
        pytest.param(errors.Unconfirmed(), id="broker did not confirm"),
        pytest.param(sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception()), id="database away"),
        pytest.param(sqlalchemy.exc.TimeoutError(), id="no free database connection"),
        pytest.param(pika.exceptions.AMQPConnectionError(), id="RabbitMQ away"),
        pytest.param(pika.exceptions.StreamLostError(), id="RabbitMQ connection lost"),
        pytest.param(ConnectionResetError(), id="socket reset"),
        pytest.param(TimeoutError(), id="socket timeout"),
        pytest.param(errors.LedgerContradiction(), id="ledger does not agree with itself"),
        pytest.param(errors.BadAgreement(), id="agreement does not load"),
    ],
)
def test_classify_never_buries_when_the_message_is_not_at_fault(error: Exception) -> None:
    verdict = retry.classify(error, AFTER_DAYS)

    assert not verdict.is_final
    assert verdict.delay_seconds == retry.LONGEST_DELAY_SECONDS


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidMessage(),
        errors.Unreadable(),
        errors.RefusedByRecipient(),
        errors.IdentityReused(),
        errors.CaseUnknown(),
        errors.TooLarge(),
    ],
    ids=lambda error: error.code,
)
def test_classify_buries_at_once_when_the_failure_is_final(error: errors.HubError) -> None:
    verdict = retry.classify(error, 0)

    assert verdict.is_final
    assert verdict.error["code"] == error.code


def test_classify_tries_the_unforeseen_a_few_times_then_buries() -> None:
    verdicts = [retry.classify(KeyError("x"), attempts) for attempts in range(retry.DELIVERY_LIMIT + 1)]

    assert [v.is_final for v in verdicts] == [False] * (retry.DELIVERY_LIMIT - 1) + [True, True]


def test_classify_treats_every_error_of_the_hub_in_one_way_or_the_other() -> None:
    leaves = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.HubError)]

    assert len(leaves) > 10
    for leaf in leaves:
        if leaf.retryable:
            assert not retry.classify(leaf(), AFTER_DAYS).is_final, leaf


def test_describe_keeps_only_the_type_when_the_exception_is_foreign() -> None:
    described = retry.describe(ValueError("12 Rātā Street, Ōtautahi"))

    assert described == {"code": "unexpected", "detail": "handling raised ValueError", "problems": []}


def test_describe_keeps_the_problems_when_the_error_is_ours() -> None:
    error = errors.InvalidMessage("1 problem", errors.Problem("/data/when", "not a date", "use RFC 3339"))

    assert retry.describe(error)["problems"] == [
        {"pointer": "/data/when", "detail": "not a date", "fix": "use RFC 3339"}
    ]


@given(st.integers(min_value=-5, max_value=10**12))
def test_backoff_grows_and_never_passes_its_limit(attempts: int) -> None:
    assert (
        retry.FIRST_DELAY_SECONDS
        <= retry.backoff(attempts)
        <= retry.backoff(attempts + 1)
        <= retry.LONGEST_DELAY_SECONDS
    )


def test_reconnecting_goes_on_until_the_server_is_back() -> None:
    pauses: list[float] = []
    outcomes = iter([*[pika.exceptions.AMQPConnectionError()] * 50, "connected"])

    def connect() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    assert retry.reconnecting(pauses.append)(connect) == "connected"
    assert len(pauses) == 50
    assert max(pauses) <= retry.LONGEST_RECONNECT_SECONDS


def test_reconnecting_ends_when_the_pause_raises() -> None:
    def pause(_seconds: float) -> None:
        raise InterruptedError

    def connect() -> None:
        raise pika.exceptions.AMQPConnectionError

    with pytest.raises(InterruptedError):
        retry.reconnecting(pause)(connect)


def test_reconnecting_does_not_hide_a_mistake_in_the_program() -> None:
    def connect() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        retry.reconnecting(lambda _seconds: None)(connect)


def test_reconnecting_is_the_tenacity_policy() -> None:
    assert isinstance(retry.reconnecting(lambda _seconds: None), tenacity.Retrying)
