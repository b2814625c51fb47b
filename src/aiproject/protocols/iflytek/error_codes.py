"""What the vendor's error codes mean, and what to do about each: one table for each service.

The same number means different things in different services (10019 is a moderation warning of Spark and a session
time-out of dictation), so a code is never looked up without its service.

Sources: iFlytek, 《星火认知大模型 Web API 文档》, 《接口错误码》 and 《图片理解 API 文档》 (Spark),
《语音听写（流式版）WebAPI 文档》 and 《方言识别大模型》 (dictation), the table 平台通用错误码 of the OCR documents.
Where a document recommends "retry once", ``retry`` is true: how often, the relay decides.
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
"""Characters of a vendor's message that are kept; the real ones have at most some dozens."""

_MAX_SID: Final = 64  # a session id has about 32 characters


class Service(StrEnum):
    """A family of vendor services that shares one table of codes."""

    SPARK = "spark"
    """Text chat and image understanding over the Spark websocket."""

    DICTATION = "dictation"
    """Dictation, the classic one and the large-model one."""

    OCR = "ocr"
    """Picture text over the platform's HTTP services."""


class Problem(StrEnum):
    """Who has to act on an error code, more finely than `aiproject.errors.Reason`."""

    CONFIGURATION = "configuration"
    """Credentials, application id, model, address or allow-list: the operator must mend it."""

    VENDOR_QUOTA = "vendor_quota"
    """What the operator has bought or been granted is used up or does not cover the call."""

    CAPACITY = "capacity"
    """The platform is busy, or the application is over its rate or its number of parallel calls."""

    MODERATION = "moderation"
    """The question, the picture or the answer was refused by the platform's content review."""

    INPUT_TOO_LONG = "input_too_long"
    """More text or sound than the service takes: the person must shorten it."""

    INVALID_INPUT = "invalid_input"
    """The person's picture or sound cannot be used."""

    PROTOCOL = "protocol"
    """The platform does not accept the message we made: a defect of ours, or a setting out of its range."""

    SESSION = "session"
    """The session on the platform ran out or is over."""

    NETWORK = "network"
    """A connection failed: to the platform or inside it."""

    INTERNAL = "internal"
    """The platform failed for reasons of its own."""


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
"""What the platform's problems are to everybody else."""


class Advice(NamedTuple):
    """What one code means and what to do.

    Attributes:
        problem: whose matter it is.
        retry: a new try on a new connection may succeed; only while nothing has reached the person who asked.
        retry_delay: seconds to wait at least before that try; the relay adds its own back-off.
        detail: what the person at the app is told.
        en: what the operator reads, in English.
        shows_hint: the vendor's own message is meant for the person and may be shown.
    """

    problem: Problem
    retry: bool
    retry_delay: float
    detail: Detail
    en: str
    shows_hint: bool


def _row(problem: Problem, detail: Detail, en: str, *, retry: float | None = None, shows_hint: bool = False) -> Advice:
    """``retry``: seconds to wait before a new try, ``None`` where a new try is of no use."""
    return Advice(problem, retry is not None, retry or 0.0, detail, en, shows_hint)


# What a person can do about these is the same whichever code it was, so they share their sentence.
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

# Not retried: nothing tells whether a code that no document lists has already cost something.
_UNLISTED: Final = _row(
    Problem.INTERNAL, Detail.VENDOR_CODE_UNKNOWN, "The platform gave a code that its documents do not list."
)


def advise(service: Service, code: int) -> Advice:
    """What ``code`` means in ``service``; for a code that no document lists, an internal error without a new try."""
    return TABLES[service].get(code, _UNLISTED)


def quotable(text: str, limit: int = MAX_QUOTED) -> str:
    """Make a stranger's text fit for a log line or a screen: one line, no control characters, at most ``limit`` long.

    Characters that steer a terminal or the direction of writing are left out, and so are lone surrogates, which
    nothing downstream could encode.
    """
    if len(text) <= limit and text.isascii() and text.isprintable() and "  " not in text:  # session ids, most messages
        return text.strip()
    # Cut first, so that the work is bounded too; a factor is left for what is then thrown out.
    kept = [
        " " if character.isspace() or unicodedata.category(character) == "Cc" else character
        for character in text[: 4 * limit]
        if unicodedata.category(character) not in ("Cf", "Cs", "Cn", "Co")
    ]
    return " ".join("".join(kept).split())[:limit].rstrip()


# What a signed address is made of, however a stranger writes it: a query, a name with its value (also percent-encoded
# or escaped as in JSON), and a run of Base64 that is longer than any word, such as a signature (44 characters).
_QUERY: Final = re.compile(r"""\?[^\s"'<>]*(?:=|%3[dD])[^\s"'<>]*""")
_NAMED_SECRET: Final = re.compile(
    r"""\b(authorization|api[_-]?key|api[_-]?secret|signature|date|host)\b"""
    r"""(\\?["']?\s*(?:=|:|%3[dD]|\\u003[dD])\s*\\?["']?)"""
    r"""(?:[A-Z][a-z]{2},[ +][0-9A-Za-z: +]{16,24}(?:GMT|UTC)|[^\s&"'<>,;\\]+)""",
    re.IGNORECASE,
)
_LONG_RUN: Final = re.compile(r"(?=[A-Za-z+/%_=-]*[0-9])(?=[a-z0-9+/%_=-]*[A-Z])[A-Za-z0-9+/%_=-]{40,}")
_LAST_WORD: Final = re.compile(r"\S*\Z")
_QUOTED_FROM: Final = 8 * MAX_QUOTED  # characters that are looked at


def redact(text: str) -> str:
    """Leave out of a stranger's text what a signed address of ours is made of; an ellipsis stands for it.

    For text that may repeat our request: gateways echo the request line, and a signed address is good for 300 s.
    """
    text = _QUERY.sub("?…", text)
    text = _NAMED_SECRET.sub(r"\1\2…", text)
    return _LONG_RUN.sub("…", text)


def quote(text: str) -> str:
    """Make a vendor's message fit for a log line or a screen: `redact` and `quotable`, at most `MAX_QUOTED` long."""
    if len(text) > _QUOTED_FROM:
        # A secret that is cut in two would not be recognised.
        text = _LAST_WORD.sub("…", text[:_QUOTED_FROM])
    return quotable(redact(text))


def refusal(service: Service, code: int, message: str, sid: str | None) -> UpstreamRefused:
    """The exception for an error code.

    ``detail`` quotes the code and the vendor's message, bounded. Only where the documents allow it to be shown
    (`Advice.shows_hint`) does the message become the ``hint``; there ``detail`` leaves it out, because a moderation
    hint is addressed to the person who asked and may repeat what they wrote.

    Args:
        message: the vendor's text as it came, of any length and content.
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
