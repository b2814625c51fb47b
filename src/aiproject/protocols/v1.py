"""The dialect of ``/v1/…``: the seed's shapes, with the status that HTTP has for each case.

The seed's own addresses answer 200 to most refusals, for the sake of apps that look no further at any other status.
Nothing of the kind calls ``/v1``, so there a refusal is told by its status as well: 400, 401, 403, 404, 409, 429.
"""

from __future__ import annotations

from aiproject import errors
from aiproject.codes import Code
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols import legacy as seed

__all__ = ["failure_of"]


def failure_of(
    error: BaseException, *, code: Code = Code.APP_QUERY_METHOD_ERROR, language: Language = Language.ZH
) -> seed.Failure:
    """Return how ``/v1`` renders ``error``.

    Args:
        code: what the endpoint calls a failure that has no code of its own.
        language: of the reader.
    """
    failure = seed.failure_of(error, code=code, language=language)
    match error:
        case errors.AccountUnknown():
            return seed.Failure(401, Code.NOT_SIGNED_IN, format_message(Code.NOT_SIGNED_IN, language))
        case errors.LoginFailed():
            status = 401
        case errors.NameTaken() | errors.VoucherRedeemed():
            status = 409
        case errors.RegistrationClosed():
            status = 403
        case errors.QuotaExhausted():
            status = 402
        case errors.UpstreamFailed():
            status = 502
        case errors.Refused() if failure.status == 200:
            status = 400
        case _:
            return failure
    return failure._replace(status=status)
