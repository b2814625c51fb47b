"""The tree of errors. Imports nothing of this package but `aiproject.codes`.

A branch stands for each remedy that a caller can choose, not for each line that may fail::

    AiProjectError
    ├── Refused                        we say no; the caller can change something
    │   ├── InvalidInput               a field is missing or malformed
    │   ├── NameTaken                  another account has this name
    │   ├── LoginFailed                unknown name or wrong password (never says which)
    │   ├── AccountUnknown             uuid and name do not belong together, or the account is disabled
    │   ├── RegistrationClosed         the operator takes no new accounts
    │   ├── NotSignedIn                no credential, or one that is unknown, expired or revoked (never says which)
    │   ├── NotAllowed                 the credential is good, but not for this
    │   ├── NotFound                   no such thing of this account; never says whether another's has this id
    │   ├── QuotaExhausted             not enough tokens, picture times or voice seconds
    │   │   └── QuotaBusy              enough of them, and held by other running calls of the account
    │   ├── SpendLimitReached          the API key may not spend as much, whatever its account has
    │   ├── FileMissing                no bytes, or no multipart field ``file``
    │   ├── UnusableFile               not a picture, not audio, too long, too many pixels
    │   ├── BodyTooLarge               the request body is over the limit of its endpoint
    │   ├── BodyTooSlow                the request body stopped coming, or comes too slowly
    │   ├── BodyEncoded                the request body is compressed or otherwise encoded
    │   ├── VoucherUnusable            unknown, switched off, expired, used up or for others (never says which)
    │   ├── VoucherRedeemed            the account has redeemed it already
    │   ├── ModelUnknown               no model has this public name
    │   ├── ReceiptUnknown             no such call of this account
    │   ├── TooManyRequests            slow down; ``retry_after`` tells when to come back
    │   └── HttpFault                  what HTTP itself does not allow: an unknown address, a malformed head
    ├── UpstreamFailed                 the vendor's fault, or the way to it; nothing is charged
    │   ├── UpstreamUnreachable        no connection, or the handshake was refused
    │   ├── UpstreamRefused            the vendor answered with an error code
    │   ├── UpstreamTimeout            a time limit ran out; ``phase`` says which
    │   ├── UpstreamTruncated          the connection ended before the answer did
    │   └── UpstreamProtocolViolation  a message that the protocol does not allow
    ├── Unavailable                    we cannot serve now: database away, or shutting down
    └── Misconfigured                  the operator must fix something; said at start or by ``doctor``

An exception is data: a code, a precise reason, limits, seconds; never a sentence, a ready-made HTTP answer or a secret.
`aiproject.messages` makes sentences of it, dialects (`aiproject.protocols.dialects`) HTTP answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from aiproject.codes import Code, Detail, Param
from aiproject.meters import Meter

__all__ = [
    "AccountUnknown",
    "AiProjectError",
    "BodyEncoded",
    "BodyTooLarge",
    "BodyTooSlow",
    "FileMissing",
    "HttpFault",
    "InvalidInput",
    "LoginFailed",
    "Misconfigured",
    "ModelUnknown",
    "NameTaken",
    "NotAllowed",
    "NotFound",
    "NotSignedIn",
    "QuotaBusy",
    "QuotaExhausted",
    "Reason",
    "ReceiptUnknown",
    "Refused",
    "RegistrationClosed",
    "SpendLimitReached",
    "TooManyRequests",
    "Unavailable",
    "UnusableFile",
    "UpstreamFailed",
    "UpstreamProtocolViolation",
    "UpstreamRefused",
    "UpstreamTimeout",
    "UpstreamTruncated",
    "UpstreamUnreachable",
    "VoucherRedeemed",
    "VoucherUnusable",
]


_NO_PARAMS: Final[Mapping[str, Param]] = MappingProxyType({})


class AiProjectError(Exception):
    """Base class of all errors that this package raises.

    Attributes:
        answer_code: the code of the failure in responses; ``None``: the endpoint supplies it.
        params: the values for the placeholders of its message, by name.
    """

    answer_code: Code | None = None
    params: Mapping[str, Param] = _NO_PARAMS


# -- refusals ----------------------------------------------------------------------------------------------------------


class Refused(AiProjectError):
    """A refusal that the caller can resolve by changing something.

    Args:
        detail: the precise reason; ``None``: the class and its code determine it.
        params: the values for the placeholders of the message of ``detail``; no secrets.
    """

    def __init__(self, detail: Detail | None = None, /, **params: Param) -> None:
        super().__init__(_describe(type(self).__name__, detail, params))
        self.detail = detail
        self.params = params


class InvalidInput(Refused):
    """A field is missing or malformed."""


class NameTaken(Refused):
    """Another account has this name."""

    answer_code = Code.USER_NAME_REPEAT


class LoginFailed(Refused):
    """Unknown name or wrong password; it does not reveal which."""

    answer_code = Code.LOGIN_ERROR


class AccountUnknown(Refused):
    """uuid and name do not belong together, or the account is disabled."""

    answer_code = Code.USER_NOT_FOUND


class RegistrationClosed(Refused):
    """The operator accepts no new accounts."""

    answer_code = Code.REGISTRATION_CLOSED


class NotSignedIn(Refused):
    """No credential, or one that is unknown, expired or revoked; it does not reveal which."""

    answer_code = Code.NOT_SIGNED_IN


class NotAllowed(Refused):
    """The credential is valid, but does not permit this: another role, another capability, another address."""

    answer_code = Code.PERMISSION_NOT_ALLOW


class NotFound(Refused):
    """The account has no such item; it does not reveal whether another account has one with this id."""

    answer_code = Code.ITEM_NOT_FOUND


class QuotaExhausted(Refused):
    """The account's quota is insufficient.

    Args:
        capability: the name of a meter, see `aiproject.meters`.
    """

    def __init__(self, capability: str, detail: Detail | None = None) -> None:
        super().__init__(detail)
        self.capability = capability
        self.answer_code = Meter(capability).spec.exhausted


class QuotaBusy(QuotaExhausted):
    """The account's quota is sufficient, but other running calls of the account hold too much of it."""

    def __init__(self, capability: str) -> None:
        super().__init__(capability, Detail.QUOTA_BUSY)


class SpendLimitReached(Refused):
    """The API key may not spend this much, whatever its account has.

    Args:
        capability: the name of a meter, see `aiproject.meters`.
        retry_after: seconds until the key's next day begins; ``None``: the limit applies to the key's whole life.
    """

    answer_code = Code.KEY_LIMIT_REACHED

    def __init__(self, capability: str, *, retry_after: int | None = None) -> None:
        super().__init__()
        self.capability = capability
        self.retry_after = retry_after


class FileMissing(Refused):
    """The request holds no bytes, or no multipart field ``file``."""

    answer_code = Code.GET_FILE_FAIL


class UnusableFile(Refused):
    """The bytes are not what the endpoint reads, or more than it accepts."""

    answer_code = Code.FILE_FORMAT_ILLEGAL


class BodyTooLarge(Refused):
    """The request body is larger than its endpoint allows.

    Args:
        limit: the limit in bytes.
    """

    answer_code = Code.REQUEST_TOO_LARGE

    def __init__(self, limit: int) -> None:
        super().__init__(Detail.BODY_OVER_LIMIT, megabytes=limit / 1024 / 1024)
        self.limit = limit


_HTTP_CODES: Final = {
    404: Code.APP_NOT_FOUND_ERROR,
    405: Code.METHOD_NOT_ALLOWED,
    408: Code.REQUEST_TIMEOUT,
    413: Code.REQUEST_TOO_LARGE,
    415: Code.UNSUPPORTED_ENCODING,
    429: Code.TOO_MANY_REQUESTS,
    500: Code.APP_INTERNAL_ERROR,
    503: Code.SERVICE_UNAVAILABLE,
}


class BodyTooSlow(Refused):
    """The request body has stopped arriving, or arrives too slowly; the connection is closed."""

    answer_code = Code.REQUEST_TIMEOUT


class BodyEncoded(Refused):
    """The request body is compressed or otherwise encoded, which is not supported."""

    answer_code = Code.UNSUPPORTED_ENCODING


class VoucherUnusable(Refused):
    """The voucher is unknown, disabled, expired, used up or for other accounts; it does not reveal which."""

    answer_code = Code.TOKEN_NOT_FOUNDUSER_NOT_FOUND


class VoucherRedeemed(Refused):
    """The account has redeemed the voucher already."""

    answer_code = Code.TOKEN_ALREADY_GET


class ModelUnknown(Refused):
    """No model has this public name.

    Args:
        model: the name, as far as it is shown.
    """

    answer_code = Code.MODEL_NOT_FOUND

    def __init__(self, model: str) -> None:
        super().__init__(Detail.MODEL_UNKNOWN, model=model)


class ReceiptUnknown(Refused):
    """The account has no such call; it does not reveal whether another account has one with this id."""

    answer_code = Code.RECEIPT_NOT_FOUND


class TooManyRequests(Refused):
    """The caller exceeds a rate limit.

    Args:
        retry_after: seconds until the next call may succeed, at least 1.
    """

    answer_code = Code.TOO_MANY_REQUESTS

    def __init__(self, retry_after: int, detail: Detail | None = None) -> None:
        super().__init__(detail)
        self.retry_after = max(1, retry_after)


class HttpFault(Refused):
    """A request that violates HTTP itself, refused before any endpoint has seen it.

    Args:
        status: the HTTP status: 400, 404, 405, 431, …
        headers: header fields that the status requires, such as ``Allow`` (RFC 9110, section 15.5.6).
    """

    def __init__(self, status: int, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__()
        self.status = status
        self.headers = headers
        self.answer_code = _HTTP_CODES.get(status, Code.APP_QUERY_METHOD_ERROR)


# -- failures of the vendor --------------------------------------------------------------------------------------------


class Reason(StrEnum):
    """Why a provider did not answer, in terms that every provider shares.

    A provider translates its own error codes into these. Settlement, routing and each API's error format depend on
    the reason alone, so that none of them has to know a vendor's numbers.
    """

    MODERATED = "moderated"
    """The provider's content review stopped the question, the picture or the answer."""

    BUSY = "busy"
    """The provider is over its capacity, or the operator's application exceeds its rate."""

    EXHAUSTED = "exhausted"
    """What the operator bought from the provider is used up, or does not cover the call."""

    NOT_ALLOWED = "not allowed"
    """Credentials, application, model or address are refused: the operator must correct the configuration."""

    TOO_LONG = "too long"
    """More text, audio or picture than the model accepts."""

    BAD_INPUT = "bad input"
    """The provider cannot use what the caller sent."""

    UNREACHABLE = "unreachable"
    """No connection, or the handshake was refused."""

    TIMED_OUT = "timed out"
    """A time limit expired."""

    TRUNCATED = "truncated"
    """The connection ended before the answer did."""

    BROKEN = "broken"
    """The provider failed internally, or violated its protocol."""

    @property
    def is_callers(self) -> bool:
        """Whether the caller's input is the cause: no other route would answer it, and no provider has failed."""
        return self in (Reason.MODERATED, Reason.TOO_LONG, Reason.BAD_INPUT)


class UpstreamFailed(AiProjectError):
    """The provider failed, or the connection to it did. Nothing is charged.

    Args:
        detail: English text for the log; may quote the vendor, but contains no secret and no signed URL.
        reason: the reason; ``None``: the one of the class.
        code: the vendor's error code, if there is one.
        sid: the vendor's session id, if there is one.
        hint: the vendor's own message for the user, only where the vendor's documents allow it to be displayed.
        advice: the message for the user; ``None``: the one of the class, if any.
        retryable: whether another attempt on a new connection may succeed. There is none after something has reached
            the caller.
        retry_delay: the shortest time in seconds before that attempt.
    """

    reason = Reason.BROKEN
    advice: Detail | None = None

    def __init__(
        self,
        detail: str = "",
        *,
        reason: Reason | None = None,
        code: int | None = None,
        sid: str | None = None,
        hint: str = "",
        advice: Detail | None = None,
        retryable: bool = False,
        retry_delay: float = 0.0,
    ) -> None:
        super().__init__(detail or type(self).__name__)
        if reason is not None:
            self.reason = reason
        if advice is not None:
            self.advice = advice
        self.detail = detail
        self.code = code
        self.sid = sid
        self.hint = hint
        self.retryable = retryable
        self.retry_delay = retry_delay

    @property
    def may_reroute(self) -> bool:
        """Whether another provider or model may answer the same request."""
        return not self.reason.is_callers


class UpstreamUnreachable(UpstreamFailed):
    """There is no connection to the vendor, or its gateway refused the handshake.

    Args:
        status: the HTTP status of a refused handshake.
        server_date: the value of the refusal's ``Date`` header, which reveals whether our clock is off.
    """

    reason = Reason.UNREACHABLE
    advice = Detail.UPSTREAM_NOT_REACHED

    def __init__(
        self,
        detail: str = "",
        *,
        status: int | None = None,
        server_date: str | None = None,
        retryable: bool = False,
    ) -> None:
        # RFC 9110, sections 15.5.2 and 15.5.4: the credentials are at fault, which another attempt cannot resolve.
        refused = Reason.NOT_ALLOWED if status in (401, 403) else None
        super().__init__(detail, reason=refused, retryable=retryable)
        self.status = status
        self.server_date = server_date


class UpstreamRefused(UpstreamFailed):
    """The vendor answered with an error code."""


class UpstreamTimeout(UpstreamFailed):
    """A time limit expired while waiting for the vendor.

    Args:
        phase: ``connect``, ``first frame``, ``gap`` or ``call``.
        seconds: the limit that expired.
    """

    reason = Reason.TIMED_OUT
    advice = Detail.UPSTREAM_TIMED_OUT

    def __init__(self, phase: str, seconds: float, *, sid: str | None = None, retryable: bool = False) -> None:
        super().__init__(f"no word from upstream: {phase} limit of {seconds:g} s", sid=sid, retryable=retryable)
        self.phase = phase
        self.seconds = seconds


class UpstreamTruncated(UpstreamFailed):
    """The connection ended before the answer did, without an error frame."""

    reason = Reason.TRUNCATED
    advice = Detail.UPSTREAM_CUT_OFF


class UpstreamProtocolViolation(UpstreamFailed):
    """The vendor sent a message that the protocol does not allow: not JSON, implausible numbers, too large."""

    advice = Detail.UPSTREAM_NOT_UNDERSTOOD


# -- failures of our own -----------------------------------------------------------------------------------------------


class Unavailable(AiProjectError):
    """The server cannot serve the request at the moment; nothing was done and nothing was charged.

    Args:
        detail: text for the log.
        retry_after: seconds after which another attempt makes sense.
    """

    answer_code = Code.SERVICE_UNAVAILABLE

    def __init__(self, detail: str, *, retry_after: int = 5) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class Misconfigured(AiProjectError):
    """The operator must correct something; raised at start, by commands and by ``doctor``.

    Args:
        detail: what is wrong, and how to correct it.
        params: the values for the placeholders of the message of ``detail``; no secrets.
    """

    answer_code = Code.APP_INTERNAL_ERROR

    def __init__(self, detail: Detail | None = None, /, **params: Param) -> None:
        super().__init__(_describe(type(self).__name__, detail, params))
        self.detail = detail
        self.params = params


def _describe(kind: str, detail: Detail | None, params: Mapping[str, Param]) -> str:
    """Return the form of an error in the log: its reason and parameters, or the name of its class."""
    return " ".join((detail or kind, *(f"{name}={_plain(value)!r}" for name, value in params.items())))


def _plain(value: Param) -> Param:
    return str(value) if isinstance(value, str) else value  # a member of an enumeration is reduced to its value
