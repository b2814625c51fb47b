"""The signed URLs of the iFlytek open platform: making them, and checking them as its gateway does.

Each call carries three query parameters, ``authorization``, ``date`` and ``host``; the signature is an HMAC-SHA256 over
host, date and request line. Spark chat, image understanding and dictation are signed as ``GET`` (the websocket
handshake), picture text as ``POST``. The application's id is no part of it: the gateway looks at it only in the body.

A signed URL holds the API key and is good for five minutes to whoever reads it, so it is written to no log.

Source: iFlytek, 《WebSocket协议通用鉴权URL生成说明》 and 《语音听写（流式版）WebAPI 文档》, section 接口鉴权.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

__all__ = ["SignatureRefused", "clock_offset", "http_date", "sign_url", "verify"]

MAX_CLOCK_SKEW: Final = 300.0
"""Seconds that ``date`` may be off the gateway's clock, either way. Source: 《WebSocket协议通用鉴权URL生成说明》."""

_MAX_AUTHORIZATION: Final = 4096  # characters; a real one has about 220
_SIGNED_PARTS: Final = "host date request-line"

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE: Final = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) (" + "|".join(_MONTHS) + r") ([0-9]{4})"
    r" ([0-9]{2}):([0-9]{2}):([0-9]{2}) (?:GMT|UTC)"
)
_PARAMETER: Final = re.compile(r'\s*([a-z_]+)="([^"]*)"\s*(?:,|\Z)')


class SignatureRefused(Exception):
    """The gateway's refusal of a request.

    Attributes:
        status: HTTP status, 401 or 403.
        message: what the gateway puts into its body, ``{"message": …}``.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


# -- dates -------------------------------------------------------------------------------------------------------------


def http_date(when: datetime) -> str:
    """Write a moment the way the signature wants it, ``Fri, 05 May 2023 10:43:39 GMT``, whatever the locale.

    Args:
        when: aware, in any zone; fractions of a second are dropped.

    Raises:
        ValueError: ``when`` is naive. A local time taken for UTC is refused by the gateway, eight hours off in China.
    """
    if when.tzinfo is None:
        raise ValueError("http_date needs an aware datetime")
    return format_datetime(when.astimezone(UTC), usegmt=True)


def parse_http_date(text: str) -> datetime | None:
    """Read an RFC 1123 date as an aware UTC moment; ``None`` if it is none.

    ``UTC`` is taken for ``GMT``, as the platform does (iFlytek's own Go sample sends it). The name of the day must be
    one, and is not compared with the date.
    """
    match = _HTTP_DATE.fullmatch(text)
    if match is None:
        return None
    day, month, year, hour, minute, second = match.groups()
    try:
        return datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:  # 31 February, 25 o'clock
        return None


def clock_offset(server_date: str, now: datetime) -> float | None:
    """Seconds to add to our clock to get the server's; ``None`` if ``server_date`` is no date.

    Args:
        server_date: the value of a response's ``Date`` header, exact to a second.
        now: our clock when the response came, aware.
    """
    moment = parse_http_date(server_date.strip())
    return None if moment is None else (moment - now).total_seconds()


# -- signing -----------------------------------------------------------------------------------------------------------


def signature_origin(*, host: str, date: str, method: str, path: str) -> str:
    """The text that is signed: three lines, LF between them and none behind.

    Args:
        host: the authority of the URL as spelt, port included; its case counts.
        date: as `http_date` writes it.
        method: ``GET`` or ``POST``.
        path: the path alone, without a query.
    """
    return f"host: {host}\ndate: {date}\n{method} {path} HTTP/1.1"


def signature_of(origin: str, *, api_secret: str) -> str:
    """Base64 of the HMAC-SHA256 of ``origin``. The secret is used as it stands, though it looks like Base64."""
    digest = hmac.new(api_secret.encode(), origin.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode("ascii")


def authorization_origin(*, api_key: str, signature: str) -> str:
    """The parameter list that ``authorization`` wraps."""
    return f'api_key="{api_key}", algorithm="hmac-sha256", headers="{_SIGNED_PARTS}", signature="{signature}"'


def authorization_of(*, api_key: str, signature: str) -> str:
    """The value of the query parameter ``authorization``, not yet percent-encoded."""
    return base64.b64encode(authorization_origin(api_key=api_key, signature=signature).encode()).decode("ascii")


def sign_url(url: str, *, method: Literal["GET", "POST"], api_key: str, api_secret: str, date: str) -> str:
    """Append ``authorization``, ``date`` and ``host`` to a URL.

    Args:
        url: ``wss://``, ``https://`` or their plain forms. A query that it has is kept in front and not signed; a
            fragment is dropped; an empty path becomes ``/``, which is what goes into the request line.
        method: ``GET`` for a websocket handshake.
        date: as `http_date` writes it; the URL is good for `MAX_CLOCK_SKEW` around it.

    Raises:
        ValueError: the URL names no host.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]  # netloc, since .hostname would lower the case that is signed
    if not host:
        raise ValueError("the URL to sign names no host")
    path = parts.path or "/"
    signature = signature_of(signature_origin(host=host, date=date, method=method, path=path), api_secret=api_secret)
    query = urlencode(
        {"authorization": authorization_of(api_key=api_key, signature=signature), "date": date, "host": host}
    )
    if parts.query:
        query = f"{parts.query}&{query}"
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


# -- checking ----------------------------------------------------------------------------------------------------------


def verify(*, method: str, path: str, query: Mapping[str, str], secrets: Mapping[str, str], now: datetime) -> str:
    """Check a request as the platform's gateway does and return its API key.

    ``host`` is taken from the query rather than from the Host header, so that a client that signs another spelling of
    the host, or reaches us through a forwarded port, is served. The platform's own order of checks is not published;
    here it is: authorization, key, date, host, signature.

    Args:
        method: the method of the request.
        path: the path of the request, without its query.
        query: the decoded query, ``+`` already turned into a space.
        secrets: API secret by API key.
        now: the gateway's clock, aware.

    Raises:
        SignatureRefused: with the status and the message of the platform.
    """
    authorization = query.get("authorization", "")
    if not authorization:
        raise SignatureRefused(401, "Unauthorized")
    parameters = _parse_authorization(authorization)
    api_key = parameters["api_key"]
    api_secret = secrets.get(api_key)
    if api_secret is None:
        raise SignatureRefused(401, "HMAC signature cannot be verified: fail to retrieve credential")
    date = query.get("date", "")
    moment = parse_http_date(date)
    if moment is None or abs((moment - now).total_seconds()) > MAX_CLOCK_SKEW:
        raise SignatureRefused(
            403,
            "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication",
        )
    host = query.get("host", "")
    if not host:
        raise SignatureRefused(401, "HMAC signature cannot be verified")
    origin = signature_origin(host=host, date=date, method=method, path=path)
    expected = signature_of(origin, api_secret=api_secret)
    if not hmac.compare_digest(expected.encode(), parameters["signature"].encode(errors="surrogatepass")):
        raise SignatureRefused(401, "HMAC signature does not match")
    return api_key


def _parse_authorization(authorization: str) -> dict[str, str]:
    """Read ``authorization`` into its parameters; ``hmac username=`` is taken for ``api_key=``."""
    unusable = SignatureRefused(401, "HMAC signature cannot be verified")
    if len(authorization) > _MAX_AUTHORIZATION:
        raise unusable
    try:
        text = base64.b64decode(authorization.encode("ascii"), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeError) as error:
        raise unusable from error
    # iFlytek's own OCR skill and several relays send the scheme's name and "username"; both are accepted there.
    text = text.strip().removeprefix("hmac ")
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise unusable
        name = "api_key" if match[1] == "username" else match[1]
        if name in parameters:
            raise unusable
        parameters[name] = match[2]
        position = match.end()
    if not parameters.get("api_key") or not parameters.get("signature"):
        raise unusable
    if parameters.get("algorithm") != "hmac-sha256" or parameters.get("headers") != _SIGNED_PARTS:
        raise unusable
    return parameters
