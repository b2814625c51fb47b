"""The dialect of ``/v1/…``: the legacy form with HTTP's status for each case, in the reader's language.

The legacy addresses answer most refusals with 200, because existing apps read no body with any other status. None of
these apps calls ``/v1``, so here the status also indicates the failure: 400, 401, 403, 404, 409, 429. The language is
the one that ``Accept-Language`` prefers, Chinese without the field.
"""

from __future__ import annotations

from aiproject import errors
from aiproject.codes import Code
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols import legacy
from aiproject.protocols.dialects import ErrorAnswer, FailedRequest
from aiproject.protocols.languages import preferred_language

__all__ = ["UsageDialect", "V1Dialect", "failure_of", "language_headers"]


def failure_of(
    error: BaseException, *, code: Code = Code.APP_QUERY_METHOD_ERROR, language: Language = Language.ZH
) -> legacy.Failure:
    """Return the form of ``error`` under ``/v1``.

    Args:
        code: the endpoint's code for failures without a code of their own.
        language: the language of the reader.
    """
    failure = legacy.failure_of(error, code=code, language=language)
    match error:
        case errors.AccountUnknown():
            return legacy.Failure(401, Code.NOT_SIGNED_IN, format_message(Code.NOT_SIGNED_IN, language))
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


def language_headers(language: Language) -> tuple[tuple[str, str], ...]:
    """Return the header fields of a response whose language depends on the request (RFC 9110, 8.5 and 12.5.5)."""
    return ("Content-Language", str(language)), ("Vary", "Accept-Language")


class V1Dialect:
    """The responses of ``/v1/…`` to errors. Implements `Dialect`."""

    prefix = "/v1/"

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        """Implements `Dialect.render`."""
        language = preferred_language(request.accept_language)
        failure = self.failure(error, language)
        headers = tuple((name.lower().encode(), value.encode()) for name, value in language_headers(language))
        return ErrorAnswer(failure.status, legacy.json_bytes(failure.body()), str(failure.code), headers=headers)

    def failure(self, error: BaseException, language: Language) -> legacy.Failure:
        """Return the form of an error in a language."""
        return failure_of(error, language=language)


class UsageDialect(V1Dialect):
    """The responses of ``/v1/usage`` to errors. It predates the rest of ``/v1`` and has the legacy statuses."""

    prefix = "/v1/usage"

    def failure(self, error: BaseException, language: Language) -> legacy.Failure:
        """Return the form of an error in a language."""
        return legacy.failure_of(error, language=language)
