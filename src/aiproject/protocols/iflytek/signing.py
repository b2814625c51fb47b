"""Signed URLs of the iFlytek open platform: the client's signing and the gateway's verification.

Each call carries three query parameters, ``authorization``, ``date`` and ``host``. The signature is an HMAC-SHA256 over
host, date and request line. Spark chat, image understanding and dictation are signed as ``GET`` (the websocket
handshake), OCR as ``POST``. The application id is not signed: the gateway reads it from the body only.

A signed URL contains the API key and remains valid for five minutes for anyone who reads it, so it must never be
logged.

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
"""Seconds by which ``date`` may differ from the gateway's clock. Source: 《WebSocket协议通用鉴权URL生成说明》."""

_MAX_AUTHORIZATION: Final = 4096  # characters; a real value has about 220
_SIGNED_PARTS: Final = "host date request-line"

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE: Final = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) (" + "|".join(_MONTHS) + r") ([0-9]{4})"
    r" ([0-9]{2}):([0-9]{2}):([0-9]{2}) (?:GMT|UTC)"
)
_PARAMETER: Final = re.compile(r'\s*([a-z_]+)="([^"]*)"\s*(?:,|\Z)')


class SignatureRefused(Exception):
    """A request that the gateway refuses.

    Attributes:
        status: the HTTP status, 401 or 403.
        message: the text in the gateway's body, ``{"message": …}``.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


# -- dates -------------------------------------------------------------------------------------------------------------


def http_date(when: datetime) -> str:
    """Format a date as the signature requires it, ``Fri, 05 May 2023 10:43:39 GMT``, independently of the locale.

    Args:
        when: an aware datetime in any zone; fractions of a second are dropped.

    Raises:
        ValueError: ``when`` is naive. The gateway refuses a local time sent as UTC, which is off by eight hours in
            China.
    """
    if when.tzinfo is None:
        raise ValueError("http_date needs an aware datetime")
    return format_datetime(when.astimezone(UTC), usegmt=True)


def parse_http_date(text: str) -> datetime | None:
    """Parse an RFC 1123 date as an aware datetime in UTC; ``None`` if ``text`` is not one.

    ``UTC`` is accepted for ``GMT``, as the platform does (iFlytek's own Go sample sends it). The name of the day must
    be valid, and is not compared with the date.
    """
    match = _HTTP_DATE.fullmatch(text)
    if match is None:
        return None
    day, month, year, hour, minute, second = match.groups()
    try:
        return datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:  # for example 31 February
        return None


def clock_offset(server_date: str, now: datetime) -> float | None:
    """Return the seconds to add to our clock to get the server's; ``None`` if ``server_date`` is not a date.

    Args:
        server_date: the value of a response's ``Date`` header, exact to a second.
        now: our clock when the response arrived, aware.
    """
    moment = parse_http_date(server_date.strip())
    return None if moment is None else (moment - now).total_seconds()


# -- signing -----------------------------------------------------------------------------------------------------------


def signature_origin(*, host: str, date: str, method: str, path: str) -> str:
    """Return the text to be signed: three lines with LF between them and none at the end.

    Args:
        host: the authority of the URL as written, port included; it is case-sensitive.
        date: the result of `http_date`.
        method: ``GET`` or ``POST``.
        path: the path without a query.
    """
    return f"host: {host}\ndate: {date}\n{method} {path} HTTP/1.1"


def signature_of(origin: str, *, api_secret: str) -> str:
    """Return the HMAC-SHA256 of ``origin`` in Base64. The secret is used as it is, although it looks like Base64."""
    digest = hmac.new(api_secret.encode(), origin.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode("ascii")


def authorization_origin(*, api_key: str, signature: str) -> str:
    """Return the parameter list that ``authorization`` encodes."""
    return f'api_key="{api_key}", algorithm="hmac-sha256", headers="{_SIGNED_PARTS}", signature="{signature}"'


def authorization_of(*, api_key: str, signature: str) -> str:
    """Return the value of the query parameter ``authorization``, not yet percent-encoded."""
    return base64.b64encode(authorization_origin(api_key=api_key, signature=signature).encode()).decode("ascii")


def sign_url(url: str, *, method: Literal["GET", "POST"], api_key: str, api_secret: str, date: str) -> str:
    """Append ``authorization``, ``date`` and ``host`` to a URL.

    Args:
        url: ``wss://``, ``https://`` or their plain forms. An existing query is kept in front and not signed; a
            fragment is dropped; an empty path becomes ``/``, which is what the request line contains.
        method: ``GET`` for a websocket handshake.
        date: the result of `http_date`; the URL is valid for `MAX_CLOCK_SKEW` before and after it.

    Raises:
        ValueError: the URL has no host.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]  # not .hostname, which would lower the case of what is signed
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
    """Verify a request as the platform's gateway does and return its API key.

    ``host`` is taken from the query instead of the Host header. Clients that sign another spelling of the host, or that
    reach the sandbox through a forwarded port, are therefore accepted. The platform does not publish the order of its
    checks; here it is authorization, key, date, host, signature.

    Args:
        method: the method of the request.
        path: the path of the request, without its query.
        query: the decoded query, with ``+`` already replaced by a space.
        secrets: the API secrets by API key.
        now: the gateway's clock, aware.

    Raises:
        SignatureRefused: with the platform's status and message.
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
    """Parse ``authorization`` into its parameters; ``hmac username=`` is accepted for ``api_key=``."""
    unusable = SignatureRefused(401, "HMAC signature cannot be verified")
    if len(authorization) > _MAX_AUTHORIZATION:
        raise unusable
    try:
        text = base64.b64decode(authorization.encode("ascii"), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeError) as error:
        raise unusable from error
    # iFlytek's own OCR skill and several relays send the scheme's name and "username"; the platform accepts both.
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
