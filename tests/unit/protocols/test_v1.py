"""The statuses of ``/v1``: every refusal says by its status, too, what it is."""

from __future__ import annotations

import pytest

from aiproject import errors
from aiproject.codes import Code
from aiproject.protocols import legacy as seed
from aiproject.protocols.v1 import failure_of

STATUSES = [
    (errors.InvalidInput(), 400, Code.APP_QUERY_METHOD_ERROR),
    (errors.Refused(), 400, Code.APP_QUERY_METHOD_ERROR),
    (errors.LoginFailed(), 401, Code.LOGIN_ERROR),
    (errors.AccountUnknown(), 401, Code.NOT_SIGNED_IN),
    (errors.NotSignedIn(), 401, Code.NOT_SIGNED_IN),
    (errors.QuotaExhausted("tokens"), 402, Code.TOKEN_NOT_ENOUGH),
    (errors.NotAllowed(), 403, Code.PERMISSION_NOT_ALLOW),
    (errors.RegistrationClosed(), 403, Code.REGISTRATION_CLOSED),
    (errors.NotFound(), 404, Code.ITEM_NOT_FOUND),
    (errors.ReceiptUnknown(), 404, Code.RECEIPT_NOT_FOUND),
    (errors.NameTaken(), 409, Code.USER_NAME_REPEAT),
    (errors.VoucherRedeemed(), 409, Code.TOKEN_ALREADY_GET),
    (errors.UnusableFile(), 400, Code.FILE_FORMAT_ILLEGAL),
    (errors.BodyTooLarge(1), 413, Code.REQUEST_TOO_LARGE),
    (errors.TooManyRequests(3), 429, Code.TOO_MANY_REQUESTS),
    (errors.SpendLimitReached("tokens"), 429, Code.KEY_LIMIT_REACHED),
    (errors.Misconfigured(), 500, Code.APP_INTERNAL_ERROR),
    (errors.UpstreamTruncated(), 502, Code.APP_QUERY_METHOD_ERROR),
    (errors.Unavailable("x"), 503, Code.SERVICE_UNAVAILABLE),
]


@pytest.mark.parametrize(("error", "status", "code"), STATUSES, ids=lambda value: type(value).__name__)
def test_status(error: errors.AiProjectError, status: int, code: Code) -> None:
    failure = failure_of(error)
    assert (failure.status, failure.code) == (status, code)


def test_no_refusal_is_a_success() -> None:
    assert all(failure_of(error).status >= 400 for error, _, _ in STATUSES)


def test_what_the_caller_is_told_is_the_seed_s_but_for_who_calls() -> None:
    """An account that is unknown and one that is locked out are the same to whoever asks."""
    for error, _, _ in STATUSES:
        told = failure_of(error)
        expected = seed.failure_of(error, code=Code.APP_QUERY_METHOD_ERROR)
        if not isinstance(error, errors.AccountUnknown):
            assert told.msg == expected.msg
