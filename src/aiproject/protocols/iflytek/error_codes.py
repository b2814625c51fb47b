"""The vendor's error codes: their meaning and the recommended reaction, one table for each service.

The same number has different meanings in different services (10019 is a moderation warning of Spark and a session
time-out of dictation), so a code is always looked up together with its service.

Sources: iFlytek, 《星火认知大模型 Web API 文档》, 《接口错误码》 and 《图片理解 API 文档》 (Spark),
《语音听写（流式版）WebAPI 文档》 and 《方言识别大模型》 (dictation), the table 平台通用错误码 of the OCR documents.
Where a document recommends "retry once", ``retry`` is true; the number of attempts is a setting of the relay.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from aiproject.codes import Detail
from aiproject.errors import Reason, UpstreamRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Advice", "Problem", "Service", "quotable", "quote", "refusal"]

MAX_QUOTED: Final = 200
"""Characters of a vendor's message that are kept; real messages have a few dozen at most."""

_MAX_SID: Final = 64  # a session id has about 32 characters


class Service(StrEnum):
    """A family of vendor services that share one table of codes."""

    SPARK = "spark"
    """Text chat and image understanding over the Spark websocket."""

    DICTATION = "dictation"
    """Dictation, both the classic and the large-model protocol."""

    OCR = "ocr"
    """OCR over the platform's HTTP services."""


class Problem(StrEnum):
    """Who has to act on an error code; finer than `aiproject.errors.Reason`."""

    CONFIGURATION = "configuration"
    """Credentials, application id, model, address or allow-list: the operator must correct it."""

    VENDOR_QUOTA = "vendor_quota"
    """What the operator has bought or been granted is used up, or does not cover the call."""

    CAPACITY = "capacity"
    """The platform is busy, or the application exceeds its rate or its number of parallel calls."""

    MODERATION = "moderation"
    """The platform's content review refused the question, the picture or the answer."""

    INPUT_TOO_LONG = "input_too_long"
    """More text or audio than the service accepts: the user must shorten it."""

    INVALID_INPUT = "invalid_input"
    """The user's picture or audio cannot be used."""

    PROTOCOL = "protocol"
    """The platform does not accept our message: a defect of this program, or a setting out of its range."""

    SESSION = "session"
    """The session on the platform timed out or is over."""

    NETWORK = "network"
    """A connection failed: to the platform or inside it."""

    INTERNAL = "internal"
    """The platform failed internally."""


REASONS: Final[Mapping[Problem, Reason]] = MappingProxyType(
    {
        Problem.CONFIGURATION: Reason.NOT_ALLOWED,
        Problem.VENDOR_QUOTA: Reason.EXHAUSTED,
        Problem.CAPACITY: Reason.BUSY,
        Problem.MODERATION: Reason.MODERATED,
        Problem.INPUT_TOO_LONG: Reason.TOO_LONG,
        Problem.INVALID_INPUT: Reason.BAD_INPUT,
        Problem.PROTOCOL: Reason.BROKEN,
        Problem.SESSION: Reason.BROKEN,
        Problem.NETWORK: Reason.BROKEN,
        Problem.INTERNAL: Reason.BROKEN,
    }
)
"""The neutral reason for each of the platform's problems, which the rest of the program uses."""


class Advice(NamedTuple):
    """The meaning of one code and the recommended reaction.

    Attributes:
        problem: who has to act.
        retry: whether another attempt on a new connection may succeed; allowed only while nothing has reached the user.
        retry_delay: the shortest time in seconds before that attempt; the relay adds its own back-off.
        detail: the message for the user.
        en: the text for the operator, in English.
        shows_hint: whether the vendor's own message is meant for the user and may be displayed.
    """

    problem: Problem
    retry: bool
    retry_delay: float
    detail: Detail
    en: str
    shows_hint: bool


def _row(problem: Problem, detail: Detail, en: str, *, retry: float | None = None, shows_hint: bool = False) -> Advice:
    """``retry``: seconds to wait before another attempt; ``None`` if another attempt is pointless."""
    return Advice(problem, retry is not None, retry or 0.0, detail, en, shows_hint)


# The user's remedy is the same for every code of such a group, so the codes share one message.
_BUSY: Final = Detail.VENDOR_BUSY
_NETWORK: Final = Detail.VENDOR_CONNECTION_FAILED
_INTERNAL: Final = Detail.VENDOR_FAILED
_PROTOCOL: Final = Detail.VENDOR_REJECTED_REQUEST
_SESSION: Final = Detail.VENDOR_SESSION_TIMED_OUT
_DAILY: Final = Detail.VENDOR_DAILY_LIMIT_REACHED
_APP_ID: Final = Detail.VENDOR_APP_ID_WRONG

_SPARK: Final[dict[int, Advice]] = {
    10000: _row(Problem.NETWORK, _NETWORK, "The connection could not be upgraded to a websocket.", retry=0.0),
    10001: _row(Problem.NETWORK, _NETWORK, "The platform could not read our message from the socket.", retry=0.0),
    10002: _row(Problem.NETWORK, _NETWORK, "The platform could not send its answer to us."),
    10003: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_FORMAT_REJECTED,
        "The message's format is wrong; mostly the domain does not belong to the URL. Check both settings.",
    ),
    10004: _row(Problem.PROTOCOL, _PROTOCOL, "The message does not fit the platform's schema."),
    10005: _row(Problem.PROTOCOL, _PROTOCOL, "A parameter's value is outside its range."),
    10006: _row(
        Problem.CAPACITY,
        Detail.VENDOR_USER_CONNECTED_ELSEWHERE,
        "The same end user is connected elsewhere at this moment.",
        retry=1.0,
    ),
    10007: _row(
        Problem.CAPACITY,
        Detail.VENDOR_STILL_ANSWERING,
        "Traffic is limited: the previous question of this user is still being answered.",
        retry=1.0,
    ),
    10008: _row(Problem.CAPACITY, _BUSY, "The service has not enough capacity at this moment.", retry=0.5),
    10009: _row(Problem.NETWORK, _NETWORK, "The platform could not connect to its engine.", retry=0.0),
    10010: _row(Problem.CAPACITY, _BUSY, "The engine is busy or gave no answer to the platform.", retry=0.5),
    10011: _row(Problem.NETWORK, _NETWORK, "The platform could not send the question to its engine.", retry=0.0),
    10012: _row(Problem.INTERNAL, _INTERNAL, "The engine failed internally.", retry=0.5),
    10013: _row(
        Problem.MODERATION,
        Detail.VENDOR_QUESTION_REFUSED,
        "The question did not pass the platform's content review.",
        shows_hint=True,
    ),
    10014: _row(
        Problem.MODERATION,
        Detail.VENDOR_ANSWER_WITHHELD,
        "The answer did not pass the platform's content review; the rest is withheld and what came should be hidden.",
        shows_hint=True,
    ),
    10015: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_APP_BLOCKED,
        "The application id is on the platform's block list.",
    ),
    10016: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_MODEL_NOT_GRANTED,
        "The application is not authorised: service not opened, another version, or no tokens or concurrency granted.",
    ),
    10017: _row(Problem.INTERNAL, _INTERNAL, "The platform could not clear the conversation's history."),
    10018: _row(Problem.SESSION, _SESSION, "The connection lived on pings alone for five minutes and was ended."),
    10019: _row(
        Problem.MODERATION,
        Detail.VENDOR_DIALOG_WARNED,
        "The platform warns that the conversation tends toward a violation of its content rules.",
        shows_hint=True,
    ),
    10021: _row(
        Problem.MODERATION,
        Detail.VENDOR_QUESTION_SENSITIVE,
        "The question did not pass the platform's content review (second variant).",
    ),
    10022: _row(
        Problem.MODERATION,
        Detail.VENDOR_PICTURE_REFUSED,
        "The picture did not pass the platform's content review.",
    ),
    10029: _row(
        Problem.INVALID_INPUT,
        Detail.VENDOR_PICTURE_SIDE_TOO_LONG,
        "A side of the picture is longer than 12800 pixels.",
    ),
    10041: _row(
        Problem.INVALID_INPUT,
        Detail.VENDOR_PICTURE_RESOLUTION,
        "The picture's resolution is outside the platform's range (50 x 50 to 6000 x 6000).",
    ),
    10110: _row(Problem.CAPACITY, _BUSY, "The service is busy.", retry=0.5),
    10163: _row(Problem.PROTOCOL, _PROTOCOL, "The engine rejected the request's parameters."),
    10222: _row(Problem.NETWORK, _NETWORK, "The platform's network to its engine failed.", retry=0.0),
    10223: _row(Problem.NETWORK, _NETWORK, "The platform's load balancer found no engine node.", retry=0.5),
    10313: _row(Problem.CONFIGURATION, _APP_ID, "The application id is empty or does not belong to the API key."),
    10404: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_MODEL_UNKNOWN,
        "The platform has no route for the configured domain.",
    ),
    10907: _row(
        Problem.INPUT_TOO_LONG,
        Detail.VENDOR_DIALOG_TOO_LONG,
        "The dialog is over the model's token limit; shorten the history.",
    ),
    11200: _row(
        Problem.VENDOR_QUOTA,
        Detail.VENDOR_FEATURE_NOT_GRANTED,
        "The application has no authorisation for this model, or its total quota is used up.",
    ),
    11201: _row(Problem.VENDOR_QUOTA, _DAILY, "The application's daily limit is reached."),
    11202: _row(Problem.CAPACITY, Detail.VENDOR_TOO_MANY_REQUESTS, "The per-second limit is reached.", retry=1.0),
    11203: _row(
        Problem.CAPACITY, Detail.VENDOR_TOO_MANY_QUESTIONS, "The limit of parallel calls is reached.", retry=1.0
    ),
    11210: _row(
        Problem.VENDOR_QUOTA,
        Detail.VENDOR_CREDITS_EXHAUSTED,
        "The platform account has not enough credits.",
    ),
}

_DICTATION: Final[dict[int, Advice]] = {
    10005: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_SPEECH_LICENCE_REFUSED,
        "The licence check of the application id failed.",
    ),
    10006: _row(Problem.PROTOCOL, _PROTOCOL, "A parameter is missing or invalid, for example the sample rate."),
    10007: _row(Problem.PROTOCOL, _PROTOCOL, "A parameter's value is illegal."),
    10009: _row(Problem.INVALID_INPUT, Detail.VENDOR_SPEECH_UNRECOGNISABLE, "The input data is illegal."),
    10010: _row(Problem.CAPACITY, _BUSY, "The engine's licences are all in use.", retry=1.0),
    10014: _row(Problem.SESSION, _SESSION, "The session timed out.", retry=0.0),
    10019: _row(Problem.SESSION, _SESSION, "The session timed out while the service waited for data.", retry=0.0),
    10043: _row(
        Problem.INVALID_INPUT,
        Detail.VENDOR_AUDIO_NOT_DECODED,
        "The sound could not be decoded: another encoding, or a wrong Speex frame size.",
    ),
    10044: _row(
        Problem.INVALID_INPUT,
        Detail.VENDOR_AUDIO_NOT_RESAMPLED,
        "The sound could not be resampled.",
    ),
    10047: _row(Problem.PROTOCOL, _PROTOCOL, "The message's JSON has the wrong form."),
    10050: _row(
        Problem.INTERNAL, _INTERNAL, "The platform gave code 10050, which its documents do not explain.", retry=0.0
    ),
    10101: _row(
        Problem.SESSION,
        Detail.VENDOR_SPEECH_OVER,
        "The engine's session is already over; sound that came later was not used. Not an error if there is a result.",
    ),
    10109: _row(Problem.INVALID_INPUT, Detail.VENDOR_SPEECH_INVALID, "The sound data is illegal."),
    10110: _row(Problem.CAPACITY, _BUSY, "The engine has no licence left for this call.", retry=1.0),
    10114: _row(
        Problem.INPUT_TOO_LONG, Detail.VENDOR_SPEECH_TOO_LONG, "The session was longer than 60 s; split the sound."
    ),
    10139: _row(Problem.PROTOCOL, _PROTOCOL, "A parameter is wrong."),
    10160: _row(Problem.PROTOCOL, _PROTOCOL, "The message is not valid JSON."),
    10161: _row(Problem.PROTOCOL, _PROTOCOL, "The sound's Base64 is invalid."),
    10163: _row(Problem.PROTOCOL, _PROTOCOL, "A parameter is missing or out of its range."),
    10164: _row(Problem.INTERNAL, _INTERNAL, "The platform could not map its engine's response.", retry=0.0),
    10165: _row(
        Problem.PROTOCOL,
        _PROTOCOL,
        "The handle is invalid: the first frame was not marked as first, or the session was over.",
    ),
    10200: _row(Problem.SESSION, _SESSION, "No sound reached the platform for 10 s.", retry=0.0),
    10222: _row(
        Problem.NETWORK,
        _NETWORK,
        "The platform's network to its engine failed, or too much data was sent.",
        retry=0.0,
    ),
    10223: _row(Problem.NETWORK, _NETWORK, "The platform's load balancer found no engine node.", retry=0.5),
    10303: _row(Problem.PROTOCOL, _PROTOCOL, "A parameter's value is not well formed."),
    10313: _row(Problem.CONFIGURATION, _APP_ID, "The application id is empty or does not belong to the API key."),
    10317: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_SPEECH_VERSION_WRONG,
        "The version of the service is illegal.",
    ),
    10404: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_LANGUAGE_UNKNOWN,
        "The platform has no route for the configured language and domain.",
    ),
    10500: _row(Problem.INTERNAL, _INTERNAL, "The platform failed internally (routine ended).", retry=0.0),
    10600: _row(Problem.INTERNAL, _INTERNAL, "The platform failed internally (empty event).", retry=0.0),
    10700: _row(Problem.INTERNAL, _INTERNAL, "The engine timed out or failed.", retry=0.0),
    11200: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_SPEECH_NOT_GRANTED,
        "The application has no licence for the function, language or domain.",
    ),
    11201: _row(Problem.VENDOR_QUOTA, _DAILY, "The application's daily limit is reached."),
    11202: _row(Problem.CAPACITY, Detail.VENDOR_TOO_MANY_REQUESTS, "The per-second limit is reached.", retry=1.0),
    11203: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_SPEECH_LICENCE_EXPIRED,
        "The application's licence has expired.",
    ),
    11502: _row(Problem.INTERNAL, _INTERNAL, "The service is configured wrongly on the platform.", retry=0.5),
    11503: _row(Problem.INTERNAL, _INTERNAL, "The platform's engine gave an empty answer.", retry=0.5),
}

_OCR: Final[dict[int, Advice]] = {
    10003: _row(Problem.INTERNAL, _INTERNAL, "The platform could not start the service's operation.", retry=0.0),
    10004: _row(Problem.INTERNAL, _INTERNAL, "The platform reports an invalid session mode."),
    10008: _row(Problem.INTERNAL, _INTERNAL, "The platform's service instance is invalid.", retry=0.0),
    10009: _row(
        Problem.INVALID_INPUT,
        Detail.VENDOR_PICTURE_UNRECOGNISABLE,
        "The input is illegal: not a picture, or a damaged one.",
    ),
    10010: _row(Problem.VENDOR_QUOTA, Detail.VENDOR_OCR_LICENCES_USED_UP, "The service's licences are used up."),
    10019: _row(
        Problem.SESSION, _SESSION, "The session timed out while reading; happens with large pictures.", retry=0.0
    ),
    10043: _row(Problem.INVALID_INPUT, Detail.VENDOR_FILE_NOT_DECODED, "The input could not be decoded as sound."),
    10101: _row(Problem.SESSION, Detail.VENDOR_OCR_OVER, "The engine's session is already over."),
    10105: _row(Problem.CONFIGURATION, Detail.VENDOR_KEY_WRONG, "The credentials are wrong."),
    10114: _row(Problem.SESSION, _SESSION, "The session timed out.", retry=0.0),
    10118: _row(Problem.INTERNAL, _INTERNAL, "The platform could not parse its engine's answer.", retry=0.0),
    10139: _row(Problem.PROTOCOL, _PROTOCOL, "A parameter is wrong."),
    10160: _row(Problem.PROTOCOL, _PROTOCOL, "The body is not valid JSON."),
    10161: _row(Problem.PROTOCOL, _PROTOCOL, "The picture's Base64 is invalid."),
    10163: _row(
        Problem.INVALID_INPUT,
        Detail.VENDOR_PICTURE_CHECK_FAILED,
        "A parameter did not pass the platform's check; the picture is empty or too large.",
    ),
    10200: _row(Problem.SESSION, _SESSION, "The platform timed out while reading data.", retry=0.0),
    10221: _row(Problem.NETWORK, _NETWORK, "The platform has no usable connection to its engine.", retry=0.5),
    10222: _row(
        Problem.NETWORK,
        _NETWORK,
        "The platform found no engine node in time, or the upload is over the service's limit.",
        retry=0.5,
    ),
    10223: _row(Problem.NETWORK, _NETWORK, "The platform's load balancer found no engine node.", retry=0.5),
    10225: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_OCR_UNKNOWN,
        "The platform does not find the service; check the URL's last path element.",
    ),
    10300: _row(Problem.INTERNAL, _INTERNAL, "The platform's ordering buffer was empty.", retry=0.0),
    10301: _row(Problem.INTERNAL, _INTERNAL, "The platform's ordering channel was already closed.", retry=0.0),
    10313: _row(Problem.CONFIGURATION, _APP_ID, "The application id is empty or does not belong to the API key."),
    10317: _row(
        Problem.CONFIGURATION,
        Detail.VENDOR_OCR_VERSION_WRONG,
        "The version of the service is illegal.",
    ),
    10400: _row(Problem.INTERNAL, _INTERNAL, "The platform could not pack an internal message.", retry=0.0),
    10401: _row(Problem.INTERNAL, _INTERNAL, "The platform could not unpack an internal message.", retry=0.0),
    10500: _row(Problem.INTERNAL, _INTERNAL, "The platform failed internally (routine ended).", retry=0.0),
    10600: _row(Problem.INTERNAL, _INTERNAL, "The platform failed internally (empty event).", retry=0.0),
    10700: _row(Problem.INTERNAL, _INTERNAL, "The engine failed, or the application may not use it."),
    11200: _row(
        Problem.VENDOR_QUOTA,
        Detail.VENDOR_OCR_NOT_GRANTED,
        "The service is not opened, has expired, or its total quota is used up.",
    ),
    11201: _row(Problem.VENDOR_QUOTA, _DAILY, "The application's daily limit is reached."),
    11202: _row(Problem.CAPACITY, Detail.VENDOR_TOO_MANY_REQUESTS, "The per-second limit is reached.", retry=1.0),
    11203: _row(
        Problem.CAPACITY, Detail.VENDOR_TOO_MANY_PICTURES, "The limit of parallel calls is reached.", retry=1.0
    ),
    11502: _row(Problem.INTERNAL, _INTERNAL, "The service is configured wrongly on the platform.", retry=0.5),
    11503: _row(Problem.INTERNAL, _INTERNAL, "The platform's engine gave a bad answer.", retry=0.5),
    # One block of codes with one text, WrapperInitErr.
    **dict.fromkeys(
        range(100001, 100011),
        _row(Problem.INTERNAL, _INTERNAL, "The platform's call of its engine failed.", retry=0.0),
    ),
}

TABLES: Final[Mapping[Service, Mapping[int, Advice]]] = MappingProxyType(
    {Service.SPARK: _SPARK, Service.DICTATION: _DICTATION, Service.OCR: _OCR}
)

# Not retried: a code that no document lists may already have been billed.
_UNLISTED: Final = _row(
    Problem.INTERNAL, Detail.VENDOR_CODE_UNKNOWN, "The platform gave a code that its documents do not list."
)


def advise(service: Service, code: int) -> Advice:
    """Return the meaning of ``code`` in ``service``; an unlisted code is an internal error without another attempt."""
    return TABLES[service].get(code, _UNLISTED)


def quotable(text: str, limit: int = MAX_QUOTED) -> str:
    """Make untrusted text safe for a log line or a screen: one line, no control characters, at most ``limit`` long.

    Characters that control a terminal or the direction of writing are removed, and so are lone surrogates, which cannot
    be encoded downstream.
    """
    if len(text) <= limit and text.isascii() and text.isprintable() and "  " not in text:  # session ids, most messages
        return text.strip()
    # Truncated first, which bounds the work; the factor leaves a reserve for the characters that are then removed.
    kept = [
        " " if character.isspace() or unicodedata.category(character) == "Cc" else character
        for character in text[: 4 * limit]
        if unicodedata.category(character) not in ("Cf", "Cs", "Cn", "Co")
    ]
    return " ".join("".join(kept).split())[:limit].rstrip()


# The parts of a signed address in any notation: a query, a name with its value (also percent-encoded or escaped as in
# JSON), and a run of Base64 longer than any word, such as a signature (44 characters).
_QUERY: Final = re.compile(r"""\?[^\s"'<>]*(?:=|%3[dD])[^\s"'<>]*""")
_NAMED_SECRET: Final = re.compile(
    r"""\b(authorization|api[_-]?key|api[_-]?secret|signature|date|host)\b"""
    r"""(\\?["']?\s*(?:=|:|%3[dD]|\\u003[dD])\s*\\?["']?)"""
    r"""(?:[A-Z][a-z]{2},[ +][0-9A-Za-z: +]{16,24}(?:GMT|UTC)|[^\s&"'<>,;\\]+)""",
    re.IGNORECASE,
)
_LONG_RUN: Final = re.compile(r"(?=[A-Za-z+/%_=-]*[0-9])(?=[a-z0-9+/%_=-]*[A-Z])[A-Za-z0-9+/%_=-]{40,}")
_LAST_WORD: Final = re.compile(r"\S*\Z")
_QUOTED_FROM: Final = 8 * MAX_QUOTED  # characters of a message that are examined


def redact(text: str) -> str:
    """Replace the parts of our signed addresses in untrusted text by an ellipsis.

    For text that may repeat our request: gateways echo the request line, and a signed address is valid for 300 s.
    """
    text = _QUERY.sub("?…", text)
    text = _NAMED_SECRET.sub(r"\1\2…", text)
    return _LONG_RUN.sub("…", text)


def quote(text: str) -> str:
    """Make a vendor's message safe for a log line or a screen: `redact` and `quotable`, at most `MAX_QUOTED` long."""
    if len(text) > _QUOTED_FROM:
        # A secret that is cut in two would not match the patterns, so the cut removes the whole last word.
        text = _LAST_WORD.sub("…", text[:_QUOTED_FROM])
    return quotable(redact(text))


def refusal(service: Service, code: int, message: str, sid: str | None) -> UpstreamRefused:
    """Return the exception for an error code.

    ``detail`` quotes the code and the vendor's message, bounded. Only where the documents allow it to be displayed
    (`Advice.shows_hint`) does the message become the ``hint``. ``detail`` then omits it, because a moderation hint is
    addressed to the user and may repeat what the user wrote.

    Args:
        message: the vendor's text as received, of any length and content.
        sid: the vendor's session id.
    """
    advice = advise(service, code)
    quoted = quote(message)
    said = advice.en if advice.shows_hint or not quoted else quoted
    return UpstreamRefused(
        f"{service} refused with code {code}: {said}",
        reason=REASONS[advice.problem],
        code=code,
        sid=(quotable(sid, _MAX_SID) or None) if sid else None,
        hint=quoted if advice.shows_hint else "",
        advice=advice.detail,
        retryable=advice.retry,
        retry_delay=advice.retry_delay,
    )
