"""What each Spark model takes: the limits of a ``domain`` and the addresses that it belongs to.

Source: iFlytek, 《星火认知大模型 Web API 文档》, 《星火认知大模型服务说明》, 《星火X1 websocket 协议文档》.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "completion_limit",
    "context_limit",
    "domains_of_path",
    "known_domains",
    "max_temperature",
    "takes_system_role",
]


class _Model(NamedTuple):
    """The limits of one ``domain``, in tokens."""

    context: int = 8192
    completion: int = 4096
    takes_system_role: bool = True
    max_temperature: float = 1.0


# A domain that is not here is a newer model or a fine-tuned one: it gets the documents' smallest limits.
_UNLISTED_MODEL: Final = _Model()
_MODELS: Final[Mapping[str, _Model]] = MappingProxyType(
    {
        "lite": _Model(takes_system_role=False),
        "general": _Model(takes_system_role=False),
        "generalv2": _Model(takes_system_role=False),
        "generalv3": _Model(completion=8192),
        "pro-128k": _Model(context=128 * 1024),
        "generalv3.5": _Model(completion=8192),
        "max-32k": _Model(context=32 * 1024, completion=8192),
        "4.0Ultra": _Model(completion=8192),
        "x1": _Model(context=32 * 1024, completion=32768, max_temperature=2.0),
        "spark-x": _Model(context=64 * 1024, completion=65535, max_temperature=2.0),
        "kjwx": _Model(takes_system_role=False),
        "multilang": _Model(takes_system_role=False),
    }
)

_DOMAINS_OF_PATH: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "/v1.1/chat": ("lite", "general"),
        "/v2.1/chat": ("generalv2",),
        "/v3.1/chat": ("generalv3",),
        "/chat/pro-128k": ("pro-128k",),
        "/v3.5/chat": ("generalv3.5",),
        "/chat/max-32k": ("max-32k",),
        "/v4.0/chat": ("4.0Ultra",),
        "/v1/x1": ("x1", "spark-x"),
        "/x2": ("spark-x",),
        "/v1.1/chat_kjwx": ("kjwx",),
        "/v1.1/chat_multilang": ("multilang",),
    }
)


def known_domains(url: str) -> tuple[str, ...] | None:
    """The values of ``parameter.chat.domain`` that fit a Spark URL; ``None`` where the documents do not tell.

    Only the path decides, so that a stand-in platform on another host is judged alike, with one exception: the hosts of
    fine-tuned models (``maas-api…``) share a path with Lite and take the value that the console prints for the model.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None
    return None if host.startswith("maas-api") else _DOMAINS_OF_PATH.get(parts.path)


def context_limit(domain: str) -> int:
    """Tokens of all messages together; over it the platform refuses with 10907. 8192 for a domain not listed."""
    return _MODELS.get(domain, _UNLISTED_MODEL).context


def completion_limit(domain: str) -> int:
    """The largest ``max_tokens`` of a model; 4096 for a domain not listed."""
    return _MODELS.get(domain, _UNLISTED_MODEL).completion


def max_temperature(domain: str) -> float:
    """The highest ``temperature`` of a model, itself included; the lowest is over 0. Models that reason take 2."""
    return _MODELS.get(domain, _UNLISTED_MODEL).max_temperature


def domains_of_path(path: str) -> tuple[str, ...]:
    """The values of ``parameter.chat.domain`` that belong to an address's path; none for a path not documented."""
    return _DOMAINS_OF_PATH.get(path, ())


def takes_system_role(domain: str) -> bool:
    """Whether a model accepts a message of role ``system``; taken for granted for a domain not listed."""
    return _MODELS.get(domain, _UNLISTED_MODEL).takes_system_role
